"""What faster predictions of a trained Factorizer cost on real data.

    python -m benchmarks.tune_inference DATA --root WORK

DATA is the Hippocampus data set (Medical Segmentation Decathlon, Task04) in nnU-Net raw layout. A small model is
planned and trained through the commands, ``tune-inference`` measures it on its own validation cases, and the literal
algorithm of the paper is timed beside; page and plots go to ``docs/``. The command continues where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.arguments import benchmark_parser, parse
from benchmarks.hippocampus import environment, run_command
from benchmarks.tune_inference.literal import measure_iterations
from benchmarks.tune_inference.model import FOLD, FORMS, trained
from benchmarks.tune_inference.report import write_report
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.nnunet.environment import EXT_TRAINER_VARIABLE, ext_trainer_value

PATCHES = ((32, 32, 32), (64, 64, 64))
# On images of about 35 x 50 x 35 voxels, steps of 0.75 and 1 of a patch of 32 make the same tiles.
STEPS = ("0.5", "1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, tune and time what is missing, then write the page."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["published"], help="(default: published)")
    parser.add_argument("--epochs", type=int, default=30, help="of 50 iterations (default 30)")
    parser.add_argument("--cases", type=int, default=20, help="validation cases (default: 20, all of the fold)")
    parser.add_argument("--rounds", type=int, default=15, help="passes of each network that is timed (default 15)")
    parser.add_argument("--threads", type=int, default=1, help="of every command (default 1)")
    options = parse(parser, arguments)
    root = options.root.resolve()
    if not options.report_only:
        root.mkdir(parents=True, exist_ok=True)
        env = environment(root, options.threads) | {EXT_TRAINER_VARIABLE: ext_trainer_value(None)}
        for form in options.forms:
            model = trained(form, options.data, root, options.epochs, env)
            run_command(_tune(model, root, form, options.cases), env, root / "logs" / f"tune_{form}.log")
        _time_literal(root / "literal.json", options.rounds, options.threads)
    write_report(root, options.docs, options.forms)


def _tune(model: Path, root: Path, form: str, cases: int) -> list[str]:
    command = ["factorizer-nnunet", "tune-inference", "-m", str(model), "-f", str(FOLD), "-device", "cpu"]
    command += ["--step-sizes", *STEPS, "--cases", str(cases), "--measure-only"]
    return [*command, "--report", str(root / f"tuned_{form}")]


def _time_literal(file: Path, rounds: int, threads: int) -> None:
    if file.exists():
        return
    torch.set_num_threads(threads)
    patches = {" x ".join(map(str, patch)): measure_iterations(patch, rounds) for patch in PATCHES}
    write_text_atomically(file, json.dumps({"threads": threads, "rounds": rounds, "patches": patches}, indent=1))


if __name__ == "__main__":
    main()
