"""What fingerprint, preprocessed data and trainings were made from, so that stale ones are never used unnoticed.

The one rule: whatever is made leaves a record of its sources, and is stale when these have changed since. Our commands
keep the records in ``factorizer_sources`` next to what nnU-Net writes; a checkpoint contains its own. What stock
commands made has no record; then times decide, and where these are in doubt it counts as stale. So only what is made
again in that case relies on times; a training, which would be refused, does not.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.file_stamps import (
    Changes,
    Content,
    Source,
    Stamp,
    changes_of,
    in_words,
    record_sources,
    stamp_of_ends,
    stamp_of_value,
)
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet.dataset_json import ABSENT_KEY, DATASET_FILE, CaseFiles, DatasetJson
from factorizer_nnunet.nnunet.integrity import newest, oldest
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE, FoldFolder
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.nnunet.previous_stage import digest_of_segmentation, segmentation_files

FOLDER = "factorizer_sources"  # in a dataset's folder in nnUNet_preprocessed, and in the folder of a trained fold
FINGERPRINT, PLANS = "fingerprint", "plans"  # sources of plans
_PREVIOUS = "previous stage's segmentation of"  # a case: source of a cascade's training
# What planning and training read of dataset.json; other entries, such as a description, may change.
_DATASET_KEYS = (
    "labels",
    "regions_class_order",
    "channel_names",
    "modality",
    "overwrite_image_reader_writer",
    ABSENT_KEY,
)
_CASE_ENDINGS = (".pkl", ".b2nd", "_seg.b2nd", ".npz")  # of preprocessed files; the last in nnU-Net's older format
_OF_PLANS = (
    "image_reader_writer",
    "transpose_forward",
    "transpose_backward",
    "foreground_intensity_properties_per_channel",
    "label_manager",
)
_OF_CONFIGURATION = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)


@dataclass(frozen=True)
class Derived:
    """Something that was made from sources.

    Attributes:
        record: the file that says from which.
        sources: those that it would be made from now, by name.
        made: stamps of what was made, by name: the record says nothing about others that replace it later.
        files: what was made, for its time.
    """

    record: Path
    sources: Mapping[str, Source]
    made: Mapping[str, Source]
    files: tuple[Path, ...]

    def changes(self) -> Changes | None:
        """What has changed since it was made; None without a record.

        Changes of ``made`` are damage, or a stock command has made it again since.
        """
        return changes_of(self.record, self.sources, self.made)

    def changed_sources(self) -> Mapping[str, str] | None:
        """What has changed of its sources since it was made; None without a record of it."""
        changes = self.changes()
        return None if changes is None or changes.made else changes.sources

    def is_older(self) -> bool:
        """Whether a source has a later time; for what has no record."""
        files = [source for source in self.sources.values() if isinstance(source, Path)]
        files += [source.path for source in self.sources.values() if isinstance(source, Content)]
        values = [source.modified_ns / 1e9 for source in self.sources.values() if isinstance(source, Stamp)]
        return max(newest(files), *values, 0.0) > oldest(file for file in self.files if file.exists())

    def stale_reason(self) -> str | None:
        """Why it must be made again, in words; None if it need not."""
        changes = self.changes()
        if changes is None:
            return "its sources are newer" if self.is_older() else None
        if changes.made:
            return f"it is not as it was made: {first_few(in_words(changes.made), 3)}"
        return f"its sources have changed since: {first_few(in_words(changes.sources), 3)}" if changes.sources else None

    def write_record(self, known: Mapping[Path, Stamp] | None = None) -> None:
        """Write what it has just been made from; ``known`` stamps need not be taken again."""
        record_sources(self.record, self.sources, self.made, known)


def raw_sources(raw: Path, description: DatasetJson, cases: Iterable[CaseFiles]) -> dict[str, Source]:
    """All images and labels of the training cases by their path in the raw dataset, and what dataset.json declares.

    Args:
        raw: the dataset's folder in ``nnUNet_raw``.
        description: its dataset.json.
        cases: all training cases.
    """
    files = [file for case in cases for file in (case.label, *case.images)]
    # Names of labels and channels do not change the data, only the plans that are made of them.
    values = {
        "labels": list(description.labels.values()),
        "ignore": description.ignore_label,
        "channels": len(description.channel_names),
        "reader": description.content.get("overwrite_image_reader_writer"),
    }
    if absent := description.absent_channels:  # unknown to older records
        values["absent"] = {case: sorted(channels) for case, channels in absent.items()}
    declared = dataclasses.replace(stamp_of_value(values), modified_ns=int(newest([raw / DATASET_FILE]) * 1e9))
    return {**{raw_name(file, raw): file for file in files}, DATASET_FILE: declared}


def raw_name(file: Path, raw: Path) -> str:
    """What ``raw_sources`` calls an image or label."""
    return os.path.relpath(file, raw)


def declared_values(description: DatasetJson) -> dict[str, Any]:
    """What planning copies from the raw ``dataset.json``, of what planning and training read."""
    return {key: description.content.get(key) for key in _DATASET_KEYS}


def fingerprint(folder: Path, sources: Mapping[str, Source]) -> Derived:
    """The fingerprint.

    Args:
        folder: the dataset's folder in ``nnUNet_preprocessed``.
        sources: see ``raw_sources``.
    """
    file = folder / FINGERPRINT_FILE
    return Derived(folder / FOLDER / "fingerprint.json", sources, _existing(file), (file,))


def preprocessed_data(
    folder: Path, plans: Mapping[str, Any], configuration: str, cases: Iterable[str], sources: Mapping[str, Source]
) -> Derived:
    """The preprocessed data of a configuration, whose settings are sources, too.

    Args:
        folder: the dataset's folder in ``nnUNet_preprocessed``.
        plans: the plans.
        configuration: with its own data.
        cases: names of all training cases.
        sources: see ``raw_sources``.
    """
    identifier = resolved_configuration(plans, configuration, "the plans")["data_identifier"]
    settings = stamp_of_value(preprocessing_settings(plans, configuration))
    data = folder / identifier
    return Derived(
        folder / FOLDER / f"data.{identifier}.json",
        {**sources, "settings in the plans": settings},
        _cases_in(data, cases),
        tuple(data / f"{case}.pkl" for case in cases),
    )


def trained_fold(fold: FoldFolder, sources: Mapping[str, Source]) -> Derived:
    """A finished training; ``sources`` as for ``split_sources``."""
    return Derived(fold.path / FOLDER / "training.json", sources, _existing(fold.checkpoint()), (fold.checkpoint(),))


def plans_made(plans_file: Path) -> Derived:
    """Plans, made from the fingerprint next to them; as a source of itself, the file shows whether it was edited."""
    sources = {FINGERPRINT: plans_file.with_name(FINGERPRINT_FILE), PLANS: plans_file}
    return Derived(plans_file.parent / FOLDER / f"plans.{plans_file.stem}.json", sources, {}, (plans_file,))


def record_plans(plans_file: Path) -> None:
    """Record that plans have just been made from the fingerprint next to them.

    Raises:
        OSError: the record cannot be written.
    """
    plans_made(plans_file).write_record()


def split_sources(
    data: Path, train: Iterable[str], val: Iterable[str], previous: Path | None = None
) -> dict[str, Source]:
    """What a fold is trained from: its preprocessed cases, and which of them it trains and validates on.

    Args:
        data: the folder of the configuration's preprocessed data.
        train: names of training cases.
        val: names of validation cases.
        previous: the folder of the previous stage's segmentations, which a cascade is trained on, too.
    """
    parts = {"training cases": sorted(train), "validation cases": sorted(val)}
    lists = {name: stamp_of_value(names) for name, names in parts.items()}
    cases = sorted({name for names in parts.values() for name in names})
    segmentations = {} if previous is None else segmentation_files(previous, cases)
    return {
        **{case: _repeatable_stamp(data, case) for case in cases},
        **lists,
        **{f"{_PREVIOUS} {case}": Content(file, digest_of_segmentation) for case, file in segmentations.items()},
    }


def _repeatable_stamp(data: Path, case: str) -> Stamp:
    """A stamp that is the same when the same data are preprocessed again.

    Threads order blosc2's blocks differently each time, so of its files only the size counts, which hardly stays the
    same for another image. The properties contain positions of voxels of each class, so they change with the label.
    """
    files = [data / f"{case}{ending}" for ending in _CASE_ENDINGS if (data / f"{case}{ending}").is_file()]
    sizes = {file.name: file.stat().st_size for file in files}
    return stamp_of_value([sizes, stamp_of_ends([data / f"{case}.pkl"]).sha256])


def _cases_in(data: Path, cases: Iterable[str]) -> dict[str, Stamp]:
    """A stamp of the preprocessed files of each case as they are."""
    return {case: stamp_of_ends(data / f"{case}{ending}" for ending in _CASE_ENDINGS) for case in cases}


def preprocessing_settings(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """All settings that preprocessing reads, except for the patch size, which only changes how nnU-Net chunks files.

    Raises:
        UserError: see ``resolved_configuration``.
    """
    settings = resolved_configuration(plans, configuration, str(plans.get("plans_name", "the plans")))
    found = {key: plans.get(key) for key in _OF_PLANS} | {key: settings.get(key) for key in _OF_CONFIGURATION}
    return json.loads(json.dumps(found))  # lists and tuples must compare equal


def _existing(file: Path) -> dict[str, Stamp]:
    return {file.name: stamp_of_ends([file])}
