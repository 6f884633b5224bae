"""``python -m factorizer_nnunet`` is the command ``factorizer-nnunet``."""

from __future__ import annotations

import sys

from factorizer_nnunet.cli import main

if __name__ == "__main__":  # nnU-Net's worker processes import this module again
    sys.exit(main())
