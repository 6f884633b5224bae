"""A whole cross-validation as one resumable command: steps whose state is read from what nnU-Net leaves on disk."""
