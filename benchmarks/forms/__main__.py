"""Which form of the network learns most in the same time.

    python -m benchmarks.forms DATA --root WORK

DATA is the Hippocampus data set (Medical Segmentation Decathlon, Task04) in nnU-Net raw layout; a second, synthetic
task needs context from far away. Every form of ``table.FORMS`` trains on both for the time that nnU-Net's U-Net takes
for ``--iterations``; the best, and the references, then for that of ``--final-iterations`` with three seeds. What is
done stays in WORK, so the command continues where it was stopped. The page and figure go to ``docs/``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.arguments import benchmark_parser, parse
from benchmarks.forms.report import mean_dice, write_report
from benchmarks.forms.table import FORMS, REFERENCE
from benchmarks.forms.tasks import TASKS, load_task
from benchmarks.forms.training import relative_cost, train
from factorizer_nnunet.files import write_whole

ALWAYS_FINAL = (REFERENCE, "default", "no NMF", "published")
SEEDS = (0, 1, 2)


def measure(data: Path, target: Path, rounds: int) -> dict:
    """Cost of an iteration of every form over that of REFERENCE, on both tasks; kept in ``target``."""
    known = json.loads(target.read_text()) if target.exists() else {"cost": {name: {} for name in TASKS}}
    missing = {task: [name for name in FORMS if name not in known["cost"][task]] for task in TASKS}
    if any(missing.values()):
        torch.set_num_threads(1)
        print("timing iterations of each form beside nnU-Net's", flush=True)
        for task, names in missing.items():
            known["cost"][task].update(relative_cost(names, load_task(task, data), rounds) if names else {})
        known["machine"] = f"{platform.machine()}, 1 of {os.cpu_count()} cores used"
        known["versions"] = {name: version(name) for name in ("torch", "nnunetv2", "factorizer_nnunet")}
        write_whole(target, json.dumps(known, indent=1))
    return known


def run_all(
    stage: str,
    forms: Sequence[str],
    seeds: Sequence[int],
    iterations: int,
    root: Path,
    data: Path,
    cost: dict,
    jobs: int,
) -> None:
    """Train what is missing of a stage; ``iterations`` are REFERENCE's, the others get as many as take that time."""
    todo = []
    for seed in seeds:
        for task in TASKS:
            for form in forms:
                target = root / stage / f"{_slug(task)}__{_slug(form)}__seed{seed}.json"
                if not target.exists():
                    todo.append((form, task, seed, round(iterations / cost[task][form]), target))
    # Processes are started, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(train, *job, data) for job in todo]
        for future in tqdm(as_completed(running), total=len(running), desc=stage):
            future.result()


def _slug(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def finalists(root: Path, count: int) -> list[str]:
    """The references, and the ``count`` other forms with the best mean over both tasks in the screening."""
    scores = mean_dice(root / "screening")
    others = [name for name in FORMS if name not in ALWAYS_FINAL and all((name, task) in scores for task in TASKS)]
    others.sort(key=lambda name: -sum(scores[name, task] for task in TASKS))
    return [*ALWAYS_FINAL, *others[:count]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Time, screen, train the finalists unless only some forms are asked for, write the page."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--forms", nargs="+", choices=FORMS, metavar="NAME", help="only screen these (default: all)")
    parser.add_argument("--iterations", type=int, default=100, help="nnU-Net's, in the screening (default 100)")
    parser.add_argument("--final-iterations", type=int, default=150, help="nnU-Net's, for the finalists (default 150)")
    parser.add_argument("--finalists", type=int, default=2, help="how many beside the references (default 2)")
    parser.add_argument("--rounds", type=int, default=8, help="iterations timed of each form (default 8)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each (default 2)")
    options = parse(parser, arguments)
    root, timing = options.root.resolve(), options.root.resolve() / "timing.json"
    if options.report_only and not timing.exists():
        sys.exit(f"error: nothing has run in {root} yet")
    root.mkdir(parents=True, exist_ok=True)
    measured = json.loads(timing.read_text()) if options.report_only else measure(options.data, timing, options.rounds)
    if not options.report_only:
        common = (root, options.data, measured["cost"], options.jobs)
        run_all("screening", options.forms or list(FORMS), SEEDS[:1], options.iterations, *common)
        if not options.forms:
            run_all("final", finalists(root, options.finalists), SEEDS, options.final_iterations, *common)
    write_report(root, measured, options.docs)


if __name__ == "__main__":
    main()
