"""The planner's choices of windows, shifts, widths and depth against alternatives, at equal training time.

    python -m benchmarks.planning_study DATA --root WORK

DATA is the Hippocampus data set (Medical Segmentation Decathlon, Task04) in nnU-Net raw layout. Every form of
``table.PLANNING_STUDY`` trains for the time that the planned network takes for ``--iterations``; the best, and three
that are chosen beforehand, then for that of ``--final-iterations`` with three seeds. What is done stays in WORK, so the
command continues where it was stopped. The page and figure go to ``docs/``.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.forms.running import carry_out, study_parser
from benchmarks.planning_study.report import write_report
from benchmarks.planning_study.table import PLANNING_STUDY


def main(arguments: Sequence[str] | None = None) -> None:
    """Time, screen, train the finalists unless only some forms are asked for, write the page."""
    carry_out(PLANNING_STUDY, study_parser(__doc__, PLANNING_STUDY, 60, 90), arguments, write_report)


if __name__ == "__main__":
    main()
