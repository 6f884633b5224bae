"""Training: plans to trained folds, by the trainer that nnU-Net finds through ``factorizer_nnunet/ext_trainer``."""
