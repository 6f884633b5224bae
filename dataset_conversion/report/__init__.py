"""What a conversion found and did: ``facts`` as JSON, which the way back reads, and a ``page`` of them for people."""

from factorizer_nnunet.dataset_conversion.report.facts import (
    PAGE_FILE,
    REPORT_FILE,
    report_facts,
    total_mm3,
    write_report,
)

__all__ = ["PAGE_FILE", "REPORT_FILE", "report_facts", "total_mm3", "write_report"]
