"""What ``dataset.json`` must say for nnU-Net to read a dataset as its author means it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES, recursive_find_reader_writer_by_name
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import (
    ABSENT_KEY,
    CASES_KEY,
    CHANNELS_KEY,
    ENDING_KEY,
    LABELS_KEY,
    OLD_CHANNELS_KEY,
    READER_KEY,
    REGIONS_ORDER_KEY,
    DatasetJson,
)

_FORMAT = "as nnU-Net's dataset_format.md describes"


def declaration_problems(description: DatasetJson) -> Iterator[str]:
    """All that is wrong with the file itself, each with its fix; nothing if the other files can be listed."""
    json_file, content = description.path, description.content
    missing = [key for key in (LABELS_KEY, CASES_KEY, ENDING_KEY) if key not in content]
    if CHANNELS_KEY not in content and OLD_CHANNELS_KEY not in content:
        missing.insert(0, CHANNELS_KEY)
    if missing:
        yield f"{json_file} lacks {', '.join(missing)}. Add what is missing {_FORMAT}"
    yield from _channel_problems(description)
    ending = content.get(ENDING_KEY, ".nii.gz")
    if not isinstance(ending, str) or not ending.startswith("."):
        yield f'{json_file}: file_ending must be a text such as ".nii.gz", not {ending!r}. Correct it'
    cases = content.get(CASES_KEY, 1)
    if not isinstance(cases, int) or isinstance(cases, bool) or cases < 1:
        yield f"{json_file}: numTraining must be the number of training cases, not {cases!r}. Correct it"
    reader = content.get(READER_KEY, "None")
    if reader != "None" and (not isinstance(reader, str) or not _is_reader(reader)):
        known = ", ".join(one.__name__ for one in LIST_OF_IO_CLASSES)
        yield f"{json_file}: {READER_KEY} {reader!r} is not a reader of nnU-Net ({known}). Correct or remove it"
    try:
        _ = description.absent_channels
    except UserError as error:
        if ABSENT_KEY in content and ABSENT_KEY in str(error):
            yield str(error)
    if LABELS_KEY in content:
        yield from _label_problems(description)


def _channel_problems(description: DatasetJson) -> Iterator[str]:
    json_file = description.path
    key = CHANNELS_KEY if CHANNELS_KEY in description.content else OLD_CHANNELS_KEY
    channels = description.content.get(key, {"0": "image"})
    if not isinstance(channels, dict) or not channels:
        yield f'{json_file}: {key} must map numbers to names, such as {{"0": "T1"}}, not {channels!r}. Correct it'
        return
    if list(channels) != [str(number) for number in range(len(channels))]:
        yield (
            f"{json_file}: {key} has the numbers {', '.join(channels)}. Number the channels "
            f'"0" to "{len(channels) - 1}" in this order: nnU-Net takes the names in the order of the file, and '
            "chooses each channel's normalization by its name"
        )
    for number, name in channels.items():
        if not isinstance(name, str) or not name.strip():
            yield f'{json_file}: the name of channel "{number}" must be a text such as "T1", not {name!r}. Correct it'
        elif name != name.strip():
            yield (
                f'{json_file}: the name of channel "{number}", {name!r}, begins or ends with a space, so that nnU-Net '
                "does not recognise names such as CT. Remove the space"
            )


def _label_problems(description: DatasetJson) -> Iterator[str]:
    json_file, labels = description.path, description.content[LABELS_KEY]
    example = '{"background": 0, "tumor": 1}'
    if not isinstance(labels, dict):
        yield f"{json_file}: labels must map names to numbers, such as {example}, not {labels!r}. Correct them"
        return
    if all(name.isdecimal() and isinstance(value, str) for name, value in labels.items()):
        yield f"{json_file}: labels maps values to names, as before nnU-Net 2: turn them round, such as {example}"
        return
    if wrong_case := [name for name in labels if name != name.lower() and name.lower() in ("background", "ignore")]:
        yield f"{json_file}: write label {wrong_case[0]!r} in lower case, as nnU-Net expects it"
        return
    for name, value in labels.items():
        numbers = value if isinstance(value, list) else [value]
        if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
            yield f"{json_file}: label {name!r} must be an integer or a list of integers, not {value!r}. Correct it"
            return
    order = description.content.get(REGIONS_ORDER_KEY)
    regions = [name for name, value in labels.items() if name not in ("background", "ignore")]
    has_regions = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
    if has_regions and (not isinstance(order, list) or len(order) != len(regions)):
        yield (
            f"{json_file}: regions_class_order must be a list with one label value for each of the {len(regions)} "
            f"regions ({', '.join(regions)}), not {order!r}. Correct it {_FORMAT}"
        )
        return
    try:
        LabelManager(labels, order)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        yield (
            f"{json_file}: nnU-Net cannot use labels {labels}: {error}. Names map to numbers ({example}), regions to "
            "lists of numbers, which also need regions_class_order"
        )
        return
    if isinstance(order, list) and has_regions and (mixed_up := _values_mixed_up(description, order)):
        yield (
            f"{json_file}: with regions_class_order {order}, predictions would have {mixed_up}. Give for each region, "
            "in the order of labels, a value that lies in this region and in no later one; regions that contain others "
            "come first"
        )
        return
    values = sorted(description.label_values)
    if values != list(range(len(values))):
        yield (
            f"{json_file}: labels must be consecutive from 0 (background), not {values}. Renumber them there and in "
            "the label files"
        )


def _values_mixed_up(description: DatasetJson, order: list[int]) -> str:
    """Which values a perfect prediction writes as values of other regions, in words; empty if none.

    nnU-Net writes the value of each region over those of earlier ones.
    """
    regions = description.regions

    def regions_of(value: int) -> list[str]:
        return [name for name, values in regions.items() if value in values]

    wrong = []
    for value in sorted({value for values in regions.values() for value in values}):
        written = [number for number, values in zip(order, regions.values(), strict=True) if value in values][-1]
        if regions_of(written) != regions_of(value):
            wrong.append(f"the value {written} where {value} is meant ({' and '.join(regions_of(value))})")
    return ", ".join(wrong)


def _is_reader(name: str) -> bool:
    if re.fullmatch(r"\w+", name) is None:
        return False
    try:
        return recursive_find_reader_writer_by_name(name) is not None
    except RuntimeError:
        return False
