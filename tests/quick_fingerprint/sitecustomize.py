"""Python reads this at the start of the commands of ``workspace``: nnU-Net's fingerprint draws fewer voxels there.

It draws 10⁸ from all cases, of few small ones each voxel thousands of times, which takes long and gigabytes of memory.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULE = "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor"


class _Finder(MetaPathFinder):
    """Finds the module as usual, and changes the number once it has been imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None and spec.loader is not None
        import_module = spec.loader.exec_module

        def import_and_change(module: ModuleType) -> None:
            import_module(module)
            _draw_fewer(module.DatasetFingerprintExtractor)

        spec.loader.exec_module = import_and_change  # type: ignore[method-assign]
        return spec


def _draw_fewer(extractor: type) -> None:
    original = extractor.__init__  # type: ignore[misc]

    def with_few_voxels(self: object, *args: object, **options: object) -> None:
        original(self, *args, **options)
        self.num_foreground_voxels_for_intensitystats = 1e4  # type: ignore[attr-defined]

    extractor.__init__ = with_few_voxels  # type: ignore[misc]


sys.meta_path.insert(0, _Finder())
