"""Whether a checkpoint in the form that torch wrote before version 1.6 is complete; nothing in it is executed.

Such a file is a row of pickles (a magic number, the version, the sizes of types, the content, the keys of the
storages), then for each key the number of elements, 8 bytes, and the elements: ``torch.serialization._legacy_save``.
"""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO

_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle
_COUNT_BYTES = 8
_ELEMENT_BYTES = {
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
}  # others count one byte an element


def is_older_form(start: bytes) -> bool:
    """Whether a file that starts with these bytes has this form; 16 are enough."""
    return start.startswith(_MAGIC)


def has_all_storages(stream: BinaryIO, size: int) -> bool:
    """Whether a file of this form is long enough for all that it announces.

    Args:
        stream: the file, open for reading.
        size: in bytes.

    Raises:
        OSError: it cannot be read.
    """
    stream.seek(len(_MAGIC))
    try:
        for _ in ("version", "sizes of types"):
            _Reader(stream).load()
        content = _Reader(stream)
        content.load()
        keys = _Reader(stream).load()
        storages = sum(_COUNT_BYTES + content.storages[key] for key in keys)
    except OSError:
        raise
    except Exception:  # pickle raises many kinds of exceptions for what was cut off
        return False
    return size >= stream.tell() + storages


class _Value:
    """In place of every object: takes whatever a pickle does to it, and does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Value:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    add = update = extend = append


class _Reader(pickle.Unpickler):
    """Reads a pickle without importing or calling anything, and notes the bytes of each storage by its key."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        return type(name, (_Value,), {})

    def persistent_load(self, pid: Any) -> _Value:
        if pid[0] == "storage":
            kind, key, _, elements = pid[1:5]
            self.storages[key] = int(elements) * _ELEMENT_BYTES.get(kind.__name__, 1)
        return _Value()
