"""One case through a model, with its components: arrays and their geometry, for notebooks and for the command."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.explain.blending import BlendedMaps
from factorizer_nnunet.explain.deletion import ClassChange, class_changes, head_deleted
from factorizer_nnunet.explain.inputs import given_cases
from factorizer_nnunet.explain.predictor import RecordingPredictor, build_predictor
from factorizer_nnunet.explain.ranking import Separation, label_histograms, levels, order, separations
from factorizer_nnunet.explain.recorder import Recorder, SiteRecord
from factorizer_nnunet.explain.sites import Component, Site, check_heads, choose_sites, components, find_sites
from factorizer_nnunet.explain.space import CaseSpace, Volume
from factorizer_nnunet.explain.threads import in_threads
from factorizer_nnunet.nnunet.image_files import ImageCase
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.prediction.work import preprocess

OnMap = Callable[[Component, np.ndarray], None]


@dataclass(frozen=True)
class Assessment:
    """What is known of one component in one case.

    Attributes:
        energy_share: ‖U Vᵀ‖² over ‖X‖² of all heads of its block.
        head_share: ‖U Vᵀ‖² over ‖X‖² of its own head: how much of its features the component explains.
        mean_loading: its channels' weights, norm at most 1: the unit columns of U, averaged by energy.
        largest: of the map, in units of the hidden features.
        predicted, true: by class; ``true`` is None without a truth.
        deletion: by class; None unless tested.
    """

    component: Component
    energy_share: float
    head_share: float
    mean_loading: tuple[float, ...]
    largest: float
    predicted: dict[str, Separation]
    true: dict[str, Separation] | None
    deletion: dict[str, ClassChange] | None = None


@dataclass
class Explanation:
    """A case, its prediction and its components; the maps lie in files of a folder that goes with this object.

    Attributes:
        case: its name.
        image: (channels, x, y, z).
        prediction, truth: label values, (x, y, z).
        classes: label values of each class or region.
        ignored: value of voxels of the truth that nobody annotated, if the data set has one.
        stages: names of the blocks whose components are here.
        assessments: one per component, in the order of the stages; best ones by ``top``.
    """

    case: str
    image: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray | None
    classes: dict[str, tuple[int, ...]]
    ignored: int | None
    space: CaseSpace
    properties: Mapping[str, Any]
    stages: list[str]
    assessments: list[Assessment] = field(default_factory=list)
    _records: dict[str, SiteRecord] = field(default_factory=dict)
    _patch: tuple[int, ...] = ()
    _data: torch.Tensor | None = None
    _folder: tempfile.TemporaryDirectory | None = None

    def close(self) -> None:
        """Remove the files of the maps; else they go when the object does."""
        self._records.clear()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def bytes_of_a_map(self) -> int:
        """Memory in which one map is made, assessed and written: it, three copies of it, and as much of integers."""
        return 32 * self.prediction.size

    def map(self, component: Component) -> Volume:
        """The component's V on the grid of the original image, in units of the hidden features."""
        record = self._records[component.site]
        rank = len(record.maps) // len(record.head_energy)
        return self._volume(record.maps, (component.head - 1) * rank + component.column - 1)

    def loadings(self, component: Component) -> Volume | None:
        """The unit column of U in whose windows each voxel lies, (x, y, z, head_dim); None if not recorded."""
        record = self._records[component.site]
        if record.loadings is None:
            return None
        rank = len(record.maps) // len(record.head_energy)
        width = len(record.loadings) // len(record.maps)
        first = ((component.head - 1) * rank + component.column - 1) * width
        channels = [self._volume(record.loadings, first + channel).values for channel in range(width)]
        return self.space.to_volume(np.stack(channels, -1))

    def top(self, stage: str, name: str, count: int) -> list[Assessment]:
        """The components of a stage that separate a predicted class best, best first; some of them avoid it.

        None for a class that is nowhere, or everywhere: nothing can be separated then.
        """
        own = [
            one for one in self.assessments if one.component.site == stage and one.predicted[name].strength is not None
        ]
        return [own[i] for i in order([one.predicted[name].strength for one in own])[:count]]

    def top_of_all(self, count: int) -> list[Assessment]:
        """The components among the best ``count`` of any stage and class, each once."""
        chosen = {
            one.component.name: one
            for name in self.classes
            for stage in self.stages
            for one in self.top(stage, name, count)
        }
        return list(chosen.values())

    def _volume(self, maps: BlendedMaps, index: int) -> Volume:
        return self.space.to_volume(self.space.from_stage(maps.mean(index), maps.stride, self._patch))


@dataclass(frozen=True)
class Explainer:
    """A model ready to explain cases.

    Attributes:
        sites: those chosen.
        heads: counted from 1; all if empty.
        deletion: how many of the best components of each class and stage are tested by deletion.
    """

    model: TrainedModel
    predictor: RecordingPredictor
    sites: list[Site]
    heads: tuple[int, ...]
    with_loadings: bool
    deletion: int

    def __call__(self, case: ImageCase, truth: Path | None = None) -> Explanation:
        """Predict and explain a case, with its maps in the system's temporary folder; arguments as for ``predict``."""
        return self.assess(self.predict(case, truth))

    def predict(self, case: ImageCase, truth: Path | None = None, folder: Path | None = None) -> Explanation:
        """Predict a case and record its components, not assessed yet.

        Args:
            case: its files.
            truth: its true segmentation, on the grid of the image.
            folder: for files while the explanation is used; by default in the system's temporary folder.
        """
        model = self.model
        data, properties = preprocess(case, model.plans, model.settings, model.description)
        tensor = torch.from_numpy(data)
        temporary = tempfile.TemporaryDirectory(prefix=".maps", dir=folder)
        recorder = Recorder(self.sites, Path(temporary.name), self.with_loadings)
        self.predictor.recorder = recorder
        handles = recorder.attach()
        try:
            segmentation = self._segmentation(tensor, properties)
        finally:
            for handle in handles:
                handle.remove()
            self.predictor.recorder = None
        reader = model.plans.image_reader_writer_class()
        patch = tuple(model.settings.patch_size)
        return Explanation(
            case=case.name,
            image=_xyz(reader.read_images([str(file) for file in case.files])[0]),
            prediction=_xyz(segmentation),
            truth=None if truth is None else _xyz(reader.read_seg(str(truth))[0][0]).astype(np.int64),
            classes=classes_of(model.description),
            ignored=model.description["labels"].get("ignore"),
            space=CaseSpace.of(properties, data.shape[1:], model.plans.transpose_backward),
            properties=properties,
            stages=[site.name for site in self.sites],
            _records=recorder.records,
            _patch=(1,) * (data.ndim - 1 - len(patch)) + patch,
            _data=tensor,
            _folder=temporary,
        )

    def assess(self, explanation: Explanation, on_map: OnMap | None = None) -> Explanation:
        """The same explanation, with its components assessed.

        Args:
            explanation: of ``predict``.
            on_map: called with each component and its map (x, y, z) on the original grid, in several threads.
        """
        self._assess(explanation, on_map)
        self._test_deletion(explanation)
        return explanation

    def _segmentation(self, data: torch.Tensor, properties: Mapping[str, Any]) -> np.ndarray:
        # Not ``predict_logits_from_preprocessed_data``, which loads weights first and so would undo a deletion.
        logits = self.predictor.predict_sliding_window_return_logits(data).cpu().numpy()
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, self.model.plans, self.model.settings, self.predictor.label_manager, properties
        )

    def _assess(self, explanation: Explanation, on_map: OnMap | None) -> None:
        box = explanation.space.box_xyz
        predicted = explanation.prediction[box]
        true = None if explanation.truth is None else explanation.truth[box]
        ignored = explanation.ignored

        def assessed(task: tuple[Site, Component]) -> Assessment:
            site, component = task
            record = explanation._records[site.name]
            everything = float(record.head_energy.sum()) or 1.0
            values = explanation.map(component).values
            if on_map is not None:
                on_map(component, values)
            binned = levels(values[box])
            index = (component.head - 1) * site.rank + component.column - 1
            energy, own = float(record.energy[index]), float(record.head_energy[component.head - 1])
            return Assessment(
                component=component,
                energy_share=energy / everything,
                head_share=energy / own if own else 0.0,
                mean_loading=tuple((record.mean_loading[index] / (energy or 1.0)).tolist()),
                largest=float(values.max()),
                predicted=separations(label_histograms(binned, predicted), explanation.classes),
                true=None
                if true is None
                else separations(label_histograms(binned, true, ignored), explanation.classes),
            )

        tasks = [(site, component) for site in self.sites for component in components(site, self.heads)]
        explanation.assessments = in_threads(assessed, tasks, explanation.bytes_of_a_map)

    def _test_deletion(self, explanation: Explanation) -> None:
        sites = {site.name: site for site in self.sites}
        changes: dict[tuple[str, int], dict[str, ClassChange]] = {}
        for one in explanation.top_of_all(self.deletion):
            key = (one.component.site, one.component.head)
            if key not in changes:
                with head_deleted(sites[key[0]], key[1]):
                    without = _xyz(self._segmentation(explanation._data, explanation.properties))
                changes[key] = class_changes(
                    explanation.prediction,
                    without,
                    explanation.truth,
                    explanation.classes,
                    explanation.space.grid.voxel_mm3,
                    explanation.ignored,
                )
        explanation.assessments = [
            replace(one, deletion=changes.get((one.component.site, one.component.head)))
            for one in explanation.assessments
        ]


def build_explainer(
    model: TrainedModel,
    device: torch.device,
    *,
    stages: Sequence[str] = (),
    heads: Sequence[int] = (),
    with_loadings: bool = False,
    deletion: int = 0,
    tile_step_size: float | None = None,
    use_mirroring: bool = True,
) -> Explainer:
    """An explainer of a loaded model's first fold.

    Raises:
        UserError: it is no Factorizer, continues a previous stage, or lacks a stage or head.
    """
    if model.settings.previous_stage_name is not None:
        raise UserError(
            f"{model.first.configuration} continues a previous stage, whose output explain does not take. Explain a "
            "model of one stage, such as 3d_fullres"
        )
    sites = choose_sites(find_sites(model.network, model.folder), stages)
    heads = tuple(dict.fromkeys(heads))
    check_heads(sites, heads)
    step = model.tile_step_size if tile_step_size is None else tile_step_size
    predictor = build_predictor(model, device, step, use_mirroring)
    return Explainer(model, predictor, sites, heads, with_loadings, deletion)


def explain_case(
    model: Path,
    files: Sequence[Path],
    *,
    fold: str = "0",
    truth: Path | None = None,
    device: str = "cpu",
    stages: Sequence[str] = (),
    heads: Sequence[int] = (),
    with_loadings: bool = False,
    deletion: int = 0,
    checkpoint: str = "checkpoint_final.pth",
) -> Explanation:
    """Predict and explain one case in memory, for notebooks; nothing of the user's is written.

    Args:
        model: folder ``TRAINER__PLANS__CONFIGURATION``.
        files: the image, one file per channel.
        fold: whose weights.
        truth: the true segmentation, if there is one.
        device: of torch.
        stages: such as ``encoder-3``; all if empty.
        heads: counted from 1; all if empty.
        with_loadings: keep the loadings in space, too.
        deletion: test so many of the best components of each class and stage by deletion.
        checkpoint: file name in the fold.

    Raises:
        UserError: model, stage or head cannot be used.
        OSError: an image is truncated; nnU-Net's readers have exceptions of their own.
    """
    loaded = load_model(Path(model), [fold], checkpoint)
    explainer = build_explainer(
        loaded,
        torch.device(device),
        stages=stages,
        heads=heads,
        with_loadings=with_loadings,
        deletion=deletion,
    )
    (case,) = given_cases([Path(file) for file in files], loaded)
    return explainer(case, truth)


def classes_of(description: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Label values of each class or region of a ``dataset.json``, without background and what is ignored."""
    return {
        name: tuple(value) if isinstance(value, list | tuple) else (value,)
        for name, value in description["labels"].items()
        if name not in ("background", "ignore")
    }


def _xyz(array: np.ndarray) -> np.ndarray:
    """nnU-Net's arrays (…, z, y, x) with x first."""
    return np.swapaxes(array, -1, -3)
