"""The conversion report as `to-challenge` uses it: checked where it is read, since its names become names of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.path_names import path_component
from factorizer_nnunet.dataset_conversion.spec import LabelMap

FIX = "Convert the data set again"


@dataclass(frozen=True)
class WrittenCase:
    """A converted case."""

    fields: Mapping[str, str]  # for the names of a submission; each is one component of a path
    grid_image: Path  # the image that defines the grid of the label
    is_labelled: bool


@dataclass(frozen=True)
class WrittenReport:
    """What a submission needs to know about a converted data set."""

    release: str
    back: LabelMap  # from written label values to those of the release
    cases: Mapping[str, WrittenCase]


def read_written_report(file: Path) -> WrittenReport:
    """Read a conversion report.

    Raises:
        UserError: it cannot be read, is damaged, or has names that lead to other folders.
    """
    content = load_json_object(file, FIX)
    try:
        back = {int(old): int(new) for old, new in content["label_map_back"].items()}
        if any(not 0 <= value < 256 for value in (*back, *back.values())):
            raise ValueError("label_map_back has values that are not labels")
        cases = {path_component(name, f"{file}: a case"): _case(file, one) for name, one in content["cases"].items()}
        return WrittenReport(str(content["release"]), LabelMap(back), cases)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error!r}). {FIX}") from error


def _case(file: Path, case: Mapping[str, Any]) -> WrittenCase:
    fields = {str(key): path_component(value, f"{file}: {key}") for key, value in case["fields"].items()}
    channel = case["grid_channel"]
    if not isinstance(channel, int) or channel < 0:
        raise ValueError(f"grid_channel {channel!r}")
    image = case["images"][channel]["file"]
    if not isinstance(image, str):
        raise TypeError(f"image file {image!r}")
    parts = [path_component(part, f"{file}: an image") for part in image.split("/")]
    return WrittenCase(fields, file.parent.joinpath(*parts), case["label"] is not None)
