"""Random damage to everything that planning and training read: each is right, refused with a fix, or a warning.

Each round copies a small planned dataset, changes it, and runs what ``plan`` and the start of a training do, in this
process. A traceback or a hang fails, and so do preprocessed data that differ from those of planning from scratch.
``FACTORIZER_FUZZ=FIRST:ROUNDS`` runs other seeds; a failure names its seed.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import HangError, seed_and_rounds, time_limit
from in_process import use_threads
from nnunet_folders import use_folders_below
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from planning_example import write_image, write_json

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.folds import default_folds
from factorizer_nnunet.planning.dataset import plan_dataset
from factorizer_nnunet.training.trainer import nnUNetTrainerFactorizer

NAME, PLANS = "Dataset008_Fuzzed", "nnUNetFactorizerPlans"
SHAPE, CASES = (12, 14, 10), 5
ENDINGS = ("nii.gz", "nii.gz", "nii.gz", "nrrd")  # the format of each quarter of the seeds
SECONDS_A_ROUND = 60
FIRST, ROUNDS = seed_and_rounds(0, 48)
BUDGET_SECONDS = float("inf") if "FACTORIZER_FUZZ" in os.environ else 45.0

VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2, 10**9, 1e308, float("nan"), float("inf"), "", "x", "0", "é\ud800", [], [[]], {}, {"0": 1},
    [0, 1], "../x", "/", "nan", "\0", -0.5, 2**63, [None], {"a": {"b": []}},
)  # fmt: skip


def write_dataset(root: Path, ending: str) -> Path:
    """A raw dataset of five small cases with two channels."""
    raw = root / "nnUNet_raw" / NAME
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    rng = np.random.default_rng(1)
    for case in range(CASES):
        label = np.zeros(SHAPE, np.uint8)
        label[3:8, 4:10, 2 + case % 3 : 8] = 1
        label[4:6, 5:8, 4:6] = 2
        for channel in range(2):
            image = (rng.normal(size=SHAPE) * 20 + 100 + 50 * label).astype(np.int16 if channel else np.float32)
            write_image(raw / "imagesTr" / f"c{case}_{channel:04d}.{ending}", image)
        write_image(raw / "labelsTr" / f"c{case}.{ending}", label)
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "rim": 1, "core": 2},
        "numTraining": CASES,
        "file_ending": f".{ending}",
    }
    write_json(raw / "dataset.json", content)
    return raw


class Damage:
    """One random change of a dataset's files; ``done`` says which."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.raw, self.made = root / "nnUNet_raw" / NAME, root / "nnUNet_preprocessed" / NAME
        self.done: list[str] = []
        self.has_records = self.random.random() < 0.7
        if not self.has_records:  # as after stock commands
            shutil.rmtree(self.made / "factorizer_sources")
            self.done.append("no records")
        ways: list[Callable[[], None]] = [
            self.dataset_json, self.dataset_json, self.header, self.header, self.voxels, self.voxels, self.folds,
            self.folds, self.fingerprint, self.plans, self.plans, self.preprocessed, self.preprocessed, self.record,
            self.file, self.extra,
        ]  # fmt: skip
        for _ in range(self.random.choice((1, 1, 2))):
            self.random.choice(ways)()

    def dataset_json(self) -> None:
        self.json_file(self.random.choice((self.raw, self.raw, self.made)) / "dataset.json")

    def folds(self) -> None:
        self.json_file(self.made / "splits_final.json")

    def fingerprint(self) -> None:
        self.json_file(self.made / "dataset_fingerprint.json")

    def plans(self) -> None:
        self.json_file(self.made / f"{PLANS}.json")

    def record(self) -> None:
        files = (*self.made.glob("factorizer_sources/*.json"), self.made / "factorizer_data_check.json")
        self.json_file(self.random.choice(sorted(files)))

    def json_file(self, file: Path) -> None:
        """Replace, remove or move a value, or damage the text."""
        if not file.is_file():
            return
        if self.random.random() < 0.2:
            self.bytes_of(file)
            return
        try:
            content = json.loads(file.read_text())
        except ValueError:
            return
        holder, key = self.entry(content)
        what = self.random.choice(("value", "value", "delete", "number", "twice"))
        if holder is None:
            content = self.random.choice(VALUES)
        elif what == "delete":
            del holder[key]
        elif what == "number" and isinstance(holder[key], int | float):
            holder[key] = holder[key] * self.random.choice((-1, 0, 2, 1000, 1e-9, 1.5))
        elif what == "twice" and isinstance(holder, list):
            holder.append(holder[key])
        else:
            holder[key] = self.random.choice(VALUES)
        self.done.append(f"{file.name}: {what} at {key!r}")
        file.write_text(json.dumps(content))

    def entry(self, content: Any) -> tuple[Any, Any]:
        """A container somewhere in the content and one of its keys; (None, None) for the content itself."""
        holder, key = None, None
        while isinstance(content, dict | list) and content and (holder is None or self.random.random() < 0.7):
            holder = content
            keys = list(content) if isinstance(content, dict) else range(len(content))
            key = self.random.choice(keys)
            content = holder[key]
        return holder, key

    def bytes_of(self, file: Path) -> None:
        content = bytearray(file.read_bytes())
        what = self.random.choice(("cut", "flip", "empty", "add", "noise"))
        if what == "cut":
            content = content[: self.random.randrange(len(content) + 1)]
        elif what == "flip" and content:
            for _ in range(self.random.randint(1, 4)):
                content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        elif what == "add":
            content += self.random.randbytes(self.random.randint(1, 50))
        elif what == "noise":
            content = bytearray(self.random.randbytes(len(content)))
        else:
            content = bytearray()
        self.done.append(f"{file.name}: {what}")
        file.unlink()  # the file may be a hard link of the original
        file.write_bytes(content)

    def raw_file(self) -> Path:
        """One that an earlier change has not made a folder, a pipe or a link to nothing."""
        files = sorted((*self.raw.glob("imagesTr/*"), *self.raw.glob("labelsTr/*")))
        return self.random.choice([file for file in files if file.is_file()])

    def header(self) -> None:
        """Other values in the first 348 bytes, which are a NIfTI file's header."""
        file = self.raw_file()
        packed = file.suffix == ".gz"
        try:
            content = bytearray(gzip.decompress(file.read_bytes()) if packed else file.read_bytes())
        except (EOFError, OSError, zlib.error):
            return
        if len(content) < 348:
            return
        for _ in range(self.random.randint(1, 3)):
            where = self.random.choice((40, 42, 44, 46, 48, 70, 72, 80, 84, 88, 108, 112, 116, 252, 254, 280, 296, 344))
            content[where + self.random.randrange(4)] = self.random.choice((0, 1, 2, 127, 128, 255))
        self.done.append(f"{file.name}: header")
        file.unlink()
        file.write_bytes(gzip.compress(bytes(content)) if packed else content)

    def voxels(self) -> None:
        """An image or label with other values, type, size or number of axes."""
        file = self.raw_file()
        array = np.random.default_rng(self.random.randrange(10**6)).normal(size=SHAPE) * 3
        kind = self.random.choice(("noise", "labels", "nan", "huge", "constant", "shape", "plane", "four"))
        if kind == "labels":
            array = array.astype(self.random.choice(("int8", "uint8", "int16", "float32"))) % 4
        elif kind == "nan":
            array.flat[self.random.randrange(array.size)] = self.random.choice((np.nan, np.inf, -np.inf))
        elif kind == "huge":
            array *= 1e300
        elif kind == "constant":
            array = np.full(SHAPE, self.random.choice((0, 1, 2, 3, -1, 255)), "float32")
        elif kind == "shape":
            array = array[:, 1:]
        elif kind == "plane":
            array = array[0]
        elif kind == "four":
            array = np.stack([array, array])
        self.done.append(f"{file.name}: {kind}")
        file.unlink()
        write_image(file, array)

    def preprocessed(self) -> None:
        files = sorted(self.made.glob(f"{PLANS}_3d_fullres/*"))
        self.bytes_of(self.random.choice([file for file in files if file.is_file()]))

    def file(self) -> None:
        """A file that is missing, renamed, swapped, or no file."""
        files = [self.raw_file(), self.raw_file(), *self.made.glob("*.json"), *self.made.glob(f"{PLANS}_*/*")]
        file = self.random.choice([file for file in files if file.is_file()])
        if file in self.raw.glob("*/*") and self.random.random() < 0.3:
            self.bytes_of(file)
            return
        what = self.random.choice(("delete", "rename", "folder", "dangling", "pipe", "loop", "swap", "old"))
        self.done.append(f"{file.name}: {what}")
        other = self.raw_file()
        if what == "swap" and other.parent == file.parent:
            content = other.read_bytes()
            file.unlink()
            file.write_bytes(content)
        elif what == "rename":
            names = ("x.nii.gz", "._c1_0000.nii.gz", "c9_0000.nii.gz", "C1.NII.GZ", "c1_seg.nii.gz", "é" * 100, "a\nb")
            file.rename(file.with_name(self.random.choice(names)))
        elif what == "old":
            os.utime(file, (1, 10**10))
        else:
            file.unlink()
            if what == "folder":
                file.mkdir()
            elif what == "dangling":
                file.symlink_to("nowhere")
            elif what == "loop":
                file.symlink_to(file.name)
            elif what == "pipe":
                os.mkfifo(file)

    def extra(self) -> None:
        """A file or folder too many."""
        folders = [self.raw / "imagesTr", self.raw / "labelsTr", self.made, self.made / f"{PLANS}_3d_fullres", self.raw]
        names = [
            b"c7_0000.nii.gz", b"c7.nii.gz", b"x.pkl", b"c7.b2nd", b"\xff\xfe.nii.gz", b"splits_final.json",
            b"Other.json", b".DS_Store", b"c1_seg_0000.nii.gz", b"notes.txt", b"n" * 240 + b"_0000.nii.gz",
        ]  # fmt: skip
        target = os.path.join(os.fsencode(self.random.choice(folders)), self.random.choice(names))
        if os.path.lexists(target):
            return
        self.done.append(f"extra {target!r}")
        if self.random.random() < 0.2:
            os.mkdir(target)
            return
        with open(target, "wb") as stream:
            stream.write(self.random.choice((b"", b"[]", b'{"configurations": {"2d": 1}}', b"\x80\x05.", b"noise")))


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A planned dataset in each format."""
    with pytest.MonkeyPatch.context() as patch:
        use_threads(patch)
        patch.setenv("nnUNet_compile", "f")
        roots = {}
        for ending in dict.fromkeys(ENDINGS):
            root = roots[ending] = tmp_path_factory.mktemp("planned")
            use_folders_below(root, patch)
            write_dataset(root, ending)
            plan()
            folds = default_folds(f"c{case}" for case in range(CASES))
            write_json(root / "nnUNet_preprocessed" / NAME / "splits_final.json", folds)
        yield roots


def plan() -> None:
    plan_dataset(8, ["3d_fullres"], num_processes=1)


def start_training(made: Path) -> None:
    """What nnUNetv2_train does up to the first batch, without building the network."""
    plans, description = (json.loads((made / name).read_text()) for name in (f"{PLANS}.json", "dataset.json"))
    plans["continue_training"] = False
    trainer = nnUNetTrainerFactorizer(plans, "3d_fullres", 0, description, torch.device("cpu"))
    datasets = trainer.get_tr_and_val_datasets()
    if (made / "factorizer_sources").is_dir():  # otherwise nobody knows that a file has changed since it was made
        for dataset in datasets:
            for case in dataset.identifiers:
                dataset.load_case(case)


def outcome(step: Callable[[], None]) -> str:
    """How a step ended; tracebacks and hangs are raised."""
    try:
        step()
    except UserError as error:
        assert len(str(error).splitlines()[0]) > 25, f"no message: {error}"
        return f"refused: {error}"
    return "done"


def data_of(made: Path) -> dict[str, bytes]:
    """The properties of each case, with an image and a label; blosc2's files differ each time."""
    folder = made / f"{PLANS}_3d_fullres"
    cases = sorted(file.stem for file in folder.glob("*.pkl"))
    arrays = {case: nnUNetDatasetBlosc2(str(folder), [case]).load_case(case)[:2] for case in cases}
    return {
        case: (folder / f"{case}.pkl").read_bytes() + image[:].tobytes() + label[:].tobytes()
        for case, (image, label) in arrays.items()
    }


def run_round(damage: Damage, seed: int) -> str:
    """What the start of a training and planning do with a damaged dataset, in words."""
    made, trained = damage.made, "not tried"
    if all(is_json_object(made / name) for name in (f"{PLANS}.json", "dataset.json")):  # nnU-Net itself reads them
        trained = outcome(lambda: start_training(made))
    planned = outcome(plan)
    if planned == "done" and seed % 4 == 0 and damage.has_records:
        again = data_of(made)
        shutil.rmtree(made)
        plan()
        assert again == data_of(made), "the data are not those of planning from scratch"
    return f"training {trained}, planning {planned}"


def is_json_object(file: Path) -> bool:
    try:
        return file.is_file() and isinstance(json.loads(file.read_text()), dict)
    except ValueError:
        return False


def test_no_damage_ends_in_a_traceback_or_goes_unnoticed(
    templates: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, end = [], time.monotonic() + BUDGET_SECONDS
    for seed in range(FIRST, FIRST + ROUNDS):
        if time.monotonic() > end:
            break
        root = tmp_path / "round"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(templates[ENDINGS[seed % len(ENDINGS)]], root)
        use_folders_below(root, monkeypatch)
        damage = Damage(root, seed)
        text = f"seed {seed}, {'; '.join(damage.done) or 'nothing changed'}"
        try:
            with (
                time_limit(SECONDS_A_ROUND, text),
                contextlib.redirect_stdout(io.StringIO()),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                text += f": {run_round(damage, seed)}"
        except (Exception, HangError) as error:
            where = "".join(traceback.format_tb(error.__traceback__)[-4:])
            failures.append(f"{text}: {type(error).__name__}: {error}\n{where}")
        print(ascii(text))
    assert not failures, "\n".join(failures)
