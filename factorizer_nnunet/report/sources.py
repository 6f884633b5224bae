"""Where references and images of the cases are: in folders the user names, or in those of nnU-Net."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Sources:
    """Folders to look in; those of nnU-Net are looked in after those given, and may be missing."""

    references: Path | None = None
    images: Path | None = None
    dataset_json: Path | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def references_of(self, dataset: str, crossed: bool) -> list[Path]:
        """Folders that may hold references of a data set, likeliest first: training labels for a cross-validation."""
        raw = self._folder("nnUNet_raw", dataset)
        preprocessed = self._folder("nnUNet_preprocessed", dataset)
        parts = ("labelsTr", "labelsTs") if crossed else ("labelsTs", "labelsTr")
        places = [] if raw is None else [raw / part for part in parts]
        places += [] if preprocessed is None else [preprocessed / "gt_segmentations"]
        return [*([] if self.references is None else [self.references]), *places]

    def images_of(self, dataset: str, case: str, channels: int, ending: str, reference: Path) -> tuple[Path, ...]:
        """Files of all channels of a case, () where no folder has them all."""
        raw = self._folder("nnUNet_raw", dataset)
        beside = reference.parent.with_name(reference.parent.name.replace("labels", "images"))
        places = [] if self.images is None else [self.images]
        places += [beside] + ([] if raw is None else [raw / "imagesTr", raw / "imagesTs"])
        for place in places:
            files = tuple(place / f"{case}_{channel:04d}{ending}" for channel in range(channels))
            if files and all(file.is_file() for file in files):
                return files
        return ()

    def _folder(self, variable: str, dataset: str) -> Path | None:
        root = self.environment.get(variable, "")
        return Path(root) / dataset if root and dataset else None
