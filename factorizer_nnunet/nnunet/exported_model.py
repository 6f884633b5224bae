"""An exported model: a folder, or a zip of it, with all that a prediction elsewhere needs; nothing in it is executed.

``SHA256SUMS`` has the digest of every file in the form of ``sha256sum``. Nothing is used before it has been compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.version import InvalidVersion, Version

from factorizer_nnunet import __version__
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.path_names import component_problem
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.core.zip_files import unpack_zip
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL, PLANS_FILE

FORMAT = 1  # of the folder, counted up when earlier versions could not read it any more
RECORD_FILE = "factorizer_model.json"
MANIFEST_FILE = "SHA256SUMS"
CARD_FILE = "README.md"
LICENSE_FILE = "LICENSE"
SCORES_FILE = "scores.json"
NNUNET_POSTPROCESSING_FILE = "postprocessing.json"  # what nnU-Net chose, for readers

_COPY = "Get the model again from where it was published"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_MAX_LIST_BYTES = 1 << 20  # of the record and the list of digests


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """What an exported model says about itself, ``factorizer_model.json``.

    Attributes:
        version: of this package, which exported it.
        trainer, plans, configuration: the name of the model.
        folds: exported folds, numbers or ``all``.
        checkpoint: file name of their checkpoints in the original.
        channels: names, in the order of the files of an image.
    """

    version: str
    trainer: str
    plans: str
    configuration: str
    folds: tuple[str, ...]
    checkpoint: str
    channels: tuple[str, ...]

    def content(self) -> dict[str, Any]:
        """The content of the file."""
        return {
            "format": FORMAT,
            "factorizer_nnunet": self.version,
            "trainer": self.trainer,
            "plans": self.plans,
            "configuration": self.configuration,
            "folds": list(self.folds),
            "checkpoint": self.checkpoint,
            "channels": list(self.channels),
        }


@dataclass(frozen=True)
class OpenedModel:
    """A model that can be read: its folder, and its record if it was exported."""

    folder: Path
    record: ExportRecord | None


def is_exported(path: Path) -> bool:
    """Whether a path is that of an exported model; a damaged one counts, and so does every file."""
    return path.is_file() or any((path / name).is_file() for name in (RECORD_FILE, MANIFEST_FILE))


def check_has_validation(path: Path) -> None:
    """Check that a model folder is not an exported one, for commands that need its validation.

    Raises:
        UserError: it is.
    """
    if is_exported(path):
        raise UserError(
            f"{path} is an exported model, without the validation that this command needs. "
            "Name the original model folder"
        )


def is_exported_zip(path: Path) -> bool:
    """Whether a file is a zip with the record of an exported model; one that cannot be read is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == RECORD_FILE for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


@contextlib.contextmanager
def opened_model(path: Path) -> Iterator[OpenedModel]:
    """Open a model folder, or an exported model; a zip is unpacked into a temporary folder, removed at the end.

    Raises:
        UserError: an exported model is damaged, manipulated, incomplete, or of a newer version.
    """
    if path.is_file():
        with tempfile.TemporaryDirectory(prefix="factorizer_") as temporary:
            folder = _unpacked(path, Path(temporary) / path.name)
            yield OpenedModel(folder, _checked_record(folder, f"{path}: "))
    elif is_exported(path):
        yield OpenedModel(path, _checked_record(path, f"{path}{os.sep}"))
    else:
        yield OpenedModel(path, None)


def check_checkpoint_name(record: ExportRecord, name: str, where: Path) -> None:
    """Check that an exported model has the checkpoint that was asked for; the default is any.

    Raises:
        UserError: it has another one.
    """
    if name not in (CHECKPOINT_FINAL, record.checkpoint):
        raise UserError(f"{where} was exported from {record.checkpoint} and has no {name}: leave out -chk")


def manifest_of(folder: Path) -> str:
    """The content of ``SHA256SUMS`` for the files of a folder: ``sha256sum -c SHA256SUMS`` checks it, too."""
    return "".join(f"{stamp_of(folder / name).sha256}  {name}\n" for name in _files(folder))


def _unpacked(path: Path, folder: Path) -> Path:
    """Unpack a zip into ``folder``; returns it, or its only folder if that contains the model."""
    fix = f"An exported model is a folder or zip that factorizer-nnunet export wrote. {_COPY}"
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not a zip file. {fix}, or name a model folder, TRAINER__PLANS__CONFIGURATION")
    folder.mkdir()
    unpack_zip(path, folder, fix)
    if is_exported(folder):
        return folder
    inner = [one for one in folder.iterdir() if is_exported(one)]
    if len(inner) == 1 and inner[0].is_dir():
        return inner[0]
    if any(folder.glob(f"**/{PLANS_FILE}")):
        raise UserError(
            f"{path} was not written by factorizer-nnunet export: it looks like a zip of nnU-Net. Install it with "
            "nnUNetv2_install_pretrained_model_from_zip, then name the model by -d and -c"
        )
    raise UserError(f"{path} has no {RECORD_FILE}. {fix}")


def _checked_record(folder: Path, where: str) -> ExportRecord:
    """Check version, completeness and digests of an exported model; ``where`` begins the names of files in messages."""
    for name in (RECORD_FILE, MANIFEST_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{where}{name} is missing: this is not a complete exported model. {_COPY}")
        if (folder / name).stat().st_size > _MAX_LIST_BYTES:
            raise UserError(f"{where}{name} is larger than any that export writes. {_COPY}")
    record = _read_record(folder / RECORD_FILE, where)
    if not (folder / CARD_FILE).is_file():
        raise UserError(
            f"{where}{CARD_FILE}, the model card, is missing: without it nobody knows what the model was trained for "
            f"and what it may be used for. {_COPY}, with its card"
        )
    listed = _read_manifest(folder / MANIFEST_FILE, where)
    weights = [f"fold_{fold}/weights.safetensors" for fold in record.folds]
    for name in (RECORD_FILE, CARD_FILE, PLANS_FILE, DATASET_FILE, *weights):
        if name not in listed:
            raise UserError(f"{where}{name} is not listed in {MANIFEST_FILE}, so nothing vouches for it. {_COPY}")
    existing = _files(folder)
    if unlisted := sorted(set(existing) - set(listed)):
        raise UserError(
            f"{where}{first_few(unlisted)}: not listed in {MANIFEST_FILE}, so not part of the exported model. "
            "Move it out of the model's folder"
        )
    for name, digest in listed.items():
        if name not in existing:
            raise UserError(f"{where}{name} is missing, though {MANIFEST_FILE} lists it. {_COPY}")
        if stamp_of(folder / name).sha256 != digest:
            raise UserError(
                f"{where}{name} is not the file that was exported: its digest is another one than {MANIFEST_FILE} "
                f"says. It was changed or damaged, so the model is not used. {_COPY}"
            )
    return record


def _read_record(path: Path, where: str) -> ExportRecord:
    content = load_json_object(path, _COPY)
    version = str(content.get("factorizer_nnunet"))
    try:
        is_newer = Version(version) > Version(__version__)
    except InvalidVersion as error:
        raise UserError(f"{where}{RECORD_FILE}: factorizer_nnunet {version!r} is not a version. {_COPY}") from error
    if content.get("format") != FORMAT or is_newer:
        number = "" if content.get("format") == FORMAT else f" in format {content.get('format')!r}"
        raise UserError(
            f"{where}{RECORD_FILE}: the model was exported by factorizer-nnunet {version[:40]}{number}. This is "
            f"version {__version__}, which reads format {FORMAT} of versions up to its own. Install a newer version of "
            "factorizer_nnunet"
        )
    texts = {key: content.get(key) for key in ("trainer", "plans", "configuration", "checkpoint")}
    lists = {key: content.get(key) for key in ("folds", "channels")}
    for key, value in texts.items():
        if component_problem(value) is not None:
            raise UserError(f"{where}{RECORD_FILE}: {key} is {value!r}, not a name. {_COPY}")
    for key, entries in lists.items():
        if not isinstance(entries, list) or not entries or not all(isinstance(one, str) for one in entries):
            raise UserError(f"{where}{RECORD_FILE}: {key} must be a list of names, not {entries!r}. {_COPY}"[:500])
    if not all(fold.isalnum() for fold in lists["folds"] or ()):
        raise UserError(f"{where}{RECORD_FILE}: folds must be numbers or all. {_COPY}")
    return ExportRecord(
        version=version,
        trainer=str(texts["trainer"]),
        plans=str(texts["plans"]),
        configuration=str(texts["configuration"]),
        checkpoint=str(texts["checkpoint"]),
        folds=tuple(lists["folds"] or ()),
        channels=tuple(lists["channels"] or ()),
    )


def _read_manifest(path: Path, where: str) -> dict[str, str]:
    """Digests by name."""
    listed = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = _LINE.fullmatch(line)
        if found is None or any(map(component_problem, PurePosixPath(found[2]).parts)):
            raise UserError(f"{where}{MANIFEST_FILE}, line {number}: expected a digest and the name of a file. {_COPY}")
        listed[found[2]] = found[1]
    return listed


def _files(folder: Path) -> list[str]:
    """Names of all files below a folder, relative to it with slashes, except the manifest and hidden ones."""
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    return [name.as_posix() for name in shown if name.as_posix() != MANIFEST_FILE]
