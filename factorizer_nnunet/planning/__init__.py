"""Fingerprint to plans: nnU-Net's planner, configured for Factorizer."""
