"""What single components tell on real data, beside raw channels of nnU-Net's own U-Net.

    python -m benchmarks.explain_components DATA --root WORK

DATA is the Hippocampus data set (Medical Segmentation Decathlon, Task04) in nnU-Net raw layout. Three networks are
trained on fold 0 for the same number of iterations, as ``benchmarks.hippocampus`` does and with its folders: nnU-Net's
PlainConvUNet, the default Factorizer, and one with the NMF in every stage. Components and channels are chosen on one
half of the validation cases and scored on the other. State is read from disk, so the command goes on where it was
stopped. The page goes to ``docs/``.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.arguments import benchmark_parser, parse
from benchmarks.explain_report import write_report
from benchmarks.hippocampus import CONFIGURATION, DATASET, OURS, PLANS, STOCK, environment, prepare, run_command
from benchmarks.hippocampus import trainer_name as trainer_of

EVERYWHERE = f"{PLANS}NMFEverywhere"
NETWORKS = {"PlainConvUNet": (STOCK, PLANS), "default": (OURS, PLANS), "NMF in every stage": (OURS, EVERYWHERE)}


def write_plans(root: Path) -> None:
    """The stock plans with our default network in place of theirs, and the NMF in all of its stages."""
    from factorizer_nnunet.planning.architecture import factorizer_architecture

    folder = root / "preprocessed" / DATASET
    plans = json.loads((folder / f"{PLANS}.json").read_text())
    settings = plans["configurations"][CONFIGURATION]
    architecture = factorizer_architecture(settings["architecture"]["arch_kwargs"], settings["spacing"])
    arguments = architecture["arch_kwargs"]
    arguments["nmf_stages"] = [True] * len(arguments["features_per_stage"])
    settings["architecture"] = architecture
    plans["plans_name"] = EVERYWHERE
    (folder / f"{EVERYWHERE}.json").write_text(json.dumps(plans, indent=1))


def model_folder(root: Path, name: str, iterations: int) -> Path:
    """Where nnU-Net leaves a network's folds."""
    base, plans = NETWORKS[name]
    return root / "results" / DATASET / f"{trainer_of(base, iterations)}__{plans}__{CONFIGURATION}"


def train(root: Path, name: str, iterations: int, env: dict[str, str]) -> None:
    """Train fold 0 of a network, or go on with it, unless done."""
    base, plans = NETWORKS[name]
    fold = model_folder(root, name, iterations) / "fold_0"
    if (fold / "checkpoint_final.pth").exists():
        return
    command = ["nnUNetv2_train", "4", CONFIGURATION, "0", "-tr", trainer_of(base, iterations), "-p", plans]
    command += ["-device", "cpu"]
    if any((fold / f"checkpoint_{kind}.pth").exists() for kind in ("latest", "best")):
        command.append("--c")
    run_command(command, env, root / "logs" / f"explain_{plans}_{base}.log")


def validation_cases(root: Path) -> list[str]:
    """Of fold 0."""
    return json.loads((root / "preprocessed" / DATASET / "splits_final.json").read_text())[0]["val"]


def component_scores(folder: Path, root: Path, cases: Sequence[str], tested: int) -> dict[str, Any]:
    """AUC of each component and class in each case, deletion tests in the first ``tested`` of the second half."""
    from factorizer_nnunet.explain.case import build_explainer
    from factorizer_nnunet.prediction.model import load_model

    model = load_model(folder, ["0"], "checkpoint_final.pth")
    device = torch.device("cpu")
    plain = build_explainer(model, device, use_mirroring=False)
    testing = build_explainer(model, device, use_mirroring=False, deletion=10_000)
    half = len(cases) // 2
    rows = []
    for index, case in enumerate(tqdm(cases, desc=folder.name, unit="case")):
        explainer = testing if half <= index < half + tested else plain
        explanation = explainer(*_files(root, case))
        for one in explanation.assessments:
            rows.append(
                {
                    "case": case,
                    "name": one.component.name,
                    "auc": {name: found.auc for name, found in one.true.items()},
                    "dice_change": {name: change.dice_change for name, change in (one.deletion or {}).items()},
                }
            )
        explanation.close()
    return {"rows": rows}


def channel_scores(folder: Path, root: Path, cases: Sequence[str]) -> dict[str, Any]:
    """AUC of each channel of each stage's output of nnU-Net's U-Net, for each class and case."""
    from benchmarks.explain_channels import channel_aucs
    from factorizer_nnunet.prediction.model import load_model

    model = load_model(folder, ["0"], "checkpoint_final.pth")
    rows = []
    for case in tqdm(cases, desc=folder.name, unit="case"):
        found, truth = _files(root, case)
        rows += [{"case": case, "name": name, "auc": auc} for name, auc in channel_aucs(model, found, truth).items()]
    return {"rows": rows}


def _files(root: Path, case: str) -> tuple[Any, Path]:
    from factorizer_nnunet.nnunet.image_files import ImageCase

    raw = root / "raw" / DATASET
    (image,) = (raw / "imagesTr").glob(f"{case}_0000.*")
    (truth,) = (raw / "labelsTr").glob(f"{case}.*")
    return ImageCase(case, (image,)), truth


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, train what is missing, score, write the page."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--iterations", type=int, default=400, help="of each training (default 400)")
    parser.add_argument("--tested", type=int, default=5, help="cases with deletion tests of all heads (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--train-only", choices=NETWORKS, help="train this network and end")
    options = parse(parser, arguments)
    root = options.root.resolve()
    results = root / "explain.json"
    if not options.report_only:
        env = environment(root, options.threads)
        os.environ |= {key: env[key] for key in env if key.startswith("nnUNet_")} | {"OMP_NUM_THREADS": "1"}
        torch.set_num_threads(options.threads)
        prepare(options.data, root, env)
        write_plans(root)
        for name in [options.train_only] if options.train_only else NETWORKS:
            train(root, name, options.iterations, env)
        if options.train_only:
            return
        cases = validation_cases(root)
        found = json.loads(results.read_text()) if results.exists() else {}
        for name in NETWORKS:
            folder = model_folder(root, name, options.iterations)
            if name not in found:
                found[name] = (
                    channel_scores(folder, root, cases)
                    if name == "PlainConvUNet"
                    else component_scores(folder, root, cases, options.tested)
                )
                results.write_text(json.dumps(found))
        found |= {
            "iterations": options.iterations,
            "cases": cases,
            "machine": f"{platform.machine()}, {options.threads} thread; torch {torch.__version__}",
        }
        results.write_text(json.dumps(found))
    write_report(json.loads(results.read_text()), options.docs)


if __name__ == "__main__":
    main()
