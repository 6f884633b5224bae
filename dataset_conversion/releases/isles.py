"""Shared by ISLES releases: the lesion label, and the file names of the archives VSD and SMIR (2015-2018)."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.spec import Channel, LabelMap, LabelScheme

LESION = LabelScheme(LabelMap({0: 0, 1: 1}), {"lesion": (1,)})

# Each file is in a folder of its own name. The archive was renamed from VSD to SMIR, and both prefixes occur, even
# within one release. The archive gave each file a number, and one of them identifies a submission.
_PREFIX = r"(?:VSD|SMIR)\."
_FOLDER = r"(?:[^/]+\.[^/]+/)?"  # missing if files were moved up; the dot distinguishes it from a case folder


def archived(sequence: str, number: str = "") -> str:
    """Pattern of an archived file; ``number`` names the group that captures its number."""
    digits = rf"(?P<{number}>\d+)" if number else r"\d+"
    return rf"{{case}}/{_FOLDER}{_PREFIX}Brain\.XX\.O\.{sequence}\.{digits}"


# Precedes most sequence names of 2015 to 2017. First alternative, so that messages show it.
MR = "(?:MR_|)"


def archived_channels(*sequences: str, numbered: str = "", prefix: str = MR) -> tuple[Channel, ...]:
    """Channels with the names of their sequences; the number of the file of ``numbered`` is captured."""
    return tuple(Channel(one, archived(prefix + one, one.lower() if one == numbered else "")) for one in sequences)


ARCHIVED_LABEL = archived("(?:|MR_)OT")
