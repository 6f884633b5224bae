"""Predictions with trained folds: nnU-Net's predictor, safe loading of checkpoints, every case written atomically."""
