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
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.atomic_files import write_text_atomically

_CHUNK_BYTES = 1 << 20
_END_BYTES = 1 << 16


@dataclass(frozen=True)
class Stamp:
    """Size in bytes, time of the last change in nanoseconds since the epoch, and SHA-256 of the content."""

    size: int
    modified_ns: int
    sha256: str


Source = Path | Stamp  # what something is made from: a file, or the stamp of a value


def stamp_of(path: Path) -> Stamp:
    """Read a file once for its stamp.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, _digest(os.fspath(path), status.st_size, status.st_mtime_ns))


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
            status = path.stat()
        except OSError:  # missing, or a link to itself
            continue
        if not stat.S_ISREG(status.st_mode):
            continue  # reading a named pipe would wait forever
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
    record: Path, sources: Mapping[str, Source], made: Mapping[str, Source], known: Mapping[Path, Stamp] | None = None
) -> None:
    """Write what something was made from, atomically; the folder of the record is made if it does not exist.

    Args:
        record: a JSON file.
        sources: by name.
        made: by name, what was made from them: the record says nothing about others that replace it later.
        known: stamps that need not be taken again.

    Raises:
        OSError: a source cannot be read, or the record not written.
    """
    content = {
        part: {name: dataclasses.asdict(stamp) for name, stamp in take_stamps(entries, known).items()}
        for part, entries in (("sources", sources), ("made", made))
    }
    record.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(record, json.dumps(content, indent=1))


def take_stamps(sources: Mapping[str, Source], known: Mapping[Path, Stamp] | None = None) -> dict[str, Stamp]:
    """The stamps of sources as they are now, for a record that is written later; arguments as for ``record_sources``.

    Raises:
        OSError: a source cannot be read.
    """
    known = known or {}
    return {
        name: source if isinstance(source, Stamp) else known.get(source) or stamp_of(source)
        for name, source in sources.items()
    }


def changed_sources(record: Path, sources: Mapping[str, Source], made: Mapping[str, Source]) -> list[str] | None:
    """What has changed since ``record_sources``: "a (changed)", "b (added)", "c (removed)".

    None without a record of what was made, that is, if there is none or something else was made since.
    """
    content = _read_record(record)
    if content is None or changes_since(content["made"], made):
        return None
    return changes_since(content["sources"], sources)


def changed_results(record: Path, made: Mapping[str, Source]) -> list[str]:
    """What differs from what was made when the record was written; empty without a record."""
    content = _read_record(record)
    return [] if content is None else changes_since(content["made"], made)


def changes_since(before: Mapping[str, Stamp], sources: Mapping[str, Source]) -> list[str]:
    """What differs between earlier stamps and the sources now, as ``changed_sources`` says it."""
    changes = []
    for name in sorted({*before, *sources}):
        if name not in sources:
            changes.append(f"{name} (removed)")
        elif name not in before:
            changes.append(f"{name} (added)")
        elif not _is_same(sources[name], before[name]):
            changes.append(f"{name} (changed)")
    return changes


def _is_same(source: Source, before: Stamp) -> bool:
    if isinstance(source, Stamp):
        return source.sha256 == before.sha256
    return is_unchanged(source, before)


def _read_record(record: Path) -> dict[str, dict[str, Stamp]] | None:
    if not record.is_file():
        return None
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        return {
            part: {str(name): Stamp(**entry) for name, entry in content[part].items()} for part in ("sources", "made")
        }
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
        return None
