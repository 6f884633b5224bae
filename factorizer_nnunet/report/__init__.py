"""Results of nnU-Net as one HTML page: scores with intervals, every case, comparisons of models, and pictures."""

from factorizer_nnunet.report.sources import Sources
from factorizer_nnunet.report.write import write_report

__all__ = ["Sources", "write_report"]
