"""Masks to numbers: scores per case and region, lesion by lesion, as nnU-Net or as a challenge counts them."""
