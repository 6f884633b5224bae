"""Seeded damage to files, and commands that must answer it with a message: no traceback, no hang, nothing elsewhere."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from factorizer_nnunet import cli

SECONDS = 30  # after which a command counts as hanging
NASTY: tuple[Any, ...] = (
    None, True, False, -1, 0, 3, 0.5, 1e308, float("nan"), float("inf"), 2**70, "", ".", "..", "../../escaped",
    "/tmp/escaped", "a/b", "a\\b", "\x00", "\ud800", "\u2028", "=1+1", "</script><b>",
    "<!--<script>",
    "x" * 300, [], {}, [[]], [None], {"": 0}, {"a": {"b": []}}, [1, 2, 3], "1", [0, 1e400], ["0"], {"0": "CT"},
)  # fmt: skip
RAW = (b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b'"text"', b"NaN")
CASE_NAMES = (
    "=1+1", "+1", "-1", "@x", "a b", "a'b", 'a"b', "<!--<script>", "<!--", "\u2028", "a,b", "é", "..a", "x\ty",
    "\udcff",
)  # fmt: skip


def seed_and_rounds(seed: int, rounds: int) -> tuple[int, int]:
    """The usual ones, or those of ``FACTORIZER_FUZZ=SEED:ROUNDS``, for a longer search with other seeds."""
    first, count = os.environ.get("FACTORIZER_FUZZ", f"{seed}:{rounds}").split(":")
    return int(first), int(count)


class HangError(BaseException):
    """Not an ``Exception``, which what is tested could catch."""


@contextlib.contextmanager
def time_limit(seconds: int, what: str) -> Iterator[None]:
    """Raise ``HangError`` in the main thread if the block takes longer."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise HangError(f"{what}: no end after {seconds} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def damaged_json(rng: np.random.Generator, content: Any) -> bytes:
    """The content with one to three places replaced, removed or added; sometimes no JSON at all."""
    if rng.random() < 0.12:
        return RAW[int(rng.integers(len(RAW)))]
    content = copy.deepcopy(content)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(content))
        if not places:
            break
        holder, key = places[int(rng.integers(len(places)))]
        action = rng.random()
        if action < 0.7:
            holder[key] = copy.deepcopy(NASTY[int(rng.integers(len(NASTY)))])
        elif action < 0.85:
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(NASTY[int(rng.integers(11, 25))])] = holder[key]
    text = json.dumps(content).encode()
    return text[: int(rng.integers(len(text)))] if rng.random() < 0.08 else text


def damaged_nifti(rng: np.random.Generator, content: bytes) -> bytes:
    """Uncompressed NIfTI bytes with a header field set to an extreme, random bytes changed, or cut off."""
    packed = bytearray(content)
    fields = {
        40: "8h", 70: "h", 72: "h", 76: "8f", 108: "f", 112: "2f", 123: "B", 252: "2h", 256: "6f", 280: "12f", 344: "4s"
    }  # fmt: skip
    for _ in range(int(rng.integers(1, 3))):
        offset, kind = list(fields.items())[int(rng.integers(len(fields)))]
        place = int(rng.integers(int(kind[:-1] or 1)))
        unit = kind[-1]
        if unit == "f":
            value = float(rng.choice([0, -1, 1e-30, 1e30, np.nan, np.inf, -np.inf, 352.5, 0.3, 7]))
            struct.pack_into("<f", packed, offset + 4 * place, value)
        elif unit == "h":
            value = int(rng.choice([0, -1, 1, 2, 3, 4, 7, 8, 9, 16, 64, 512, 1024, 2**15 - 1, -(2**15), 128, 32]))
            struct.pack_into("<h", packed, offset + 2 * place, value)
        else:
            packed[offset] = int(rng.integers(256))
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 6))):
            packed[int(rng.integers(len(packed)))] = int(rng.integers(256))
    return bytes(packed[: int(rng.integers(len(packed)))]) if rng.random() < 0.1 else bytes(packed)


def answer(arguments: Sequence[object]) -> int:
    """The exit status of a command run in this process.

    Raises:
        HangError: it hangs.
        Exception: whatever the command lets through, which is the failure that is looked for.
    """

    try:
        with time_limit(SECONDS, f"{arguments}"):
            return cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # of the argument parser
        return int(stop.code or 0)


def files_below(folder: Path, *without: Path) -> dict[str, int]:
    """Size of every file below a folder, except below some others."""
    found = {}
    for path, _, names in os.walk(folder):
        if not any(Path(path).is_relative_to(other) for other in without):
            found.update({os.path.join(path, name): os.lstat(os.path.join(path, name)).st_size for name in names})
    return found


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder and key of a JSON value."""
    for key in list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield content, key
        yield from _places(content[key])
