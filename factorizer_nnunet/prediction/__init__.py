"""Trained folds to predictions: nnU-Net's predictor, with checkpoints loaded safely and every case written whole."""
