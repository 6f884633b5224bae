"""Which content of files a result was made from, so that a later look can tell whether they have changed since.

Times alone do not: a restored backup is older than what was made from the file before it, a copy is newer, and the
clocks of two hosts disagree. So stamps are compared for equality, never for order, and where only the time differs the
digest decides.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import json_or_none
from factorizer_nnunet.core.regular_files import status_of_regular

_CHUNK_BYTES = 1 << 20
_END_BYTES = 1 << 16
_NOTES = "notes"


@dataclass(frozen=True)
class Stamp:
    """Size in bytes, time of the last change in nanoseconds since the epoch, and SHA-256 of the content."""

    size: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True)
class Content:
    """A file that may be written with other bytes and the same content, of which ``digest`` gives a digest."""

    path: Path
    digest: Callable[[Path], str]


Source = Path | Content | Stamp  # what something is made from: a file, its content, or the stamp of a value
ADDED, CHANGED, REMOVED = "added", "changed", "removed"


@dataclass(frozen=True)
class Changes:
    """What has changed since a record was written: ``ADDED``, ``CHANGED`` or ``REMOVED`` by name.

    Attributes:
        made: of what was made. If anything, the record says nothing about the rest.
        sources: of its sources; empty if ``made`` is not.
    """

    made: Mapping[str, str]
    sources: Mapping[str, str]


def stamp_of(path: Path) -> Stamp:
    """Read a file once for its stamp.

    Raises:
        OSError: it cannot be read.
    """
    stamp = _size_and_time(path)
    return dataclasses.replace(stamp, sha256=_digest(os.fspath(path), stamp.size, stamp.modified_ns))


def _size_and_time(path: Path) -> Stamp:
    """A stamp without a digest."""
    status = status_of_regular(path)
    return Stamp(status.st_size, status.st_mtime_ns, "")


def stamp_of_value(value: object) -> Stamp:
    """The stamp of a JSON value, for what a result depends on without being a file of its own."""
    text = json.dumps(value, sort_keys=True, default=str).encode()
    return Stamp(len(text), 0, hashlib.sha256(text).hexdigest())


def stamp_of_ends(paths: Iterable[Path]) -> Stamp:
    """One stamp of several files by their names, sizes, and first and last 64 KiB; what is not a file is left out.

    For files too large to read: of compressed ones with their index at an end, such as blosc2's, hardly any change of
    content leaves all of these.

    Raises:
        OSError: one cannot be read.
    """
    parts: list[tuple[str, int, str]] = []
    for path in paths:
        try:
            status = status_of_regular(path)
        except OSError:  # missing, or a link to itself
            continue
        parts.append((path.name, status.st_size, _digest_of_ends(os.fspath(path), status.st_size, status.st_mtime_ns)))
    return dataclasses.replace(stamp_of_value(parts), size=sum(size for _, size, _ in parts))


def has_size_and_time(path: Path, stamp: Stamp) -> bool:
    """Whether a file has the size and time of a stamp, so that it need not be read."""
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (stamp.size, stamp.modified_ns)


def is_unchanged(path: Path, stamp: Stamp) -> bool:
    """Whether a file has the content that the stamp was taken of, False if it cannot be read.

    Reads the file only where just the time differs.
    """
    try:
        status = path.stat()
        if status.st_size != stamp.size:
            return False
        return status.st_mtime_ns == stamp.modified_ns or stamp_of(path).sha256 == stamp.sha256
    except OSError:
        return False


@functools.lru_cache(maxsize=2**16)
def _digest(path: str, size: int, modified_ns: int) -> str:
    """Kept for as long as size and time stay: the state of a run is looked at every few seconds."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@functools.lru_cache(maxsize=2**16)
def _digest_of_ends(path: str, size: int, modified_ns: int) -> str:
    with open(path, "rb") as stream:
        digest = hashlib.sha256(stream.read(_END_BYTES))
        stream.seek(max(0, size - _END_BYTES))
        digest.update(stream.read(_END_BYTES))
    return digest.hexdigest()


def record_sources(
    record: Path,
    sources: Mapping[str, Source],
    made: Mapping[str, Source],
    known: Mapping[Path, Stamp] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write what something was made from, atomically; the folder of the record is made if it does not exist.

    Args:
        record: a JSON file.
        sources: by name.
        made: by name, what was made from them: the record says nothing about others that replace it later.
        known: stamps that need not be taken again.
        notes: to be shown whenever what was made is used again.

    Raises:
        OSError: a source cannot be read, or the record not written.
    """
    content: dict[str, Any] = {
        part: {name: dataclasses.asdict(stamp) for name, stamp in take_stamps(entries, known).items()}
        for part, entries in (("sources", sources), ("made", made))
    }
    if notes:
        content[_NOTES] = list(notes)
    record.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(record, json.dumps(content, indent=1))


def notes_of(record: Path) -> tuple[str, ...]:
    """The notes of a record; none if it is missing or damaged."""
    content = json_or_none(record)
    notes = content.get(_NOTES) if isinstance(content, dict) else None
    return tuple(map(str, notes)) if isinstance(notes, list) else ()


def take_stamps(sources: Mapping[str, Source], known: Mapping[Path, Stamp] | None = None) -> dict[str, Stamp]:
    """The stamps of sources as they are now, for a record that is written later; arguments as for ``record_sources``.

    Raises:
        OSError: a source cannot be read.
    """
    known = known or {}
    return {
        name: known.get(source) or stamp_of(source) if isinstance(source, Path) else _stamp(source)
        for name, source in sources.items()
    }


def _stamp(source: Content | Stamp) -> Stamp:
    if isinstance(source, Stamp):
        return source
    return dataclasses.replace(_size_and_time(source.path), sha256=source.digest(source.path))


def changes_of(record: Path, sources: Mapping[str, Source], made: Mapping[str, Source]) -> Changes | None:
    """What has changed since ``record_sources``; None without a record."""
    content = _read_record(record)
    if content is None:
        return None
    changed = changes_since(content["made"], made)
    return Changes(changed, {} if changed else changes_since(content["sources"], sources))


def changed_sources(
    record: Path, sources: Mapping[str, Source], made: Mapping[str, Source] | None = None
) -> Mapping[str, str] | None:
    """How sources have changed since ``record_sources``.

    None without a record of what was made, that is, if there is none or something else was made since.
    """
    changes = changes_of(record, sources, made or {})
    return None if changes is None or changes.made else changes.sources


def changes_since(before: Mapping[str, Stamp], sources: Mapping[str, Source]) -> dict[str, str]:
    """How sources differ from earlier stamps: ``ADDED``, ``CHANGED`` or ``REMOVED`` by name, sorted."""
    changes = {}
    for name in sorted({*before, *sources}):
        if name not in sources:
            changes[name] = REMOVED
        elif name not in before:
            changes[name] = ADDED
        elif not _is_same(sources[name], before[name]):
            changes[name] = CHANGED
    return changes


def in_words(changes: Mapping[str, str]) -> list[str]:
    """Changes for a message, such as "a.nii.gz (changed)"."""
    return [f"{name} ({change})" for name, change in changes.items()]


def _is_same(source: Source, before: Stamp) -> bool:
    if isinstance(source, Path):
        return is_unchanged(source, before)
    if isinstance(source, Content) and has_size_and_time(source.path, before):
        return True
    return _stamp(source).sha256 == before.sha256


def _read_record(record: Path) -> dict[str, dict[str, Stamp]] | None:
    content = json_or_none(record)
    try:
        return {
            part: {str(name): Stamp(**entry) for name, entry in content[part].items()} for part in ("sources", "made")
        }
    except (AttributeError, KeyError, TypeError):
        return None
