"""Conversions of trees, as tests make them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from factorizer_nnunet.dataset_conversion.catalog import RELEASES
from factorizer_nnunet.dataset_conversion.convert import Converted, convert_release
from factorizer_nnunet.dataset_conversion.discover import list_files
from factorizer_nnunet.dataset_conversion.options import Options

OPTIONS = Options(dataset_id=137)


def convert(key: str, source: Path, raw: Path, options: Options = OPTIONS) -> Converted:
    return convert_release(RELEASES[key], list_files([source]), raw, options)


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)
