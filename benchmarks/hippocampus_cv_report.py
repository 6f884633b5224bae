"""The report of the hippocampus cross-validation, Factorizer against nnU-Net's own U-Net, and its picture.

    python -m benchmarks.hippocampus_cv_report --root WORK

WORK is that of ``benchmarks.hippocampus`` after all folds of its short budget are trained: equal iterations for both
networks, and equal wall time. ``WORK/hippocampus_report.html`` is the page, ``docs/hippocampus_report.png`` a picture
of its beginning by Chromium, where there is one. Other finished trainings are reported with ``--models``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.hippocampus import CONFIGURATION, DATASET, PLANS, planned_runs
from benchmarks.hippocampus_report import TITLES
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.report import Sources, write_report

PICTURE_SIZE = (1320, 2300)  # pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def finished_models(root: Path, short: int) -> dict[str, Path]:
    """Folders of the short budget's models by their titles, nnU-Net first.

    Raises:
        UserError: the benchmark has not timed the networks, so what it trained is not known.
    """
    timing = root / "iteration_time.json"
    if not timing.is_file():
        raise UserError(f"no {timing}: run python -m benchmarks.hippocampus DATA --root {root} first")
    runs = planned_runs(short, short, [0], json.loads(timing.read_text(encoding="utf-8"))["ratio"])
    names = {TITLES[run.comparison]: run.trainer for run in runs if run.budget == "short"}
    by_trainer: dict[str, str] = {}  # runs of equal length are one model: the first title stands
    for title, trainer in names.items():
        by_trainer.setdefault(trainer, title)
    return {
        title: root / "results" / DATASET / f"{trainer}__{PLANS}__{CONFIGURATION}"
        for trainer, title in by_trainer.items()
    }


def draw_picture(page: Path, target: Path) -> None:
    """A picture of the page's beginning; says so and draws none where there is no Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"no picture: none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        size = ",".join(map(str, PICTURE_SIZE))
        flags += ["--hide-scrollbars", f"--user-data-dir={profile}", f"--window-size={size}"]
        command = [browser, *flags, f"--screenshot={target.resolve()}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write page and picture; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root",
        type=Path,
        required=True,
        metavar="WORK",
        help="folder of benchmarks.hippocampus; the page and its scores go there, too",
    )
    parser.add_argument("--short", type=int, default=400, help="its iterations of the short budget (default 400)")
    parser.add_argument("--models", type=Path, nargs="+", metavar="DIR", help="folders of models instead of those")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what they are called")
    parser.add_argument("--raw", type=Path, metavar="DIR", help="nnUNet_raw of the cases (default: WORK/raw)")
    parser.add_argument(
        "--docs", type=Path, default=Path("docs/measured"), help="where the picture goes (default %(default)s)"
    )
    parser.add_argument("--partial", action="store_true", help="also with folds that are not finished")
    options = parser.parse_args(arguments)
    page = options.root / "hippocampus_report.html"
    try:
        models = {} if options.models else finished_models(options.root, options.short)
        write_report(
            options.models or list(models.values()),
            page,
            names=options.names or list(models) or None,
            sources=Sources(environment={"nnUNet_raw": str(options.raw or options.root / "raw")}),
            scores_folder=options.root / "report_scores",
            num_processes=2,
            partial=options.partial,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    draw_picture(page, options.docs / "hippocampus_report.png")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
