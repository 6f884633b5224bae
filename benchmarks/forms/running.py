"""Carry a study out: time its forms, screen all, train the finalists, write the page; nothing is done twice."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.arguments import benchmark_parser, parse
from benchmarks.forms.results import mean_dice
from benchmarks.forms.study import Study
from benchmarks.forms.tasks import load_task
from benchmarks.forms.training import relative_cost, train
from factorizer_nnunet.core.atomic_files import file_lock, write_text_atomically
from factorizer_nnunet.core.errors import UserError

UNFINISHED = 75  # exit status after --minutes: the same command goes on


def study_parser(description: str, study: Study, iterations: int, final_iterations: int) -> argparse.ArgumentParser:
    """The command line of a study; the two numbers are the defaults of its options."""
    parser = benchmark_parser(description)
    ours = f"{study.reference}'s"
    parser.add_argument("--forms", nargs="+", choices=study.forms, metavar="NAME", help="only screen these")
    parser.add_argument("--iterations", type=int, default=iterations, help=f"{ours}, in the screening ({iterations})")
    parser.add_argument(
        "--final-iterations", type=int, default=final_iterations, help=f"{ours}, for the finalists ({final_iterations})"
    )
    parser.add_argument("--finalists", type=int, default=2, help="how many beside those that always are (default 2)")
    parser.add_argument("--rounds", type=int, default=8, help="iterations timed of each form (default 8)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each (default 2)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help=f"begin no training after so many; status {UNFINISHED} tells that some are missing (default: no limit)",
    )
    return parser


def carry_out(
    study: Study,
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    write_report: Callable[[Path, Mapping, Path], None],
) -> None:
    """Time, screen, train the finalists unless only some forms are asked for, write the page.

    Args:
        study: what is compared.
        parser: see ``study_parser``.
        arguments: of the command line.
        write_report: takes the working folder, what ``measure`` returned, and the folder of the page.
    """
    options = parse(parser, arguments)
    deadline = time.monotonic() + 60 * options.minutes
    root, timing = options.root.resolve(), options.root.resolve() / "timing.json"
    if options.report_only and not timing.exists():
        sys.exit(f"error: nothing has run in {root} yet")
    root.mkdir(parents=True, exist_ok=True)
    if options.report_only:
        write_report(root, json.loads(timing.read_text()), options.docs)
        return
    measured = measure(study, options.data, timing, options.rounds)
    common = (root, options.data, measured["cost"], options.jobs, deadline)
    done = run_all(study, "screening", options.forms or list(study.forms), study.seeds[:1], options.iterations, *common)
    if done and not options.forms:
        chosen = finalists(study, root, options.finalists)
        done = run_all(study, "final", chosen, study.seeds, options.final_iterations, *common)
    if not done:
        sys.exit(UNFINISHED)
    write_report(root, measured, options.docs)


def measure(study: Study, data: Path, target: Path, rounds: int) -> dict:
    """Cost of an iteration of every form over that of the reference, on every task; kept in ``target``."""
    known = json.loads(target.read_text()) if target.exists() else {"cost": {name: {} for name in study.patches}}
    missing = {task: [name for name in study.forms if name not in known["cost"][task]] for task in study.patches}
    if any(missing.values()):
        torch.set_num_threads(1)
        print(f"timing iterations of each form beside those of {study.reference}", flush=True)
        for task, names in missing.items():
            if names:
                loaded = load_task(task, data, study.patches[task])
                known["cost"][task].update(relative_cost(study, names, loaded, rounds))
        known["machine"] = f"{platform.machine()}, 1 of {os.cpu_count()} cores used"
        known["versions"] = {name: version(name) for name in ("torch", "nnunetv2", "factorizer_nnunet")}
        write_text_atomically(target, json.dumps(known, indent=1))
    return known


def run_all(
    study: Study,
    stage: str,
    forms: Sequence[str],
    seeds: Sequence[int],
    iterations: int,
    root: Path,
    data: Path,
    cost: Mapping[str, Mapping[str, float]],
    jobs: int,
    deadline: float,
) -> bool:
    """Train what is missing of a stage, beginning nothing after ``deadline``; returns whether all is done.

    ``iterations`` are the reference's; the other forms get as many as take that time. Seeds come one after the other,
    so that the forms can be compared whenever the work is stopped.
    """
    todo = []
    for seed in seeds:
        for task in study.patches:
            for form in forms:
                target = root / stage / f"{_slug(task)}__{_slug(form)}__seed{seed}.json"
                if not target.exists():
                    todo.append((target, (study, form, task, seed, round(iterations / cost[task][form]), data)))
    # Processes are started, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(_train_before, deadline, *job) for job in todo]
        outcomes = [future.result() for future in tqdm(as_completed(running), total=len(running), desc=stage)]
    return all(outcomes)


def _train_before(deadline: float, target: Path, job: tuple) -> bool:
    """Train unless it is too late to begin, or the same command beside this one does; whether ``target`` is there.

    ``deadline`` is of time.monotonic, which processes share.
    """
    if time.monotonic() > deadline:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file_lock(target.with_suffix(".lock"), f"{target} is being made"):
            if not target.exists():
                train(*job, target)
    except UserError:
        return False
    return True


def _slug(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def finalists(study: Study, root: Path, count: int) -> list[str]:
    """Those that always are, and the ``count`` other forms with the best mean over the tasks in the screening."""
    scores = mean_dice(root / "screening")
    others = [
        name
        for name in study.forms
        if name not in study.always_final and all((name, task) in scores for task in study.patches)
    ]
    others.sort(key=lambda name: -sum(scores[name, task] for task in study.patches))
    return [*study.always_final, *others[:count]]
