"""What ISLES releases share: a lesion on background, and the file names of the archives VSD and SMIR (2015-2018)."""

from __future__ import annotations

from factorizer_nnunet.dataset_conversion.spec import LabelMap, Scheme

LESION = Scheme(LabelMap({0: 0, 1: 1}), {"lesion": (1,)})

# A file lies in a folder of its own name; the archive was renamed from VSD to SMIR, and both prefixes occur, within
# one release, too. The number is one the archive gave to the file, and a submission is known by one of them.
_PREFIX = r"(?:VSD|SMIR)\."
_FOLDER = r"(?:[^/]+\.[^/]+/)?"  # left out where files were moved up; a dot tells it from a case's folder


def archived(sequence: str, number: str = "") -> str:
    """Pattern of an archived file; ``number`` is the name of the group that takes its number."""
    digits = rf"(?P<{number}>\d+)" if number else r"\d+"
    return rf"{{case}}/{_FOLDER}{_PREFIX}Brain\.XX\.O\.{sequence}\.{digits}"


# Before the sequences of 2015 to 2017; some names lack it. Written so that messages show it.
MR = "(?:MR_|)"

ARCHIVED_LABEL = archived("(?:|MR_)OT")
