"""What nnU-Net's files, folders and environment variables say, read in one place."""
