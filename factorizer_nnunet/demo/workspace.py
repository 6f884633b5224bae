"""The demo's folder: every path in it, what is finished there, and who may work in it.

What is finished is read from files: a stamp below `done/`, written last, together with the step's outputs. Nothing is
remembered elsewhere, so that a killed demo goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from factorizer_nnunet.core.atomic_files import file_lock, write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.names import PLANS

DATASET_ID = 999
DATASET_NAME = "SyntheticBraTS2021"
CONFIGURATION = "3d_fullres"
FOLDS = range(5)


@dataclass(frozen=True)
class Arguments:
    """What the results depend on; a folder holds the demo of one set of arguments."""

    patients: int
    seed: int
    trainer: str


@dataclass(frozen=True)
class Workspace:
    """All paths of a demo in the folder `out`, which is absolute."""

    out: Path
    arguments: Arguments

    @property
    def source(self) -> Path:
        return self.out / "brats2021"

    @property
    def truth(self) -> Path:
        return self.source / "truth"

    @property
    def raw(self) -> Path:
        return self.out / "nnUNet_raw"

    @property
    def dataset(self) -> Path:
        return self.raw / self.dataset_folder

    @property
    def dataset_folder(self) -> str:
        return f"Dataset{DATASET_ID:03d}_{DATASET_NAME}"

    @property
    def preprocessed(self) -> Path:
        return self.out / "nnUNet_preprocessed" / self.dataset_folder

    @property
    def plans_file(self) -> Path:
        return self.preprocessed / f"{PLANS}.json"

    @property
    def logs(self) -> Path:
        return self.out / "logs"

    @property
    def results(self) -> Path:
        return self.out / "results.json"

    @property
    def table(self) -> Path:
        return self.out / "results.md"

    @property
    def figure(self) -> Path:
        return self.out / "figure.png"

    @property
    def report(self) -> Path:
        return self.out / "report.html"

    @property
    def ensemble(self) -> Path:
        return self.out / "predictions" / "ensemble"

    def model(self, fold: int) -> Path:
        """The folder in which nnU-Net trains `fold`."""
        trained = f"{self.arguments.trainer}__{PLANS}__{CONFIGURATION}"
        return self.out / "nnUNet_results" / self.dataset_folder / trained / f"fold_{fold}"

    def prediction(self, fold: int) -> Path:
        """The folder of held-out patients as `fold` alone segments them."""
        return self.out / "predictions" / f"fold_{fold}"

    def is_done(self, name: str, outputs: Sequence[Path]) -> bool:
        """Whether the step `name` ended well and its outputs are still there."""
        return self._stamp(name).is_file() and all(path.exists() for path in outputs)

    def mark_done(self, name: str, seconds: float) -> None:
        """Note that the step `name` ended well."""
        write_text_atomically(self._stamp(name), json.dumps({"seconds": round(seconds, 1)}) + "\n")

    def seconds(self) -> dict[str, float]:
        """How long each finished step took, in seconds of wall time."""
        stamps = sorted((self.out / "done").glob("[!.]*.json"))
        return {stamp.stem: json.loads(stamp.read_text(encoding="utf-8"))["seconds"] for stamp in stamps}

    def _stamp(self, name: str) -> Path:
        return self.out / "done" / f"{name}.json"


@contextlib.contextmanager
def opened(out: Path, arguments: Arguments) -> Iterator[Workspace]:
    """Take the folder `out` for a demo with `arguments`, new or begun before, and hold it against a second process.

    Raises:
        UserError: `out` holds something else, a demo with other arguments, or another process works in it.
    """
    workspace = Workspace(Path(os.path.abspath(out.expanduser())), arguments)
    _refuse_foreign(workspace)
    try:
        for folder in ("done", "logs", "predictions", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (workspace.out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
    with file_lock(workspace.out / ".lock", f"another demo is running in {out}; wait for it or choose another --out"):
        write_text_atomically(workspace.out / "demo.json", json.dumps(asdict(arguments), indent=4) + "\n")
        yield workspace


def _refuse_foreign(workspace: Workspace) -> None:
    out, description = workspace.out, workspace.out / "demo.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder with --out")
    if not description.is_file():
        # The demo writes its description first, into a folder that holds only its own empty ones.
        if out.is_dir() and any(path.is_file() and path.name != ".lock" for path in out.rglob("*")):
            raise UserError(f"{out} holds files that are not of this demo; choose an empty or new folder with --out")
        return
    try:
        there = json.loads(description.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{description} cannot be read ({error}); remove {out} or choose another --out") from error
    here = asdict(workspace.arguments)
    if there != here:
        changed = [key for key in here if there.get(key) != here[key]]
        different = [f"{key} {there.get(key)!r} there, {here[key]!r} now" for key in changed]
        raise UserError(
            f"{out} holds a demo made with other arguments ({'; '.join(different)}): repeat them to go on with it, "
            "choose another --out, or remove the folder"
        )
