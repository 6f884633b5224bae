"""Description of a release as values, without file access.

Files are found by case-insensitive regular expressions for the end of their path, without .nii or .nii.gz, starting at
a folder or file name. ``{case}`` stands for the case: ``{case}_t1`` with the case ``BraTS2021_\\d{5}`` matches
``any/folder/BraTS2021_00000_t1.nii.gz``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.imaging.labels import count_labels


@dataclass(frozen=True)
class LabelMap:
    """Maps label values of a release to those written for nnU-Net, e.g. {0: 0, 2: 1, 1: 2, 4: 3}.

    If several values become one, ``back`` maps written values to those of a submission.
    """

    to_nnunet: Mapping[int, int]
    back: Mapping[int, int] | None = None

    def inverse(self) -> LabelMap:
        """Return the map from written values to those of a submission.

        Raises:
            ValueError: several values become one and ``back`` is not set.
        """
        if self.back is not None:
            return LabelMap(self.back)
        back = {new: old for old, new in self.to_nnunet.items()}
        if len(back) < len(self.to_nnunet):
            raise ValueError(f"labels merge in {dict(self.to_nnunet)}, which cannot be inverted")
        return LabelMap(back)

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Return `labels` (integers of any shape) with mapped values, uint8, in the same shape.

        Raises:
            ValueError: a value is not mapped.
        """
        unknown = count_labels(labels).keys() - self.to_nnunet.keys()
        if unknown:
            raise ValueError(f"values {sorted(unknown)} are not among {sorted(self.to_nnunet)}")
        mapped = np.zeros_like(labels, dtype=np.uint8)
        for old, new in self.to_nnunet.items():
            if new:
                mapped[labels == old] = new
        return mapped


@dataclass(frozen=True)
class LabelScheme:
    """Meaning of label values: how they are written, and the regions that nnU-Net trains and scores.

    ``regions`` are sets of written values, larger regions first. ``regions_class_order`` is the value that each region
    leaves in a prediction; later regions overwrite earlier ones (nnU-Net, documentation/region_based_training.md).
    Without it, every region is a plain label.
    """

    labels: LabelMap
    regions: Mapping[str, tuple[int, ...]]
    regions_class_order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        written = sorted(set(self.labels.to_nnunet.values()))
        if written != list(range(len(written))):
            raise ValueError(f"invalid written labels {written}: nnU-Net needs 0, 1, 2, …")
        in_regions = sorted({value for region in self.regions.values() for value in region})
        order = self.regions_class_order
        complete = len(order) == len(self.regions) if order else all(len(r) == 1 for r in self.regions.values())
        if in_regions != written[1:] or not complete:
            raise ValueError(
                f"regions {dict(self.regions)} and their order {order} must cover the labels {written[1:]}, with one "
                "order entry per region"
            )


@dataclass(frozen=True)
class Channel:
    """One input image of a case."""

    name: str  # for the user
    file: str  # pattern, see the module's docstring
    volume: int | None = None  # index along the fourth axis of a 4D file
    own_grid: bool = False  # may have a different grid than the first channel; then it is registered and resampled
    json_name: str = ""  # in dataset.json, where nnU-Net derives the normalisation from it; "": same as ``name``

    @property
    def written_name(self) -> str:
        """Name in dataset.json; unlike ``name``, several channels may share it, such as "CT"."""
        return self.json_name or self.name


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release of a challenge: where its files are and what they mean.

    The order of ``channels`` determines nnU-Net's file endings _0000, _0001, …; the first channel's grid is the case's.
    ``root`` and everything from ``unlabelled`` to ``excluded`` are regular expressions for the entire name of a folder.
    The innermost parent folder that contains "train" or matches ``unlabelled`` decides whether a case has a label.
    """

    key: str  # name on the command line
    title: str
    case: str  # regular expression; named groups can be used in ``case_name`` and ``submission``
    case_name: str = "{case}"  # name of a case in nnU-Net
    unlabelled_case_name: str = ""  # the same below ``unlabelled`` folders if both parts count from 1; "": not needed
    channels: tuple[Channel, ...]
    label: tuple[str, ...]  # patterns as in ``Channel.file``; the first that matches is used
    schemes: tuple[LabelScheme, ...]  # the first that covers all label values found is used
    root: str  # distinguishes this release from others with the same case names
    unlabelled: str  # cases below such a folder have no label
    display: str = ""  # the channel that shows the labels best, for pictures; "": the one with the largest contrast
    preferred: str | None = None  # folder with corrections, whose files override others of the same name
    excluded: str | None = None  # folder to ignore
    superseded: str | None = None  # searched in the path of an outdated file, which others of the same name override
    folders_on_disk: bool = True  # False: named by us, for files of any folders
    labels_optional: bool = False  # cases without label in training folders are treated as unlabelled
    leftover_label: bool = False  # if there is no label file, the only unknown NIfTI next to the images is the label
    patient: str = "(.*)"  # group 1 in a case name is the patient, whose cases stay in one fold
    patients_hidden: str = ""  # why case names do not identify patients, and what to do; "" if they do
    stratum: str | None = None  # group 1 in an image's path (a grade, a site) is balanced over the folds
    strata_table: tuple[str, str, str] | None = None  # CSV file of the release, columns of case and stratum
    constant_allowed: bool = False  # constant images are noted, not a problem
    non_finite_to_zero: bool = False  # NaN and infinite voxels of images are set to 0 and noted
    telltale: tuple[int, str] | None = None  # a label value whose absence makes the set suspicious, and why
    values_hint: str = ""  # known label values beyond the schemes, and what to do about them
    submission: str  # file name of a prediction, with {case} and named groups of ``case`` and ``Channel.file``
    submission_extra: Mapping[str, str] = field(default_factory=dict)  # text of further files in a submission
    example: str  # path of a file as released
    licence: str
    reference: str

    def __post_init__(self) -> None:
        names = [channel.name for channel in self.channels]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.key}: channel names {names} are not unique")
        if self.channels[0].own_grid:
            raise ValueError(f"{self.key}: the first channel defines the grid and cannot have its own")
        if self.display and self.display not in names:
            raise ValueError(f"{self.key}: the channel to show, {self.display!r}, is not among {names}")

    def patient_of(self, case: str) -> str:
        """Return the patient that a case name belongs to.

        Raises:
            ValueError: the name is not one of this release.
        """
        match = re.fullmatch(self.patient, case, re.IGNORECASE)
        if match is None:
            raise ValueError(f"{case!r} is not a case of {self.title} ({self.patient})")
        return match[1]

    def has_channels(self, names: Sequence[str]) -> bool:
        """Whether all ``names`` are channel names, ignoring case."""
        return {name.casefold() for name in names} <= {channel.name.casefold() for channel in self.channels}

    def chosen_channels(self, names: Sequence[str] | None) -> tuple[Channel, ...]:
        """The channels called ``names``, in that order; None stands for all.

        Raises:
            UserError: an unknown or repeated name.
        """
        if names is None:
            return self.channels
        known = {channel.name.casefold(): channel for channel in self.channels}
        for name in names:
            if name.casefold() not in known:
                valid = ", ".join(channel.name for channel in self.channels)
                raise UserError(f"{self.title} has no channel {name!r}: choose from {valid}")
        if len({name.casefold() for name in names}) < len(names) or not names:
            raise UserError(f"invalid channels {' '.join(names)!r}: give at least one, each once")
        return tuple(known[name.casefold()] for name in names)
