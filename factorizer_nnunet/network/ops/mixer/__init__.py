"""The NMF branch, mixer(norm(x)), which may be added to x, and the NMF of all windows inside it."""
