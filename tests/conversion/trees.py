"""Small trees laid out and named as releases are, with their oddities; written from their descriptions, not from our
declarations, which they test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tree_builder import Builder, Tree
from trees_brats import BRATS_TREES
from trees_isles import ISLES_TREES

TREES: dict[str, Callable[[Builder], None]] = {**BRATS_TREES, **ISLES_TREES}


def build_tree(
    key: str,
    source: Path,
    *,
    spelled: Callable[[str], str] = str,
    ending: str | None = None,
    nested: bool = False,
) -> Tree:
    """Build the tree of a release below the new folder ``source``.

    Args:
        key: of the release, as the user names it.
        source: what a user would give to convert.
        spelled: applied to the names of folders and files, such as ``str.upper``.
        ending: of all NIfTI files, ".nii" or ".nii.gz", instead of that of the release.
        nested: puts all below further folders, as unpackers do.
    """
    source.mkdir(parents=True)
    tree = Tree(source)
    TREES[key](Builder(tree, spelled, ending, nested))
    return tree
