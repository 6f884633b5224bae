"""Write a corrected label as its file was: the same format, grid and type of values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from factorizer_nnunet.evaluation.reading import NIFTI, PIXELS, TIFF, read_labels
from factorizer_nnunet.imaging.volume import nifti_bytes, read_volume


def write_corrected(source: Path, labels: np.ndarray, target: Path) -> None:
    """Write labels with everything else as in a file.

    Args:
        source: the file that the labels were read from with ``read_labels``.
        labels: integers of the shape that ``read_labels`` gives.
        target: to write, with the same ending.

    Raises:
        OSError: the file cannot be written, or reads back as other labels.
    """
    name = source.name.lower()
    kind = np.min_scalar_type(int(labels.max(initial=0)))  # values of a label are never negative
    if name.endswith(PIXELS):
        _write_pixels(source, labels, target)
    elif name.endswith(NIFTI[0]) and not read_volume(source, flat=True).flat:
        target.write_bytes(nifti_bytes(labels.astype(kind), read_volume(source).header))
    else:
        original = sitk.ReadImage(str(source))
        image = sitk.GetImageFromArray(np.ascontiguousarray(labels.T).astype(kind))
        image.CopyInformation(original)
        sitk.WriteImage(image, str(target), useCompression=not name.endswith(NIFTI[1]))
    if not np.array_equal(read_labels(target).labels, labels):
        raise OSError(f"{target}: what was written reads back as other labels")


def _write_pixels(source: Path, labels: np.ndarray, target: Path) -> None:
    # Imported here: the other formats do not need them.
    import tifffile
    from skimage import io

    pixels = np.ascontiguousarray(labels.T).astype(read_labels(source).labels.dtype)
    if source.name.lower().endswith(TIFF):
        tifffile.imwrite(target, pixels)
    else:
        io.imsave(target, pixels, check_contrast=False)
