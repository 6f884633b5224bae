"""Run the GPU tests and measure everything that needs a GPU, for as long as you say.

    python -m benchmarks.gpu --minutes 9 --hippocampus /data/Dataset004_Hippocampus

Parts, the most important ones first: tests of the kernels and of the training; each kernel against its bytes; speed and
memory against nnU-Net's network; samples a second with loading, for stock nnU-Net and each setting of ours; the memory
model; a short training of both on hippocampus. Each has a limit of time. Run the command again to continue with what
has not been done: kernels, speed, trainings and the memory model keep what they have measured. It needs no network;
parts whose packages are not installed are left out and named. Results, and what was compiled, go to the working folder,
results also to ``measured/gpu.json`` and the section of ``gpu.md`` below ``--docs``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.page import STOCK_TRAINING, results_of, section, with_section
from benchmarks.gpu.parts import ROOT, Part, run_parts
from benchmarks.speed.measure import FORWARD, TRAINING
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.processes import core_count
from factorizer_nnunet.nnunet.environment import AUGMENTATION_VARIABLE, FOLDER_VARIABLES, STEP_VARIABLE

MACHINE_FILE = "machine.json"
RESULTS_FILE, PAGE = Path("measured/gpu.json"), Path("gpu.md")
NNUNET = ("nnunetv2", "batchgeneratorsv2", "dynamic_network_architectures")
OURS = "nnUNetTrainerFactorizer"
# name of a part: trainer, who augments, how a step is computed, and the network where the plans are not nnU-Net's
TRAININGS = {
    STOCK_TRAINING: ("nnUNetTrainer", "workers", "plain", None),
    "training, device augments": (OURS, "device", "plain", None),
    "training, device augments, inlined kernels": (OURS, "device", "inlined", None),
    "training, device augments, CUDA graphs": (OURS, "device", "graphs", None),
    "training, swin, device augments, inlined kernels": (OURS, "device", "inlined", "swin"),
    "training, swin, device augments, CUDA graphs": (OURS, "device", "graphs", "swin"),
    "training, swin, device augments": (OURS, "device", "plain", "swin"),
    "training, device augments, fused step": (OURS, "device", "fused", None),
    "training, workers augment": (OURS, "workers", "plain", None),
}
ITERATIONS = 250  # of the trainings on hippocampus


def all_parts(work: Path, hippocampus: Path | None) -> list[Part]:
    """All parts, the most important ones first; ``work`` is absolute."""
    tests = ("-m", "pytest", "-v", "-p", "no:cacheprovider")
    memory = ("--device", "cuda", "--output", f"{work}/memory model", "--continue")
    parts = [
        Part(
            name="tests of the network",
            seconds=100,
            command=(*tests, "tests/network/test_gpu.py", "tests/network/test_kernels.py"),
            needs=("pytest", "triton"),
            fine=(0, 1),
        ),
        Part(
            name="tests of the training",
            seconds=100,
            command=(*tests, "-m", "gpu", "tests/training"),
            needs=("pytest", *NNUNET),
            fine=(0, 1),
        ),
        Part(
            name="kernels",
            seconds=50,
            command=("-m", "benchmarks.gpu.kernels", "--output", f"{work}/kernels/kernels.json"),
            needs=("triton",),
        ),
        _speed("speed of training", TRAINING, work),
        *(_training(name, work) for name in TRAININGS),
        _speed("speed of predictions", FORWARD, work),
        Part(
            name="memory model",
            seconds=120,
            command=("-m", "benchmarks.memory_model", *memory),
            needs=NNUNET,
        ),
    ]
    if hippocampus is not None:
        short = (
            "--device",
            "cuda",
            "--iterations",
            str(ITERATIONS),
            "--only",
            "*/short/*/equal_iterations/fold_0/seed_0",
        )
        for name, arms, env in (
            ("accuracy", ("unet", "default"), {}),
            ("accuracy, device augments", ("default",), {AUGMENTATION_VARIABLE: "device"}),
        ):
            where = ("--root", f"{work}/{name}", "--results", f"{work}/{name}/real_data.json", "--arms", *arms)
            command = ("-m", "benchmarks.real_data", str(hippocampus.resolve()), *short, *where)
            parts.append(Part(name=name, seconds=240, command=command, needs=NNUNET, env=env))
    compiled = {"TORCHINDUCTOR_CACHE_DIR": f"{work}/compiled", "TRITON_CACHE_DIR": f"{work}/compiled/triton"}
    return [replace(part, env={**compiled, **part.env}) for part in parts]


def _speed(name: str, mode: str, work: Path) -> Part:
    setting = ("--patch", "128", "128", "128", "--batch", "2", "--device", "cuda", "--dtype", "float16", "--compile")
    networks = ("--networks", "PlainConvUNet", "Factorizer default", "Factorizer swin")
    options = (*setting, *networks, "--rounds", "20", "--modes", mode, "--docs", f"{work}/{name}")
    return Part(name=name, seconds=90, command=("-m", "benchmarks.speed", *options), needs=NNUNET)


def _training(name: str, work: Path) -> Part:
    trainer, augmentation, step, variant = TRAININGS[name]
    cases = work / "cases"
    env = {variable: str(cases / variable) for variable in FOLDER_VARIABLES}
    return Part(
        name=name,
        seconds=80,
        command=(
            *("-m", "benchmarks.gpu.training", "--cases", str(cases), "--trainer", trainer),
            *(() if variant is None else ("--variant", variant)),
            *("--output", f"{work}/{name}/training.json"),
        ),
        needs=NNUNET,
        env={**env, AUGMENTATION_VARIABLE: augmentation, STEP_VARIABLE: step},
    )


def machine() -> dict[str, Any]:
    """What the results hold for: GPU, versions, and the state of the code."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "device": torch.cuda.get_device_name(),
        "cores": core_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "revision": git.stdout.strip() or "unknown",
    }


def check_same_machine(work: Path, now: dict[str, Any]) -> None:
    """Note for what the results in ``work`` hold, or compare with what is noted.

    Raises:
        UserError: they come from another GPU, version or state of the code.
    """
    before = read_complete_json(work / MACHINE_FILE)
    if before is None:
        write_text_atomically(work / MACHINE_FILE, json.dumps(now, indent=1) + "\n")
    elif before != now:
        key = next(key for key in now if before.get(key) != now[key])
        raise UserError(
            f"{work} has results of another {key} ({before.get(key)}, now {now[key]}): name another folder with "
            "--work, or remove it"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts, then write the JSON file and the section of the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9, help="for this run (default %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="working folder (default build/gpu)")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of gpu.md (default docs)")
    parser.add_argument("--hippocampus", type=Path, metavar="DIR", help="Task04 in nnU-Net's raw layout, if at hand")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit("error: this machine has no CUDA device that torch can use, so nothing can be measured")
    if not options.minutes > 0:
        sys.exit(f"error: --minutes {options.minutes:g} is not above 0")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    parts = all_parts(work, options.hippocampus)
    try:
        check_same_machine(work, machine())
        run_parts(parts, work, 60 * options.minutes, lambda line: print(line, flush=True))
        results = results_of(parts, work, machine(), options.hippocampus is not None)
    except UserError as error:
        sys.exit(f"error: {error}")
    (options.docs / RESULTS_FILE).parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.docs / RESULTS_FILE, json.dumps(results, indent=1) + "\n")
    page = options.docs / PAGE
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    write_text_atomically(page, with_section(text, section(results)))
    print(section(results))


if __name__ == "__main__":
    main()
