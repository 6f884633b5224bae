"""Find and convert the cases of trees, and compare them with the built trees."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from tree_builder import Tree

from factorizer_nnunet.dataset_conversion.cases import FoundCases
from factorizer_nnunet.dataset_conversion.convert import Converted, convert_release
from factorizer_nnunet.dataset_conversion.discover import find_cases, list_files
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.releases import RELEASES

OPTIONS = Options(dataset_id=137)


def convert(key: str, source: Path, raw: Path, options: Options = OPTIONS) -> Converted:
    return convert_release(RELEASES[key], list_files([source]), raw, options)


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


def find(key: str, *sources: Path, channels: tuple[str, ...] | None = None) -> FoundCases:
    """Find the cases of the release ``key`` below ``sources`` as ``convert`` does."""
    release = RELEASES[key]
    return find_cases(release, list_files(sources), release.chosen_channels(channels))


def check_all_found(found: FoundCases, tree: Tree) -> None:
    """Compare the found cases with the built tree; names are compared case-insensitively."""
    assert [str(problem) for problem in found.problems] == []
    cases = {case.name.casefold(): case for case in found.cases}
    assert set(cases) == {name.casefold() for name in tree.images}
    for name, images in tree.images.items():
        case = cases[name.casefold()]
        assert case.images == images
        assert case.label == tree.labels.get(name)
        assert case.patient.casefold() == tree.patients[name].casefold()
