"""Build trees of releases, and record their contents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
from nifti_files import BRATS_AFFINE, labels, write

SHAPE = (12, 10, 8)


@dataclass
class Tree:
    """A built tree: expected files and patient of each case, by its name in nnU-Net.

    Names are spelled as in the release, whatever the spelling of the files.
    """

    source: Path
    images: dict[str, tuple[Path, ...]] = field(default_factory=dict)  # of all cases, in the order of default channels
    labels: dict[str, Path] = field(default_factory=dict)  # of the training cases
    patients: dict[str, str] = field(default_factory=dict)

    @property
    def unlabelled(self) -> set[str]:
        """The unlabelled cases."""
        return set(self.images) - set(self.labels)


@dataclass
class Builder:
    """Writes files of a release to a tree, with the requested spelling."""

    tree: Tree
    spelled: Callable[[str], str] = str  # of all folders and file names
    ending: str | None = None  # instead of the release's
    nested: bool = False  # below folders that unpackers make, roots doubled

    def path(self, relative: str, ending: str) -> Path:
        """Path of the file ``relative`` + ``ending``."""
        name = self.spelled(relative) + (self.ending or ending)
        below = f"download (1)/{name.split('/', 1)[0]}" if self.nested else ""
        return self.tree.source / below / name

    def nifti(self, relative: str, values: np.ndarray, affine: np.ndarray, ending: str, **how: object) -> Path:
        """Write one file; ``how`` as in ``write``."""
        return write(self.path(relative, ending), values, affine, **how)

    def case(
        self,
        name: str,
        images: dict[str, np.ndarray],
        label: tuple[str, np.ndarray] | None,
        *,
        affine: np.ndarray = BRATS_AFFINE,
        ending: str = ".nii.gz",
        patient: str | None = None,
    ) -> None:
        """Write a case: images by their relative paths without ending, and the label's path and voxels."""
        self.tree.images[name] = tuple(self.nifti(file, values, affine, ending) for file, values in images.items())
        if label is not None:
            self.tree.labels[name] = self.nifti(label[0], label[1], affine, ending)
        self.tree.patients[name] = patient or name

    def label(self, name: str, relative: str, values: tuple[int, ...], ending: str = ".nii.gz") -> None:
        """Write another label of a case, which must be used instead of the first."""
        shape = SHAPE if name not in self.tree.images else nibabel.load(self.tree.images[name][0]).shape[:3]
        self.tree.labels[name] = self.nifti(relative, labels(relative, shape, values), BRATS_AFFINE, ending)

    def text(self, relative: str, content: str) -> None:
        """Write a text file of the release, with the byte order mark of spreadsheet programs."""
        path = self.path(relative, "").with_name(self.spelled(Path(relative).name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8-sig")

    def extra(self, *relative: str) -> None:
        """Write files that are not NIfTI and must be ignored, whatever their names."""
        for name in relative:
            path = self.path(name, "").with_name(Path(name).name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not an image")
