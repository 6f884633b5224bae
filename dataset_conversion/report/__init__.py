"""Report of a conversion: conversion_report.json, which ``to-challenge`` reads, and a page for people."""

from __future__ import annotations

import json
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.dataset_conversion.report.case_viewer import case_viewer
from factorizer_nnunet.dataset_conversion.report.contact_sheet import Pictures
from factorizer_nnunet.dataset_conversion.report.facts import Conversion, report_facts, total_mm3
from factorizer_nnunet.dataset_conversion.report.page import html_page
from factorizer_nnunet.nnunet.conversion_report import REPORT_FILE

__all__ = ["PAGE_FILE", "REPORT_FILE", "Conversion", "report_facts", "total_mm3", "write_report"]

PAGE_FILE = "conversion_report.html"


def write_report(folder: Path, conversion: Conversion) -> None:
    """Write conversion_report.json and conversion_report.html into ``folder`` of the written cases, each atomically.

    Raises:
        OSError: the folder is not writable.
    """
    facts = report_facts(conversion)
    pictures = Pictures.of(conversion.survey, conversion.registered)
    write_text_atomically(folder / REPORT_FILE, json.dumps(facts, indent=1, allow_nan=False) + "\n")
    write_text_atomically(folder / PAGE_FILE, html_page(facts, pictures, case_viewer(folder, conversion, facts)))
