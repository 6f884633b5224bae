"""How far to trust each segmentation of a prediction."""
