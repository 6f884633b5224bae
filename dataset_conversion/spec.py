"""What a release is, as values: the shared conversion reads these and touches files, this module touches none.

Files are found by regular expressions for the end of their path, without the ending .nii or .nii.gz, upper and lower
case alike, starting at a folder or file name. ``{case}`` in them stands for the case, so ``{case}_t1`` with the case
``BraTS2021_\\d{5}`` matches ``any/folder/BraTS2021_00000_t1.nii.gz``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from factorizer_nnunet.core.errors import UserError


@dataclass(frozen=True)
class LabelMap:
    """Label values of a release to those written for nnU-Net, e.g. {0: 0, 2: 1, 1: 2, 4: 3}.

    Where several values become one, ``back`` says which of them a submission takes.
    """

    to_nnunet: Mapping[int, int]
    back: Mapping[int, int] | None = None

    def inverse(self) -> LabelMap:
        """Return the way back, as a submission needs it.

        Raises:
            ValueError: two values become one and ``back`` does not say which it was.
        """
        if self.back is not None:
            return LabelMap(self.back)
        back = {new: old for old, new in self.to_nnunet.items()}
        if len(back) < len(self.to_nnunet):
            raise ValueError(f"labels merge in {dict(self.to_nnunet)}: no way back")
        return LabelMap(back)

    def unexpected(self, labels: np.ndarray) -> dict[int, int]:
        """Return how many voxels hold each value that the map does not know; `labels` are integers of any shape."""
        values, counts = np.unique(labels, return_counts=True)
        return {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in self.to_nnunet}

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Return `labels` (integers of any shape) with mapped values, uint8, in the same shape.

        Raises:
            ValueError: a value is not in the map.
        """
        unknown = self.unexpected(labels)
        if unknown:
            raise ValueError(f"values {sorted(unknown)} are not among {sorted(self.to_nnunet)}")
        mapped = np.zeros(labels.shape, dtype=np.uint8)
        for old, new in self.to_nnunet.items():
            mapped[labels == old] = new
        return mapped


@dataclass(frozen=True)
class Scheme:
    """What label values mean: how they are written, and the regions nnU-Net trains and scores.

    ``regions`` are sets of written values, encompassing ones first; ``regions_class_order`` names the value each region
    leaves in a prediction, later entries overwriting earlier ones (nnU-Net, documentation/region_based_training.md).
    Without it every region is one plain label.
    """

    labels: LabelMap
    regions: Mapping[str, tuple[int, ...]]
    regions_class_order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        written = sorted(set(self.labels.to_nnunet.values()))
        if written != list(range(len(written))):
            raise ValueError(f"nnU-Net needs labels 0, 1, 2, …; the label map writes {written}")
        in_regions = sorted({value for region in self.regions.values() for value in region})
        order = self.regions_class_order
        complete = len(order) == len(self.regions) if order else all(len(r) == 1 for r in self.regions.values())
        if in_regions != written[1:] or not complete:
            raise ValueError(
                f"regions {dict(self.regions)} and their order {order} must cover the labels {written[1:]}, one order "
                "entry a region"
            )


@dataclass(frozen=True)
class Channel:
    """One input image of a case: what the user calls it, and its file."""

    name: str
    file: str  # see the module's docstring
    volume: int | None = None  # which one along the fourth axis of a 4D file
    own_grid: bool = False  # may lie on another grid than the first channel; then it is registered and resampled
    json_name: str = ""  # in dataset.json, by which nnU-Net chooses the normalisation; "" means ``name``

    @property
    def written_name(self) -> str:
        """What dataset.json calls the channel; unlike ``name`` it may be there twice, as "CT" is."""
        return self.json_name or self.name


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release of a challenge: how its files lie and what they mean.

    The order of ``channels`` fixes nnU-Net's file endings _0000, _0001, …; the first channel's grid is the case's.
    ``root`` and everything from ``unlabelled`` to ``excluded`` are regular expressions that a folder's whole name
    matches; of folders within one another the inner one that says "train" or matches ``unlabelled`` decides.
    """

    key: str  # as the user names the release
    title: str
    case: str  # regular expression; named groups may serve in ``case_name`` and ``submission``
    case_name: str = "{case}"  # of a case in nnU-Net
    unlabelled_case_name: str = ""  # the same below ``unlabelled`` folders, where both parts count from 1; "": no other
    channels: tuple[Channel, ...]
    label: tuple[str, ...]  # files as in ``Channel.file``; the first that is there is taken
    schemes: tuple[Scheme, ...]  # the first that knows all label values found is taken
    root: str  # tells this release from others with the same case names
    unlabelled: str  # cases below have no label by design
    preferred: str | None = None  # holds corrections: its files win over others of the same name
    excluded: str | None = None  # is passed over
    superseded: str | None = None  # found in the path of a stale file: others of the same name win over it
    labels_optional: bool = False  # training folders hold cases without label, too: they count as unlabelled
    leftover_label: bool = False  # without label file, the one unknown NIfTI beside the images is the label
    patient: str = "(.*)"  # group 1 of this in a case name is the patient, whose cases stay in one fold
    patients_hidden: str = ""  # why case names do not tell patients and what to do; empty where they do
    stratum: str | None = None  # group 1 of this in an image's path (a grade, a site) is balanced over the folds
    strata_table: tuple[str, str, str] | None = None  # CSV file of the release, its columns of case and stratum
    constant_allowed: bool = False  # constant images are reported and kept, not refused
    non_finite_to_zero: bool = False  # NaN and infinite voxels of images become 0 and are counted, not refused
    telltale: tuple[int, str] | None = None  # a label value without which the whole set is suspicious, and why
    values_hint: str = ""  # what is known of label values beyond the schemes, and what to do about them
    submission: str  # file of a prediction, with {case}, named groups of ``case`` and of the channels' files
    submission_extra: Mapping[str, str] = field(default_factory=dict)  # further files of a submission: their text
    example: str  # path of a file as released
    licence: str
    reference: str

    def __post_init__(self) -> None:
        names = [channel.name for channel in self.channels]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.key}: channel names {names} are not all different")
        if self.channels[0].own_grid:
            raise ValueError(f"{self.key}: the first channel gives the grid and cannot have its own")

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
        """Whether all ``names`` are those of channels, upper and lower case alike."""
        return {name.casefold() for name in names} <= {channel.name.casefold() for channel in self.channels}

    def chosen_channels(self, names: Sequence[str] | None) -> tuple[Channel, ...]:
        """The channels called ``names``, in that order; all of them for None.

        Raises:
            UserError: an unknown name, or one given twice.
        """
        if names is None:
            return self.channels
        known = {channel.name.casefold(): channel for channel in self.channels}
        for name in names:
            if name.casefold() not in known:
                valid = ", ".join(channel.name for channel in self.channels)
                raise UserError(f"{self.title} has no channel {name!r}: choose from {valid}")
        if len({name.casefold() for name in names}) < len(names) or not names:
            raise UserError(f"channels {' '.join(names)}: give each one once, at least one")
        return tuple(known[name.casefold()] for name in names)
