"""The demo's folder: the paths in it, what it was made with, and who may work in it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.nnunet.environment import create_folders
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import template_plans_name
from factorizer_nnunet.running.paths import Folders, RunPaths

DATASET_ID = 999
DATASET_NAME = "SyntheticBraTS2021"
CONFIGURATION = "3d_fullres"


@dataclass(frozen=True)
class Arguments:
    """What the results depend on; a folder contains the demo of one set of arguments."""

    patients: int
    seed: int
    trainer: str
    template: str = "demo"  # so small that a CPU trains it in minutes


@dataclass(frozen=True)
class DemoFolder:
    """All paths of a demo in the folder `out`, which is absolute."""

    out: Path
    arguments: Arguments

    @property
    def source(self) -> Path:
        """The synthetic patients, laid out as a BraTS 2021 download."""
        return self.out / "brats2021"

    @property
    def references(self) -> Path:
        """Labels of the held-out patients."""
        return self.source / "truth"

    @property
    def run(self) -> RunPaths:
        """The files of `factorizer-nnunet run`."""
        folders = Folders(self.out / "nnUNet_raw", self.out / "nnUNet_preprocessed", self.out / "nnUNet_results")
        return RunPaths(folders, f"Dataset{DATASET_ID:03d}_{DATASET_NAME}")

    @property
    def model(self) -> Path:
        """The folder of the trained folds."""
        model = ModelName(self.arguments.trainer, template_plans_name(self.arguments.template), CONFIGURATION)
        return self.run.model(model).path

    @property
    def predictions(self) -> Path:
        """The held-out patients as the mean of all folds segments them."""
        return self.out / "predictions"

    @property
    def results(self) -> Path:
        """All numbers; written last, so that it marks a finished demo."""
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


@contextlib.contextmanager
def opened(out: Path, arguments: Arguments) -> Iterator[DemoFolder]:
    """Use the folder `out` for a demo with `arguments`, new or begun before, and lock it against a second process.

    Raises:
        UserError: `out` contains something else or a demo with other arguments, or another process works in it.
    """
    folder = DemoFolder(Path(os.path.abspath(out.expanduser())), arguments)
    _refuse_foreign(folder)
    try:
        folder.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
    with file_lock(folder.out / ".lock", f"another demo is running in {out}; wait for it or choose another --out"):
        write_text_atomically(folder.out / "demo.json", json.dumps(asdict(arguments), indent=4) + "\n")
        create_folders(folder.out)
        yield folder


def _refuse_foreign(folder: DemoFolder) -> None:
    out, description = folder.out, folder.out / "demo.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder with --out")
    if not description.is_file():  # the demo writes it before everything else
        if out.is_dir() and any(path.name != ".lock" for path in out.iterdir()):
            raise UserError(f"{out} contains files of something else; choose an empty or new folder with --out")
        return
    before = load_json_object(description, f"Remove {out} or choose another --out")
    now = asdict(folder.arguments)
    if before != now:
        changed = [f"{key} {before.get(key)!r} then, {now[key]!r} now" for key in now if before.get(key) != now[key]]
        raise UserError(
            f"{out} contains a demo made with other arguments ({'; '.join(changed)}): repeat them to continue it, "
            "choose another --out, or remove the folder"
        )
