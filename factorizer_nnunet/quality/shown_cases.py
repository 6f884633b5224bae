"""The cases of a folder of predictions as a viewer shows them: images, segmentation and maps of uncertainty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.wording import lengths
from factorizer_nnunet.imaging.display_grid import display_grid, to_uint8
from factorizer_nnunet.nnunet.dataset_json import CHANNELS_KEY, DISPLAY_KEY, DatasetJson
from factorizer_nnunet.nnunet.image_files import image_name, images_by_case
from factorizer_nnunet.nnunet.model_folder import PREDICTION_FILE
from factorizer_nnunet.nnunet.prediction_record import changed_images
from factorizer_nnunet.pages.viewer import ShownCase, ShownMap
from factorizer_nnunet.prediction.uncertainty import DISAGREEMENT, ENTROPY, MAPS_FOLDER, map_file
from factorizer_nnunet.report.case_volumes import CaseVolumes, read_image, read_volumes
from factorizer_nnunet.report.results import ResultCase

_MAP_SIDE = 96  # voxels of a map's longest side


@dataclass(frozen=True)
class ShownFiles:
    """The files of a case.

    Attributes:
        images: by the number of their channel; a case may lack some.
        segmentation: the prediction.
        maps: by name.
        changed: images that are not those that were predicted from, such as "a_0000.nii.gz (removed)".
    """

    images: Mapping[int, Path]
    segmentation: Path
    maps: Mapping[str, Path]
    changed: tuple[str, ...]


def files_of(folder: Path, names: Sequence[str], file_ending: str) -> dict[str, ShownFiles]:
    """The files of these cases in a folder of predictions.

    Raises:
        UserError: the folder's record, which names the folder of the images, cannot be read.
    """
    record = load_json_object(folder / PREDICTION_FILE, "Predict again into an empty folder")
    images, _ = images_by_case(Path(str(record.get("images", ""))), file_ending)
    return {name: _files(folder, name, images.get(name, {}), file_ending) for name in names}


def _files(folder: Path, name: str, images: Mapping[int, Path], file_ending: str) -> ShownFiles:
    changes = changed_images(folder, name, images)
    maps = {one: folder / MAPS_FOLDER / map_file(name, one) for one in (ENTROPY, DISAGREEMENT)}
    return ShownFiles(
        dict(sorted(images.items())),
        folder / f"{name}{file_ending}",
        {one: file for one, file in maps.items() if file.is_file()},
        tuple(f"{image_name(name, number, file_ending)} ({change})" for number, change in changes.items()),
    )


def shown_cases(files: Mapping[str, ShownFiles], dataset: DatasetJson) -> Iterator[ShownCase]:
    """The cases, numbered in this order, each read when it is asked for.

    Args:
        files: by case.
        dataset: what labels and channels mean.

    Raises:
        UserError: files of a case cannot be shown.
    """
    for number, (case, own) in enumerate(files.items()):
        try:
            yield _shown_case(number, case, own, dataset)
        except (OSError, RuntimeError, ValueError) as error:  # SimpleITK raises the second
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{case} cannot be shown: {reason}. Remove its files and predict it again") from error


def _shown_case(number: int, case: str, own: ShownFiles, dataset: DatasetJson) -> ShownCase:
    # A prediction has no reference: it takes its place, under its own name.
    result = ResultCase(case, own.segmentation, own.segmentation, tuple(own.images.values()))
    read = read_volumes(result, {}, _with_channels(dataset, list(own.images)), None, True)
    (labels,) = read.segmentations.values()
    maps = [_map(name, file, read) for name, file in own.maps.items()]
    return replace(read, segmentations={"prediction": labels}).in_viewer(number, maps)


def _with_channels(dataset: DatasetJson, numbers: Sequence[int]) -> DatasetJson:
    """The description of cases that have only these channels, so that each keeps its name."""
    names, display = dataset.channel_names, dataset.display_channel
    own = {str(n): names[number] if number < len(names) else f"channel {number}" for n, number in enumerate(numbers)}
    shown = numbers.index(display) if display in numbers else ""
    return replace(dataset, content={**dataset.content, CHANNELS_KEY: own, DISPLAY_KEY: shown})


def _map(name: str, file: Path, read: CaseVolumes) -> ShownMap:
    values, _ = read_image(file)
    if values.shape != read.file_size:
        raise ValueError(f"{file} has {lengths(values.shape)} voxels, the segmentation {lengths(read.file_size)}")
    box = tuple(slice(first, first + size) for first, size in zip(read.first, read.grid.size, strict=True))
    grid = display_grid(read.grid, _MAP_SIDE)
    return ShownMap(name, to_uint8(grid.resample(values[box]), 0.0, 1.0), "1")
