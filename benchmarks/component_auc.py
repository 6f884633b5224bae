"""How well single NMF components separate a structure, next to single channels of nnU-Net's U-Net.

    python -m benchmarks.component_auc brats_2mm --root WORK

WORK is that of ``benchmarks.real_data``, which has trained the networks: fold 0, short budget, equal training time. The
best component or channel of a class is chosen on training cases and scored on the validation cases. Its AUC is the
probability that a voxel of the class has a higher value than another voxel; a map that avoids the class counts as
1 − AUC. Writes component_auc.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.nnunet_commands import ROOT
from benchmarks.output_paths import json_output
from benchmarks.real_data.arms import ARMS, BASELINE
from benchmarks.real_data.data import DataSet, data_set
from benchmarks.real_data.pieces import ITERATIONS, SHORT, TIME, Piece, trainer_name
from benchmarks.real_data.results import Results
from benchmarks.real_data.running import machine
from benchmarks.real_data.study import continuable
from benchmarks.real_data.workspace import Workspace, data_ending
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.explain.blending import BlendedMaps, PatchPosition
from factorizer_nnunet.explain.explainer import ExplainOptions, build_explainer
from factorizer_nnunet.explain.geometry import CaseGeometry
from factorizer_nnunet.explain.inputs import cases_from
from factorizer_nnunet.explain.predictor import RecordingPredictor
from factorizer_nnunet.explain.ranking import bin_numbers, label_histograms, separations
from factorizer_nnunet.nnunet.folds import read_folds
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import SPLITS_FILE
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.prediction.work import preprocess

NETWORKS = ("default", "everywhere", BASELINE, "plain", "plain_everywhere")
AucsOfMaps = dict[str, dict[str, float | None]]  # by map and class
_CPU = torch.device("cpu")


class ChannelRecorder:
    """The outputs of stages, patch by patch, as ``explain.recorder.Recorder`` has the components."""

    def __init__(self, stages: Mapping[str, nn.Module], folder: Path) -> None:
        self.maps: dict[str, BlendedMaps] = {}
        self._stages = stages
        self._folder = folder
        self._size: tuple[int, ...] = ()
        self._patch: tuple[PatchPosition, Tensor] | None = None

    def begin(self, size: Sequence[int]) -> None:
        """Start with a volume of ``size`` voxels."""
        self._size = tuple(size)

    def next_patch(self, position: PatchPosition, gaussian: Tensor) -> None:
        """Announce the next patch and the weights of its voxels."""
        self._patch = position, gaussian

    def attach(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Register hooks on the stages; the caller removes them."""
        return [stage.register_forward_hook(self._hook(name)) for name, stage in self._stages.items()]

    def _hook(self, name: str) -> Any:
        def hook(stage: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            position, gaussian = self._patch
            if name not in self.maps:
                stride = [a // b for a, b in zip(position.sizes, output.shape[2:], strict=True)]
                self.maps[name] = BlendedMaps(self._folder / f"{name}.npy", output.shape[1], self._size, stride)
            self.maps[name].add(output[0], position, gaussian)

        return hook


def component_aucs(model: TrainedModel, case: ImageCase, truth: Path) -> AucsOfMaps:
    """By component, such as ``encoder-3_head-07``."""
    explanation = build_explainer(model, _CPU, ExplainOptions(use_mirroring=False))(case, truth)
    try:
        return {
            one.component.name: {name: found.auc for name, found in one.true.items()} for one in explanation.assessments
        }
    finally:
        explanation.close()


def channel_aucs(model: TrainedModel, case: ImageCase, truth: Path) -> AucsOfMaps:
    """By channel of a stage's output, such as ``encoder-3 channel 7``; stages as those of components."""
    network = model.network
    stages = {f"encoder-{number}": stage for number, stage in enumerate(network.encoder.stages, 1)}
    lowest_first = network.decoder.stages
    stages |= {f"decoder-{len(lowest_first) - index}": stage for index, stage in enumerate(lowest_first)}
    image = preprocess(case, [model.description])
    (data,), (properties,) = image.data, image.properties
    geometry = CaseGeometry.of(properties, data.shape[1:], model.plans.transpose_backward)
    labels = model.plans.image_reader_writer_class().read_seg(str(truth))[0][0].astype(np.int64).swapaxes(0, 2)
    predictor = model.predictor(
        _CPU,
        tile_step_size=model.tile_step_size,
        use_mirroring=False,
        on_device=False,
        predictor_class=RecordingPredictor,
    )
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        recorder = ChannelRecorder(stages, Path(folder))
        with predictor.recording(recorder):
            predictor.predict_sliding_window_return_logits(torch.from_numpy(data))
        for name, maps in recorder.maps.items():
            for channel in range(len(maps)):
                values = geometry.from_stage(maps.mean(channel), maps.stride, model.configuration.patch_size)
                binned = bin_numbers(values[geometry.box_xyz])
                found = separations(label_histograms(binned, labels[geometry.box_xyz]), model.dataset.regions)
                result[f"{name} channel {channel + 1}"] = {key: one.auc for key, one in found.items()}
    return result


def measure(workspace: Workspace, data: DataSet, costs: Mapping[str, float], arm: str, chosen: int) -> dict[str, Any]:
    """AUCs of all maps of an arm's network, of ``chosen`` training cases and of the validation cases.

    Raises:
        UserError: the network is not trained.
    """
    equal = ITERATIONS if arm == BASELINE else TIME
    piece = Piece(data=data.key, configuration=next(iter(data.configurations)), budget=SHORT, arm=arm, equal=equal)
    model = ModelName(trainer_name(piece, data, costs), ARMS[arm].plans, piece.configuration)
    fold = workspace.fold(data, model, 0)
    if not fold.checkpoint(CHECKPOINT_FINAL).exists():
        wanted = f"python -m benchmarks.real_data {data.key} --root {workspace.root} --only '{piece.key}'"
        raise UserError(f"{fold.path} is not trained: run {wanted}")
    loaded = load_model(fold.path.parent, ["0"], CHECKPOINT_FINAL)
    folds = read_folds(workspace.preprocessed(data) / SPLITS_FILE)[0]
    aucs = channel_aucs if arm == BASELINE else component_aucs
    result = {}
    for part, cases in (("chosen_on", folds["train"][:chosen]), ("scored_on", folds["val"])):
        bar = tqdm(cases, desc=f"{arm}, {part}", unit="case")
        found = [aucs(loaded, *_files(workspace, data, loaded, case)) for case in bar]
        result[part] = {"cases": cases, "auc": mean_aucs(found)}
    return result


def _files(workspace: Workspace, data: DataSet, model: TrainedModel, name: str) -> tuple[ImageCase, Path]:
    raw = workspace.raw(data)
    ending = data_ending(raw)
    (case,) = cases_from(sorted((raw / "imagesTr").glob(f"{name}_[0-9][0-9][0-9][0-9]{ending}")), model)
    return case, raw / "labelsTr" / f"{name}{ending}"


def mean_aucs(cases: Sequence[AucsOfMaps]) -> AucsOfMaps:
    """Of each map and class over the cases that have the class."""
    result: AucsOfMaps = {}
    for name, regions in cases[0].items():
        for region in regions:
            values = [own[name][region] for own in cases]
            known = [value for value in values if value is not None]
            result.setdefault(name, {})[region] = round(statistics.mean(known), 4) if known else None
    return result


def page(results: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    lines = ["# How well single components separate structures", ""]
    for key, found in results.items():
        first = next(iter(found["networks"].values()))
        regions = list(next(iter(first["scored_on"]["auc"].values())))
        header = ["maps", "how many", *(cell for region in regions for cell in (f"best for {region}", "separation"))]
        rows = [header, *(_row(arm, own, regions) for arm, own in found["networks"].items())]
        lines += [f"## {key}", "", _described(first, found), "", markdown_table(rows), ""]
    return "\n".join(lines)


def _described(first: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return (
        "Written by `python -m benchmarks.component_auc` from [component_auc.json](component_auc.json). Networks of "
        "[the study on real data](real_data.md): fold 0, short budget, equal training time. A component is the map of "
        "one head of an NMF, a channel the output of one stage. The best of each class is chosen on "
        f"{len(first['chosen_on']['cases'])} training cases and scored on {len(first['scored_on']['cases'])} "
        "validation cases; separation is the mean AUC against the true structure, or 1 − AUC for a map that avoids it. "
        f"{found['machine']}, torch {found['versions']['torch']}."
    )


def _row(arm: str, own: Mapping[str, Any], regions: Sequence[str]) -> list[str]:
    kind = "channels" if arm == BASELINE else "components"
    return [f"{ARMS[arm].title}: {kind} of all stages", str(len(own["scored_on"]["auc"])), *best_maps(own, regions)]


def best_maps(own: Mapping[str, Any], regions: Sequence[str]) -> Iterator[str]:
    """The best map of each region and its separation, as texts; empty ones where no map has both AUCs."""
    chosen_on, scored_on = own["chosen_on"]["auc"], own["scored_on"]["auc"]
    for region in regions:
        known = [name for name in chosen_on if None not in (chosen_on[name][region], scored_on[name][region])]
        if not known:
            yield from ("", "")
            continue
        best = max(known, key=lambda name: abs(chosen_on[name][region] - 0.5))
        avoids = chosen_on[best][region] < 0.5
        value = scored_on[best][region]
        yield f"{best}{' (avoids it)' if avoids else ''}"
        yield f"{1 - value if avoids else value:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Score the maps of all networks and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", help="such as brats_2mm")
    parser.add_argument("--root", type=Path, metavar="WORK", required=True, help="of benchmarks.real_data")
    parser.add_argument("--data", dest="parent", type=Path, metavar="DIR", default=ROOT.parent / "shared" / "data")
    measured = ROOT / "docs" / "measured"
    parser.add_argument("--study", type=Path, default=measured / "real_data.json", help="results of the study")
    arms = f"networks to measure, the others' results stay (default: {' '.join(NETWORKS[:3])})"
    parser.add_argument("--arms", nargs="+", choices=NETWORKS, default=NETWORKS[:3], help=arms)
    parser.add_argument("--chosen", type=int, default=6, metavar="N", help="training cases to choose on (default 6)")
    parser.add_argument("--results", type=json_output, default=measured / "component_auc.json", help="file to extend")
    options = parser.parse_args(arguments)
    with continuable():
        results = load_json_object(options.results, "Restore it from git") if options.results.exists() else {}
        data, _ = data_set(options.data, options.parent)
        workspace = Workspace(options.root.resolve())
        os.environ |= workspace.environment("python")
        torch.set_num_threads(workspace.threads)
        setup = f"{data.key}/{next(iter(data.configurations))}"
        setups = Results(options.study).read()["setups"]
        if setup not in setups:
            raise UserError(f"{options.study} has no results of {setup}")
        networks = dict(results.get(setup, {}).get("networks", {}))
        for arm in options.arms:
            networks[arm] = measure(workspace, data, setups[setup]["seconds"], arm, options.chosen)
            ordered = {one: networks[one] for one in NETWORKS if one in networks}
            results[setup] = {"networks": ordered, **machine(workspace)}
            write_text_atomically(options.results, json.dumps(results) + "\n")
            write_text_atomically(options.results.with_suffix(".md"), page(results))


if __name__ == "__main__":
    main()
