"""Factorizer as a drop-in backbone for nnU-Net.

The package in the order of the data flow: ``dataset_conversion`` (challenge data to nnU-Net raw format), ``planning``
(fingerprint to plans), ``training`` (plans to trained folds, found by nnU-Net through ``ext_trainer``), ``network``
(the model itself, torch only) and ``demo`` (all of it on synthetic patients). ``importing`` brings in models of the
authors' implementation.
"""

__version__ = "0.1.0"
