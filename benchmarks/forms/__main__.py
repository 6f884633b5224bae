"""Which form of the network learns most in the same time.

    python -m benchmarks.forms DATA --root WORK

DATA is the Hippocampus data set (Medical Segmentation Decathlon, Task04) in nnU-Net raw layout; a second, synthetic
task needs context from far away. Every form of ``table.FORMS_STUDY`` trains on both for the time that nnU-Net's U-Net
takes for ``--iterations``; the best, and the references, then for that of ``--final-iterations`` with three seeds.
What is done stays in WORK, so the command continues where it was stopped. The page and figure go to ``docs/``.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.forms.report import write_report
from benchmarks.forms.running import carry_out, study_parser
from benchmarks.forms.table import FORMS_STUDY


def main(arguments: Sequence[str] | None = None) -> None:
    """Time, screen, train the finalists unless only some forms are asked for, write the page."""
    carry_out(FORMS_STUDY, study_parser(__doc__, FORMS_STUDY, 100, 150), arguments, write_report)


if __name__ == "__main__":
    main()
