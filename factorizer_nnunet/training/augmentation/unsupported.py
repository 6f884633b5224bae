"""What keeps nnU-Net's own pipeline in place."""

from __future__ import annotations


class UnsupportedError(ValueError):
    """A pipeline or loader cannot be divided between workers and device; the message names the part."""
