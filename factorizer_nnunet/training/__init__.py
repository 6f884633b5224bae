"""Plans to trained folds: the trainer that nnU-Net finds through ``factorizer_nnunet/ext_trainer``."""
