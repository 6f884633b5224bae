"""Volumes, labels and their grids: NIfTI files, checks, orientation, and pictures of slices."""
