"""Folders with the references and images of the cases: given by the user, or nnU-Net's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.nnunet.image_files import image_name
from factorizer_nnunet.nnunet.names import LABEL_FOLDER


@dataclass(frozen=True)
class Sources:
    """Folders of references and images that a user names; None: those of nnU-Net, which may be missing.

    Where a folder is named, no other is searched: a case that it lacks must not get the file that it should replace.
    """

    references: Path | None = None
    images: Path | None = None
    dataset_json: Path | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def problems(self) -> Iterator[str]:
        """Named folders that do not exist."""
        for option, folder in (("--references", self.references), ("--images", self.images)):
            if folder is not None and not folder.is_dir():
                yield f"{option} {folder}: this folder does not exist. Correct the path"

    def references_of(self, dataset: str, crossed: bool) -> list[Path]:
        """Folders that may contain references, likeliest first: training labels for a cross-validation."""
        if self.references is not None:
            return [self.references]
        raw = self._folder("nnUNet_raw", dataset)
        preprocessed = self._folder("nnUNet_preprocessed", dataset)
        parts = ("labelsTr", "labelsTs") if crossed else ("labelsTs", "labelsTr")
        places = [] if raw is None else [raw / part for part in parts]
        places += [] if preprocessed is None else [preprocessed / LABEL_FOLDER]
        return places

    def images_of(self, dataset: str, case: str, channels: int, ending: str, reference: Path) -> tuple[Path, ...]:
        """Files of all channels of a case; empty if no folder has them all."""
        raw = self._folder("nnUNet_raw", dataset)
        sibling = reference.parent.with_name(reference.parent.name.replace("labels", "images"))
        places = [sibling] + ([] if raw is None else [raw / "imagesTr", raw / "imagesTs"])
        if self.images is not None:
            places = [self.images]
        for place in places:
            files = tuple(place / image_name(case, channel, ending) for channel in range(channels))
            if files and all(file.is_file() for file in files):
                return files
        return ()

    def _folder(self, variable: str, dataset: str) -> Path | None:
        root = self.environment.get(variable, "")
        return Path(root) / dataset if root and dataset else None
