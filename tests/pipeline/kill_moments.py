"""When ``test_killed_run`` kills: which change on disk it waits for, and how long after that."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

EPOCHS = 3
ITERATIONS = 20  # of each epoch: enough to learn the blobs, where the pair of models beats either


@dataclass
class Seen:
    """Files of the run that are new or have changed since it was started."""

    root: Path
    before: dict[Path, int] = field(init=False)

    def __post_init__(self) -> None:
        self.before = dict(self._sizes("**/*"))

    def changed(self, pattern: str) -> list[Path]:
        """Files of a glob pattern below the root that are new or have another size."""
        return [path for path, size in self._sizes(pattern) if self.before.get(path) != size]

    def _sizes(self, pattern: str) -> Iterator[tuple[Path, int]]:
        for path in self.root.glob(pattern):
            try:
                yield path, path.stat().st_size
            except OSError:  # removed meanwhile
                continue


@dataclass(frozen=True)
class Moment:
    """A name to show, the change to wait for, and the longest delay before the kill."""

    name: str
    has_come: Callable[[Seen], bool]
    delay_seconds: float


def moments(rng: random.Random) -> list[Moment]:
    """Twenty moments in an order in which they can happen; those during training are shuffled."""
    fold = "nnUNet_results/*/*/fold_*"
    preprocessed = "nnUNet_preprocessed/*"
    before = [
        _log("fingerprint", "fingerprint", 12),
        _log("planning", "plan.*", 8),
        _log("preprocessing begins", "preprocess.*", 6),
        _file("preprocessing writes cases", f"{preprocessed}/*_*/*.pkl", 0.2),
        _file("labels are copied", f"{preprocessed}/gt_segmentations/*", 0),
    ]
    during = [
        *(_epoch(epoch) for epoch in (0, 1, 2, rng.randrange(EPOCHS))),
        *[_file("checkpoint is written", f"{fold}/*.draft", 0)] * 3,
        _file("last checkpoint appears", f"{fold}/checkpoint_final.pth", 0),
        _file("validation writes probabilities", f"{fold}/validation/*.npz", 0.2),
        _file("validation is scored", f"{fold}/validation/summary.json", 0),
    ]
    rng.shuffle(during)
    after = [
        _log("best configuration is sought", "find_best_configuration", 15),
        _log("prediction begins", "predict", 12),
        _file("prediction writes a case", "nnUNet_results/*/factorizer_run/predictions/*/*/*.nii.gz", 0.2),
        _log("both models predict", "predict", 20),
        _log("postprocessing", "postprocess", 8),
    ]
    return [*before, *during, *after]


def _log(name: str, step: str, delay: float) -> Moment:
    """Some time after the log of a step has appeared."""
    return _file(name, f"nnUNet_results/*/factorizer_run/logs/{step}.log", delay)


def _file(name: str, pattern: str, delay: float) -> Moment:
    return Moment(name, lambda seen: bool(seen.changed(pattern)), delay)


def _epoch(epoch: int) -> Moment:
    """During an epoch, according to the new log of a training."""

    def has_come(seen: Seen) -> bool:
        logs = seen.changed("nnUNet_results/*/*/fold_*/training_log_*.txt")
        return any(f"Epoch {epoch}" in log.read_text(encoding="utf-8", errors="replace") for log in logs)

    return Moment(f"epoch {epoch}", has_come, 0.3)
