"""The parts of a tumor that names of labels and regions stand for, whatever a data set calls them.

Challenges and data sets number the same parts differently: BraTS 2021 has necrosis 1, edema 2 and enhancing tumor 4,
nnU-Net's copy of it edema 1, necrosis 2 and enhancing tumor 3. So the names decide, never the numbers.
"""

from __future__ import annotations

import re

NCR, ED, ET, RC, CC, GTV, LESION = (
    "necrosis",
    "edema",
    "enhancing tumor",
    "resection cavity",
    "cystic component",
    "gross tumor volume",
    "lesion",
)
WHOLE, CORE = "whole tumor", "tumor core"  # regions of several parts

_NON_ENHANCING = r"\b(?:non?|un|not|without) ?(?:contrast )?enhanc\w*"
# By part: a pattern, and abbreviations. Names are lower case, with one space instead of anything that is not a letter.
_PATTERNS = {
    WHOLE: (r"(?:whole|complete|entire|total) ?tumor", ("wt",)),
    CORE: (r"tumor ?core", ("tc",)),
    ED: (r"edema|peri ?tumor|snfh|flair|hyper ?intens", ("ed",)),
    NCR: (rf"necro|{_NON_ENHANCING}", ("ncr", "net", "netc", "nec", "nc")),
    ET: (r"enhanc|active ?tumor", ("et", "cet", "ce")),
    RC: (r"resection|cavity", ("rc",)),
    CC: (r"cyst", ("cc",)),
    GTV: (r"gross ?tumor|\bgtv", ()),
    LESION: (r"lesion|stroke|infarct|ischa?emi", ()),
}


def part_named(name: str) -> str | None:
    """The part or region, one of the constants above, that a name such as "Non-enhancing_tumour" stands for.

    None if the name is not known, or names several parts, such as "necrosis and edema".
    """
    text = re.sub(r"[\W\d_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).lower().strip()
    text = re.sub(r"tumou?rs?\b", "tumor", text)
    found = _parts_in(text)
    if ET in found and NCR in found and ET not in _parts_in(re.sub(_NON_ENHANCING, " ", text)):
        found.discard(ET)
    if ED in found and NCR in found and re.search(r"snfh|flair|hyper ?intens", text):  # not enhancing, but not necrosis
        found = _parts_in(re.sub(_NON_ENHANCING, " ", text))
    if WHOLE in found:
        return WHOLE
    for weaker in (CORE, LESION):  # "necrotic tumor core", "enhancing lesion"
        if len(found) > 1:
            found.discard(weaker)
    return found.pop() if len(found) == 1 else None


def _parts_in(text: str) -> set[str]:
    words = {*text.split(), text.replace(" ", "")}
    return {part for part, (pattern, short) in _PATTERNS.items() if re.search(pattern, text) or words & set(short)}
