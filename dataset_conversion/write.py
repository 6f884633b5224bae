"""Write checked cases in nnU-Net's raw layout (nnU-Net, documentation/dataset_format.md)."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.dataset_conversion.discover import Case
from factorizer_nnunet.dataset_conversion.spec import Release
from factorizer_nnunet.dataset_conversion.volume import GZIP_MAGIC, integer_labels

FILE_ENDING = ".nii.gz"


def write_case(release: Release, case: Case, folder: Path) -> None:
    """Write one case below `folder`: images to imagesTr and its label to labelsTr, or without label to imagesTs."""
    images = folder / ("imagesTs" if case.label is None else "imagesTr")
    images.mkdir(exist_ok=True)
    for number, path in enumerate(case.images):
        copy_image(path, images / f"{case.id}_{number:04d}{FILE_ENDING}")
    if case.label is not None:
        (folder / "labelsTr").mkdir(exist_ok=True)
        write_label(release, case.label, folder / "labelsTr" / f"{case.id}{FILE_ENDING}")


def copy_image(source: Path, target: Path) -> None:
    """Copy a NIfTI file byte for byte; one that is not compressed, whatever its name, is compressed on the way."""
    with source.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    if compressed:
        shutil.copyfile(source, target)
        return
    with source.open("rb") as file, gzip.open(target, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(file, packed)


def write_label(release: Release, source: Path, target: Path) -> None:
    """Write a label with the release's values mapped to nnU-Net's, uint8, on the source's grid."""
    image = sitk.ReadImage(str(source))
    mapped = sitk.GetImageFromArray(release.labels.apply(integer_labels(sitk.GetArrayFromImage(image))))
    mapped.CopyInformation(image)
    try:
        sitk.WriteImage(mapped, str(target), useCompression=True)
    except RuntimeError as error:  # SimpleITK's word for a full disk, among others
        raise OSError(f"{target.name} cannot be written") from error


def dataset_json(release: Release, name: str, num_training: int) -> dict[str, Any]:
    """Return the content of dataset.json; the order of regions matters to nnU-Net and is kept."""
    return {
        "channel_names": {str(number): channel.name for number, channel in enumerate(release.channels)},
        "labels": {"background": 0, **{region: list(values) for region, values in release.regions.items()}},
        "regions_class_order": list(release.regions_class_order),
        "numTraining": num_training,
        "file_ending": FILE_ENDING,
        "name": name,
        "release": release.title,
        "licence": release.licence,
        "reference": release.reference,
        "converted_by": "factorizer_nnunet",
    }


def write_dataset_json(release: Release, name: str, num_training: int, folder: Path) -> None:
    """Write dataset.json into `folder`."""
    text = json.dumps(dataset_json(release, name, num_training), indent=4)
    (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")
