"""Volumes and their grids: reading and writing NIfTI, orientation, planes and windows for pictures."""
