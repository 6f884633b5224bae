"""Which form of the network learns most in the same time: the evidence behind its default settings."""
