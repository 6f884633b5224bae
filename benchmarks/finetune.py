"""Fine-tuning against training from scratch at equal iterations.

    python -m benchmarks.finetune SOURCE TARGET --root WORK --docs docs/measured
    python -m benchmarks.finetune BRATS BRATS --channels FLAIR --source-fold same --root WORK --docs docs/measured

SOURCE and TARGET are data sets in nnU-Net's raw layout. A model is trained on SOURCE and continued on TARGET by
``factorizer-nnunet finetune``; SOURCE may also be the folder of a trained model. On the same plans, another training
starts from scratch at the usual learning rate. ``--channels`` keeps only these channels of TARGET. Where both have the
same cases, ``--source-fold same`` keeps the validation cases out of both trainings, since nnU-Net's folds of equal
cases are equal, as are those of an equal ``splits_final.json`` in both folders. WORK gets nnU-Net's folders and logs.
State is read from disk: the same command continues. The result is added to ``finetune.json`` and ``finetune.md``. No
prediction is mirrored, which would take eight times as long.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.nnunet_commands import OURS, DatasetCommands, environment, trainer_name
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.finetuning.request import LEARNING_RATE
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.environment import create_folders
from factorizer_nnunet.nnunet.image_files import image_name
from factorizer_nnunet.nnunet.model_folder import FoldFolder, ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, SPLITS_FILE, finetuned_plans_name
from factorizer_nnunet.nnunet.training_log import read_curve
from factorizer_nnunet.training.budget import changed_suffix

CONFIGURATION = "3d_fullres"
_SOURCE, _TARGET = 901, 902
_SAME = "same"


@dataclass(frozen=True)
class Data:
    """A data set below nnU-Net's folders of the benchmark."""

    number: int
    title: str

    @property
    def folder(self) -> str:
        return f"Dataset{self.number}_{self.title}"


def link_data(raw: Path, source: Path, number: int, channels: Sequence[str] = ()) -> Data:
    """Link a data set, or some of its channels, into ``nnUNet_raw``."""
    title = re.sub(r"\W", "", "_".join((source.name, *channels)))
    data = Data(number, title)
    target, description = raw / data.folder, DatasetJson.read(source / "dataset.json")
    if target.exists():
        return data
    if not channels:
        target.symlink_to(source.resolve(), target_is_directory=True)
        return data
    numbers = [description.channel_names.index(name) for name in channels]
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "imagesTr").mkdir(parents=True)
    (draft / "labelsTr").symlink_to((source / "labelsTr").resolve(), target_is_directory=True)
    if (source / SPLITS_FILE).is_file():
        shutil.copyfile(source / SPLITS_FILE, draft / SPLITS_FILE)
    ending = description.file_ending
    for case, files in description.training_cases(source).items():
        for new, old in enumerate(numbers):
            (draft / "imagesTr" / image_name(case, new, ending)).symlink_to(files.images[old].resolve())
    named = {str(new): name for new, name in enumerate(channels)}
    (draft / "dataset.json").write_text(json.dumps({**description.content, "channel_names": named}, indent=1))
    draft.rename(target)
    return data


def train_source(work: DatasetCommands, trainer: str, fold: str, memory_gb: float) -> Path:
    """Plan the source and train one fold; returns the model folder."""
    model = work.root / "nnUNet_results" / work.dataset / _model(trainer, PLANS)
    if not (model / f"fold_{fold}" / "checkpoint_final.pth").exists():
        options = ("--gpu-memory-target", memory_gb, "-np", 2)
        work.run("factorizer-nnunet", "plan", "-d", work.number, "-c", CONFIGURATION, *options, log="plan_source")
        _train(work, trainer, PLANS, fold, "source")
    return model


def _train(work: DatasetCommands, trainer: str, plans: str, fold: str, log: str) -> FoldFolder:
    folder = FoldFolder(work.root / "nnUNet_results" / work.dataset / _model(trainer, plans) / f"fold_{fold}")
    if not folder.summary.exists():
        command = ("nnUNetv2_train", work.number, CONFIGURATION, fold, "-tr", trainer, "-p", plans, "-device", "cpu")
        continued = ("--c",) if folder.last_checkpoint() else ()
        work.run(*command, *continued, log=log)
    return folder


def _model(trainer: str, plans: str) -> str:
    return ModelName(trainer, plans, CONFIGURATION).folder


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Train all three; returns Dice and pseudo Dice of both trainings on the target."""
    root = options.root.resolve()
    create_folders(root)
    raw, env = root / "nnUNet_raw", environment(root, threads=1)
    target = link_data(raw, options.target, _TARGET, options.channels)
    scratch_trainer = trainer_name(OURS, options.iterations)
    suffix = scratch_trainer.removeprefix(OURS)
    trainer = OURS + changed_suffix(suffix, options.learning_rate, max(1, options.iterations // 10))
    on_target = DatasetCommands(root, target.folder, env)
    model, title = options.source, f"{options.source.parent.name}, {options.source.name}"
    if not ModelFolder(model).plans_file.is_file():
        source, source_trainer = link_data(raw, options.source, _SOURCE), trainer_name(OURS, options.source_iterations)
        on_source = DatasetCommands(root, source.folder, env)
        for fold in options.folds if options.source_fold == _SAME else [options.source_fold]:
            model = train_source(on_source, source_trainer, fold, options.gpu_memory_target)
        title = f"{source.title}, {options.source_iterations} iterations"
    name = finetuned_plans_name(json.loads(ModelFolder(model).plans_file.read_text())["dataset_name"])
    outcomes: dict[str, list[dict[str, Any]]] = {"finetuned": [], "scratch": []}
    for fold in options.folds:
        source_fold, plans = options.source_fold, name
        if source_fold == _SAME:  # plans say of which fold they are, so each has its own
            source_fold, plans = fold, name if fold == options.folds[0] else f"{name}_fold{fold}"
        begin = ("finetune", "--from", model, "--from-fold", source_fold, "-d", _TARGET, "-f", fold, "-tr", trainer)
        begin += ("-p", plans)
        maps = [word for text in options.map for word in ("--map", text)]
        on_target.run("factorizer-nnunet", *begin, *maps, "-device", "cpu", "-np", 2, log="finetune")
        tuned = on_target.root / "nnUNet_results" / target.folder / _model(trainer, plans) / f"fold_{fold}"
        outcomes["finetuned"].append(_measured(FoldFolder(tuned)))
        outcomes["scratch"].append(_measured(_train(on_target, scratch_trainer, plans, fold, "scratch")))
    return {
        "source": title,
        "target": target.title,
        "iterations": options.iterations,
        "finetuned_trainer": trainer,
        "folds": options.folds,
        "machine": f"{platform.machine()}, a core, torch {torch.__version__}.",
        **outcomes,
    }


def _measured(fold: FoldFolder) -> dict[str, Any]:
    summary, curve = json.loads(fold.summary.read_text()), read_curve(fold)
    pseudo = [] if curve is None else [round(float(value), 4) for value in curve.pseudo_dice]
    dice = {name: values["Dice"] for name, values in summary["mean"].items()}
    return {"dice": summary["foreground_mean"]["Dice"], "by_class": dice, "pseudo_dice_by_epoch": pseudo}


def page(results: dict[str, dict[str, Any]]) -> str:
    """The table of all comparisons."""
    rows = [["from", "to", "iterations", "folds", "Dice from scratch", "Dice fine-tuned"]]
    rows += [
        [
            *(one["source"], one["target"], str(one["iterations"]), ", ".join(one["folds"])),
            *(", ".join(f"{100 * fold['dice']:.1f}" for fold in one[of]) for of in ("scratch", "finetuned")),
        ]
        for one in results.values()
    ]
    lead = (
        "Written by `python -m benchmarks.finetune` (see `--help`). Dice in percent of the validation cases of each "
        "fold, mean over classes or regions. Both trainings have the same plans, which the fine-tuning adopted from "
        "the model, the same network and the same number of iterations; training from scratch has the usual learning "
        "rate. One training each: a few points may be chance."
    )
    machines = " ".join(dict.fromkeys(one["machine"] for one in results.values()))
    return f"# Fine-tuning against training from scratch\n\n{lead} {machines}\n\n{markdown_table(rows)}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("source", type=Path, help="data set of the model, in nnU-Net's raw layout, or the folder of a trained model")
    add("target", type=Path, help="data set to fine-tune on")
    add("--root", type=Path, required=True, metavar="WORK", help="working folder")
    add("--channels", nargs="+", default=[], metavar="NAME", help="channels of the target to keep (default: all)")
    add("--map", action="append", default=[], metavar="OLD=NEW", help="as of finetune")
    add(
        "--source-fold", default="all", metavar="FOLD", help=f"of the source; {_SAME}: each fold its own (default: all)"
    )
    add("--folds", nargs="+", default=["0"], metavar="FOLD", help="of the target (default: 0)")
    add("--source-iterations", type=int, default=1000, metavar="N", help="(default: %(default)s)")
    add(
        "--iterations",
        type=int,
        default=200,
        metavar="N",
        help="on the target, of both (default: %(default)s)",
    )
    add(
        "--learning-rate",
        type=float,
        default=LEARNING_RATE,
        metavar="X",
        help="of the fine-tuning (default: %(default)s)",
    )
    add("--gpu-memory-target", type=float, default=0.6, metavar="GB", help="for the plans (default: %(default)s)")
    add("--docs", type=Path, default=Path("docs/measured"), help="where to write")
    options = parser.parse_args(arguments)
    result = compare(options)
    file = options.docs / "finetune.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    results[f"{result['source']} to {result['target']}, {result['finetuned_trainer']}"] = result
    options.docs.mkdir(parents=True, exist_ok=True)
    write_text_atomically(file, json.dumps(results, indent=1) + "\n")
    write_text_atomically(options.docs / "finetune.md", page(results))
    print(page(results))


if __name__ == "__main__":
    main()
