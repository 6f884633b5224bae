"""What is wrong with a case, decided from facts alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.dataset_check.facts import FileFacts
from factorizer_nnunet.imaging.checks import not_finite_text
from factorizer_nnunet.imaging.grid import geometry_difference, has_right_angles, spacing_difference
from factorizer_nnunet.nnunet.dataset_json import ABSENT_KEY

# Replaces the file that is given to it.
_ROUND = (
    "python -c 'import sys, SimpleITK as s; s.WriteImage(s.Cast(s.Round(s.ReadImage(sys.argv[1])), s.sitkInt16), "
    "sys.argv[1])'"
)


@dataclass(frozen=True)
class Expected:
    """What dataset.json declares.

    Attributes:
        json_file: the file.
        channel_names: in order.
        labels: name of each declared value, including the ignore label.
        constant_images: files known to be constant, which conversion has accepted.
        ignore: the label of voxels that are neither trained on nor scored.
        absent: numbers of the channels that a case lacks, by case.
    """

    json_file: Path
    channel_names: tuple[str, ...]
    labels: Mapping[int, str]
    constant_images: frozenset[str] = frozenset()
    ignore: int | None = None
    absent: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @property
    def foreground(self) -> dict[int, str]:
        """Names of the values that are learned."""
        return {value: name for value, name in sorted(self.labels.items()) if value not in (0, self.ignore)}


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file, and how to fix it; as text, two sentences.

    Attributes:
        may_be_meant: nnU-Net can work with such data, so that the user may decide.
    """

    path: Path
    problem: str
    fix: str
    may_be_meant: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}. {self.fix}"


@dataclass(frozen=True)
class CaseFacts:
    """One training case: its files and what they contain."""

    name: str
    images: tuple[tuple[Path, FileFacts], ...]
    label: tuple[Path, FileFacts]


def case_problems(case: CaseFacts, expected: Expected) -> Iterator[Finding]:
    """All that is wrong with one case."""
    readable = []
    for path, facts in (*case.images, case.label):
        if facts.error:
            yield Finding(path, facts.error, "Replace the file")
        else:
            readable.append((path, facts))
            yield from _geometry_problems(path, facts)
    images = [(path, facts) for path, facts in case.images if not facts.error]
    absent = expected.absent.get(case.name, frozenset())
    for number, (path, facts) in enumerate(case.images):
        if not facts.error:
            in_file = absent if len(case.images) == 1 else frozenset({0} if number in absent else ())
            yield from _intensity_problems(path, facts, expected, in_file)
    if len(images) == len(case.images):
        yield from _channel_problems(case, expected)
    label_path, label = case.label
    if not label.error:
        yield from _label_problems(label_path, label, expected)
    yield from _grid_problems(readable, len(images))


def _geometry_problems(path: Path, facts: FileFacts) -> Iterator[Finding]:
    if not all(np.isfinite(size) and size > 0 for size in facts.spacing):
        voxel = " × ".join(f"{size:g}" for size in facts.spacing)
        yield Finding(path, f"its header gives voxels of {voxel} mm", "Correct the voxel size in the header")
    elif facts.grid is not None and not has_right_angles(facts.grid):
        yield Finding(path, "its axes are not at right angles", "Resample it to a grid with perpendicular axes")


def _intensity_problems(path: Path, facts: FileFacts, expected: Expected, absent: frozenset[int]) -> Iterator[Finding]:
    """What is wrong with intensities; ``absent`` are numbers of channels in this file."""
    names = expected.channel_names if facts.channels == len(expected.channel_names) > 1 else ()
    if facts.not_finite:
        yield Finding(
            path,
            f"{not_finite_text(facts.not_finite)} (or too large for 32-bit floating point)",
            "Replace them with a value that makes sense for the image, such as that of the background",
        )
    if absent - {number for number, value in facts.constant_channels if value == 0}:
        fix = f"Correct {ABSENT_KEY}, or replace the image by one of zeros"
        yield Finding(path, f"is not 0 everywhere, but {expected.json_file} declares the channel absent", fix)
    constant = () if path.name in expected.constant_images else facts.constant_channels
    constant = tuple(one for one in constant if one[0] not in absent)
    for number, value in constant if names else constant[:1]:
        which = f"channel {names[number]} is" if names else "is"
        yield Finding(path, f"{which} constant: every voxel is {value:g}", "Replace the image or remove the case", True)
    for number in facts.overflowing_channels:
        which = f"channel {names[number]} has" if names else "has"
        yield Finding(
            path,
            f"{which} values so large that mean or standard deviation are not finite in 32-bit floating point, which "
            "nnU-Net normalises with",
            "Scale the image down, or replace the voxels with extreme values",
        )
    for number in facts.faint_channels:
        which = f"channel {names[number]} has" if names else "has"
        yield Finding(
            path,
            f"{which} values with a standard deviation below 1e-8, which nnU-Net's normalisation makes nearly constant",
            "Save the image in another unit, such as µm²/s for diffusion",
            True,
        )


def _channel_problems(case: CaseFacts, expected: Expected) -> Iterator[Finding]:
    found, wanted = sum(facts.channels for _, facts in case.images), len(expected.channel_names)
    if found == wanted:
        return
    path, facts = case.images[0]
    if len(case.images) == 1:
        hint = " (red, green, blue and transparency)" if facts.channels == 4 else ""
        fix = "Save the image with as many channels, or correct channel_names"
        yield Finding(path, f"has {found} channels{hint}, but {expected.json_file} names {wanted}", fix)
        return
    for path, facts in case.images:
        if facts.channels != 1:
            yield Finding(
                path,
                f"has {facts.channels} channels, but each of the {len(case.images)} files of this case must have one",
                "Save it with one channel",
            )


def _label_problems(path: Path, facts: FileFacts, expected: Expected) -> Iterator[Finding]:
    if facts.channels != 1:
        fix = "Save the label with one value for each voxel (a PNG label must not be an RGB image)"
        yield Finding(path, f"has {facts.channels} channels, where a label has one", fix)
        return
    if facts.not_finite:
        yield Finding(path, not_finite_text(facts.not_finite), "Correct the label")
        return
    if facts.fractional:
        examples = [str(np.float32(value)) for value in facts.fractional_examples]
        yield Finding(
            path,
            f"{count_of(facts.fractional, 'voxel')} with values that are not integers, such as {', '.join(examples)}: "
            "nnU-Net finds none of its classes in them, and later cuts off what follows the point "
            f"({examples[0]} becomes {int(facts.fractional_examples[0])})",
            f"Keep a copy of the file, then round its values: {_ROUND} {shlex.quote(str(path))}"
            if facts.only_rounding
            else "Save it as an integer type without a scale factor in the header",
        )
        return
    if facts.values is None:
        yield Finding(path, "has too many or too large values for a label", "Check that the file is a label")
        return
    undeclared = {value: count for value, count in facts.values.items() if value not in expected.labels}
    if undeclared:
        listed = ", ".join(f"{value} ({count_of(count, 'voxel')})" for value, count in list(undeclared.items())[:5])
        more = f" and {len(undeclared) - 5} more" if len(undeclared) > 5 else ""
        yield Finding(
            path,
            f"has values that {expected.json_file} does not declare: {listed}{more}; declared are "
            f"{', '.join(map(str, sorted(expected.labels)))}",
            "Correct the label" + (", or declare the values under labels" if max(undeclared) > 0 else ""),
        )


def _grid_problems(files: Sequence[tuple[Path, FileFacts]], num_images: int) -> Iterator[Finding]:
    """Files of a case that do not lie on the grid of its first readable one."""
    if not files:
        return
    first, reference = files[0]
    for number, (path, facts) in enumerate(files[1:], 1):
        what = "image" if number < num_images else "label"
        if facts.shape != reference.shape:
            difference: str | None = f"shape {facts.shape} (z, y, x) differs from {reference.shape}"
        elif facts.grid is not None and reference.grid is not None:
            difference = geometry_difference(facts.grid, reference.grid)
        else:
            difference = None
        difference = difference or spacing_difference(facts.spacing, reference.spacing)
        if difference is not None:
            yield Finding(
                path,
                f"{difference} of {first.name}",
                f"Resample the {what} to the grid of {first.name}",
                # nnU-Net reads channels of other voxel sizes as little as of other shapes.
                may_be_meant=facts.shape == reference.shape
                and (what == "label" or spacing_difference(facts.spacing, reference.spacing) is None),
            )
