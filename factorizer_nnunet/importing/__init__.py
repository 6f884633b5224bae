"""Weights of the authors' implementation to a model folder of nnU-Net; above planning and training, using both."""
