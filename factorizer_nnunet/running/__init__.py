"""A complete cross-validation as one resumable command: steps whose state is read from nnU-Net's files."""
