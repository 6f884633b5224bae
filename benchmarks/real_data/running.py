"""One piece of the study: a training with its validation, or the predictions of corrupted images; and its scores."""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import SimpleITK as sitk  # noqa: N813

from benchmarks.corruptions import STRENGTHS, VERSION, cases_of, corrupt_folder, missing_slices, remaining_slices
from benchmarks.ext_trainer.benchmark_trainers import CLOCK_FILE
from benchmarks.nnunet_commands import ROOT
from benchmarks.real_data.arms import BASELINE
from benchmarks.real_data.candidates import ALL_ARMS
from benchmarks.real_data.data import DataSet, digest
from benchmarks.real_data.pieces import KINDS, Piece, trainer_name
from benchmarks.real_data.results import Results
from benchmarks.real_data.workspace import Workspace, data_ending
from factorizer_nnunet.core.atomic_files import atomic_folder
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation.evaluate import evaluate_pairs
from factorizer_nnunet.evaluation.metrics import surface_dice
from factorizer_nnunet.evaluation.pairs import CasePair
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.folds import read_folds
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_BEST, FoldFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import SPLITS_FILE

_OF_DATA = ("source", "note", "patient", "tolerance_mm", "memory_target_gb")  # in the results
_CORRUPTED, _PREDICTED = (f"{name}_{VERSION}" for name in ("corrupted", "predicted"))  # folders in WORK
_SEPARATOR = "_of_"  # between the corruption and the case, in names of corrupted images

ScoresOfCases = dict[str, dict[str, list[float | None]]]  # Dice and surface Dice by case and region; None if undefined


def set_up(
    workspace: Workspace, piece: Piece, data: DataSet, source: Path, arms: Collection[str], results: Results
) -> None:
    """Prepare the data set of a piece, and measure what an iteration of each arm costs, unless it is known.

    Args:
        arms: all arms of the study.

    Raises:
        UserError: the working folder has other data of this name, or the results are of other plans or cases.
    """
    workspace.prepare(data, source)
    workspace.write_plans(data, [ALL_ARMS[arm] for arm in arms])
    plans = json.loads(workspace.plans(data).read_text(encoding="utf-8"))["configurations"][piece.configuration]
    now = {key: plans[key] for key in ("patch_size", "batch_size", "spacing")}
    now["cases"] = sum(len(fold["val"]) for fold in read_folds(workspace.preprocessed(data) / SPLITS_FILE))
    known = results.read()["setups"].get(piece.setup)
    if known is None:
        described = {key: getattr(data, key) for key in _OF_DATA}
        now |= {"iterations": data.short, "device": workspace.device, "digest": digest(source)}
        known = {**described, **now, "seconds": {}, **machine(workspace)}
        results.add("setups", piece.setup, known)
    check_same(results, piece.setup, now)
    seconds = known["seconds"]
    if missing := [arm for arm in arms if arm not in seconds and arm != BASELINE]:
        found = _costs(workspace, piece, data, [BASELINE, *missing])
        scale = seconds.get(BASELINE, found[BASELINE]) / found[BASELINE]  # the machine may be slower or faster now
        added = {arm: round(value * scale, 4) for arm, value in found.items()}
        results.add("setups", piece.setup, {**known, "seconds": {**added, **seconds}})


def check_same(results: Results, setup: str, now: Mapping[str, Any]) -> None:
    """Compare what is to be measured with what the results say of a setup, if they know it.

    Raises:
        UserError: something differs.
    """
    known = results.read()["setups"].get(setup, {})
    for key, value in now.items():
        if known.get(key, value) != value:
            raise UserError(
                f"{setup}: {key} is {value} now, but {known[key]} in {results.file}; write these results to another "
                "file (--results)"
            )


def _costs(workspace: Workspace, piece: Piece, data: DataSet, arms: Collection[str]) -> dict[str, float]:
    """Seconds that an iteration of each arm takes, in turns."""
    file = workspace.root / "timing" / f"{data.key}_{piece.configuration}.json"
    file.parent.mkdir(exist_ok=True)
    print(f"{piece.setup}: measuring what an iteration costs …", flush=True)
    trainings = [f"{arm.trainer}_1epochs_1iters{arm.suffix}:{arm.plans}" for arm in map(ALL_ARMS.__getitem__, arms)]
    workspace.run(
        "python",
        *("-m", "benchmarks.real_data.timing", data.folder, piece.configuration, "--device", workspace.device),
        *("-o", file, "--trainings", *trainings),
        log=f"{data.key}_{piece.configuration}_timing",
    )
    seconds = json.loads(file.read_text(encoding="utf-8"))
    return dict(zip(arms, seconds, strict=True))


def run_piece(workspace: Workspace, piece: Piece, data: DataSet, results: Results) -> None:
    """Run a piece and add it to the results.

    Raises:
        CommandError: a command failed.
    """
    trainer = trainer_name(piece, data, results.read()["setups"][piece.setup]["seconds"])
    model = ModelName(trainer, ALL_ARMS[piece.arm].plans, piece.configuration)
    spent = train(workspace, data, model, piece.fold)
    if piece.corrupted:
        spent, predictions = _predict_corrupted(workspace, piece, data, model)
        values = {"scores": _scores_of_corrupted(workspace, data, predictions)}
    else:
        values = trained(workspace, data, workspace.fold(data, model, piece.fold))
    results.add("pieces", piece.key, {**values, "command_seconds": round(spent, 1), **machine(workspace)})


def trained(workspace: Workspace, data: DataSet, fold: FoldFolder) -> dict[str, Any]:
    """What a finished training says: its length, its weights, seconds of all its steps, and scores by case."""
    clock = json.loads((fold.path / CLOCK_FILE).read_text(encoding="utf-8"))
    return {
        "iterations": clock["iterations"],
        "parameters": clock["parameters"],
        "seconds": round(sum(clock["epoch_seconds"]), 1),
        "scores": _scores(workspace, data, fold.validation),
    }


def train(workspace: Workspace, data: DataSet, model: ModelName, number: int) -> float:
    """Train and validate a fold or continue it, unless it is finished; returns CPU seconds of the command."""
    fold = workspace.fold(data, model, number)
    if fold.summary.exists():
        return 0.0
    again = () if fold.last_checkpoint() is None else ("--c",)
    arguments = (data.folder, model.configuration, number, "-tr", model.trainer, "-p", model.plans)
    log = f"{data.key}_{model.folder}_fold{number}"
    seconds = workspace.run("nnUNetv2_train", *arguments, "-device", workspace.device, *again, log=log)
    fold.checkpoint(CHECKPOINT_BEST).unlink(missing_ok=True)
    return seconds


def _predict_corrupted(workspace: Workspace, piece: Piece, data: DataSet, model: ModelName) -> tuple[float, Path]:
    """Predict the corrupted images of a fold's validation cases; returns CPU seconds and the predictions."""
    images = workspace.root / _CORRUPTED / data.key / f"fold_{piece.fold}"
    if not images.exists():
        with atomic_folder(images) as draft:
            _write_corrupted(workspace, data, piece.fold, draft)
    predictions = workspace.root / _PREDICTED / data.key / model.folder / f"fold_{piece.fold}"
    predictions.mkdir(parents=True, exist_ok=True)
    arguments = ("-i", images, "-o", predictions, "-d", data.folder, "-c", piece.configuration, "-f", piece.fold)
    named = ("-tr", model.trainer, "-p", model.plans)
    how = ("-device", workspace.device, "--disable_tta", "--continue_prediction", "-npp", 1, "-nps", 1)
    log = f"{data.key}_{model.folder}_corrupted"
    return workspace.run("nnUNetv2_predict", *arguments, *named, *how, log=log), predictions


def _write_corrupted(workspace: Workspace, data: DataSet, fold: int, target: Path) -> None:
    """All corruptions of a fold's validation cases, ``KIND_STRENGTH_of_CASE_0000.nii.gz``."""
    raw = workspace.raw(data)
    every = cases_of(raw / "imagesTr", data_ending(raw))
    cases = {case: every[case] for case in read_folds(workspace.preprocessed(data) / SPLITS_FILE)[fold]["val"]}
    with tempfile.TemporaryDirectory(dir=target) as temporary:
        for kind, strength in itertools.product(KINDS, STRENGTHS):
            out = Path(temporary) / f"{kind}_{strength}"
            corrupt_folder(cases, out, kind, strength)
            for image in out.iterdir():
                image.rename(target / f"{out.name}{_SEPARATOR}{image.name}")


def _scores(workspace: Workspace, data: DataSet, predictions: Path) -> ScoresOfCases:
    """Dice and surface Dice of all cases of a folder, by case and region."""
    ending = data_ending(workspace.raw(data))
    cases = {file: file.name.removesuffix(ending) for file in sorted(predictions.glob(f"*{ending}"))}
    return _scored(workspace, data, _pairs(workspace, data, cases))


def _scores_of_corrupted(workspace: Workspace, data: DataSet, predictions: Path) -> dict[str, ScoresOfCases]:
    """The same for each corruption, ``KIND_STRENGTH``."""
    ending = data_ending(workspace.raw(data))
    files: dict[str, dict[Path, str]] = {}
    for file in sorted(predictions.glob(f"*{ending}")):
        corruption, _, case = file.name.removesuffix(ending).partition(_SEPARATOR)
        files.setdefault(corruption, {})[file] = case
    scores = {}
    with tempfile.TemporaryDirectory() as temporary:
        for corruption, cases in files.items():
            pairs = _pairs(workspace, data, cases)
            kind, _, strength = corruption.rpartition("_")
            if kind == missing_slices.__name__:
                pairs = [_remaining(pair, int(strength), Path(temporary)) for pair in pairs]
            scores[corruption] = _scored(workspace, data, pairs)
    return scores


def _pairs(workspace: Workspace, data: DataSet, cases: Mapping[Path, str]) -> list[CasePair]:
    """Predictions with their labels."""
    raw = workspace.raw(data)
    return [CasePair(case, file, raw / "labelsTr" / f"{case}{data_ending(raw)}") for file, case in cases.items()]


def _remaining(pair: CasePair, strength: int, folder: Path) -> CasePair:
    """Copies in a folder without the missing slices, on which no network could segment anything."""
    label = sitk.ReadImage(str(pair.reference))
    files = []
    for name, image in (("prediction", sitk.ReadImage(str(pair.prediction))), ("label", label)):
        files.append(folder / f"{name}_{strength}_{pair.reference.name}")
        sitk.WriteImage(remaining_slices(image, label, strength, case=pair.case), str(files[-1]))
    return CasePair(pair.case, *files)


def _scored(workspace: Workspace, data: DataSet, pairs: Sequence[CasePair]) -> ScoresOfCases:
    raw = workspace.raw(data)
    scores = evaluate_pairs(
        pairs,
        DatasetJson.read(raw / DATASET_FILE, "Restore it"),
        tolerances_mm=(data.tolerance_mm,),
        ignore_geometry=True,  # a wrong voxel size is one of the corruptions
    )
    metrics = ("dice", surface_dice(data.tolerance_mm).key)
    return {
        case: {
            region: [_rounded(scores.value(case, region, metric)) for metric in metrics] for region in scores.regions
        }
        for case in scores.cases
    }


def _rounded(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if math.isnan(value) else round(value, 4)


def machine(workspace: Workspace) -> dict[str, Any]:
    """Where and with what something was measured."""
    git = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    versions = {name: version(name) for name in ("torch", "nnunetv2", "factorizer_nnunet")}
    cores = f"{platform.machine()}, {workspace.threads} of {os.cpu_count()} cores"
    machine = cores if workspace.device == "cpu" else workspace.device
    return {"machine": machine, "versions": versions, "revision": git.stdout.strip()}
