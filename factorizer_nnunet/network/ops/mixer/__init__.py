"""The residual NMF branch, x + mixer(norm(x)), and the NMF of all windows inside it."""
