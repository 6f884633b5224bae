"""Find the cases of a tree, and compare them with what was built."""

from __future__ import annotations

from pathlib import Path

from tree_builder import Tree

from factorizer_nnunet.dataset_conversion.cases import Found
from factorizer_nnunet.dataset_conversion.catalog import RELEASES
from factorizer_nnunet.dataset_conversion.discover import find_cases, list_files


def find(key: str, *sources: Path, channels: tuple[str, ...] | None = None) -> Found:
    """Find what ``convert`` would, of the release ``key`` below ``sources``."""
    release = RELEASES[key]
    return find_cases(release, list_files(sources), release.chosen_channels(channels))


def check_all_found(found: Found, tree: Tree) -> None:
    """Compare what was found with what was built, names without regard to case."""
    assert [str(problem) for problem in found.problems] == []
    cases = {case.name.casefold(): case for case in found.cases}
    assert set(cases) == {name.casefold() for name in tree.images}
    for name, images in tree.images.items():
        case = cases[name.casefold()]
        assert case.images == images
        assert case.label == tree.labels.get(name)
        assert case.patient.casefold() == tree.patients[name].casefold()
