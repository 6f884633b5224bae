"""Import weights of the authors' implementation as an nnU-Net model folder; uses planning and training."""
