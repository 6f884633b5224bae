"""Folders with the references and images of the cases: given by the user, or nnU-Net's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.nnunet.image_files import image_name
from factorizer_nnunet.nnunet.names import LABEL_FOLDER


@dataclass(frozen=True)
class Sources:
    """Folders to search, before those of nnU-Net, which may be missing."""

    references: Path | None = None
    images: Path | None = None
    dataset_json: Path | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def references_of(self, dataset: str, crossed: bool) -> list[Path]:
        """Folders that may contain references, likeliest first: training labels for a cross-validation."""
        raw = self._folder("nnUNet_raw", dataset)
        preprocessed = self._folder("nnUNet_preprocessed", dataset)
        parts = ("labelsTr", "labelsTs") if crossed else ("labelsTs", "labelsTr")
        places = [] if raw is None else [raw / part for part in parts]
        places += [] if preprocessed is None else [preprocessed / LABEL_FOLDER]
        return [*([] if self.references is None else [self.references]), *places]

    def images_of(self, dataset: str, case: str, channels: int, ending: str, reference: Path) -> tuple[Path, ...]:
        """Files of all channels of a case; empty if no folder has them all."""
        raw = self._folder("nnUNet_raw", dataset)
        sibling = reference.parent.with_name(reference.parent.name.replace("labels", "images"))
        places = [] if self.images is None else [self.images]
        places += [sibling] + ([] if raw is None else [raw / "imagesTr", raw / "imagesTs"])
        for place in places:
            files = tuple(place / image_name(case, channel, ending) for channel in range(channels))
            if files and all(file.is_file() for file in files):
                return files
        return ()

    def _folder(self, variable: str, dataset: str) -> Path | None:
        root = self.environment.get(variable, "")
        return Path(root) / dataset if root and dataset else None
