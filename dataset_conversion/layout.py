"""Which file of which case a path is, by the patterns of a release."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

from factorizer_nnunet.dataset_conversion.cases import FILE_ENDING
from factorizer_nnunet.dataset_conversion.spec import Release

ENDINGS = (FILE_ENDING, ".nii")
_TRAINING = re.compile("train", re.IGNORECASE)


@dataclass(frozen=True)
class Nifti:
    """A NIfTI file: where it is, and its path as patterns see it, from the source folder's own name on."""

    path: Path
    shown: str


@dataclass(frozen=True)
class Hit:
    """A file that a pattern matches, and the named groups of the match."""

    file: Nifti
    fields: Mapping[str, str]


@dataclass
class Draft:
    """A case in the making: its hits by pattern, and whether all of them lie where cases have no label by design."""

    name: str
    hits: dict[str, list[Hit]] = field(default_factory=dict)
    unlabelled: bool = True


@dataclass
class Gathered:
    """All drafts of a release by their casefolded names, and the files that belong to none."""

    drafts: dict[str, Draft] = field(default_factory=dict)
    unused: list[Nifti] = field(default_factory=list)
    excluded: list[Nifti] = field(default_factory=list)


def gather(release: Release, files: list[Nifti]) -> Gathered:
    """Sort ``files`` into cases of ``release``; a file may be several things, as a 4D one holds several channels."""
    gathered = Gathered()
    patterns = _patterns(release)
    for file in files:
        if _in_folder(release.excluded, file.shown):
            gathered.excluded.append(file)
            continue
        matches = [(text, match) for text, pattern in patterns.items() if (match := pattern.search(file.shown))]
        if not matches:
            gathered.unused.append(file)
        for text, match in matches:
            unlabelled = is_unlabelled(release, file.shown)
            template = unlabelled and release.unlabelled_case_name or release.case_name
            fields = {name: value or "" for name, value in match.groupdict().items()}
            name = template.format_map(fields)
            draft = gathered.drafts.setdefault(name.casefold(), Draft(name))
            draft.hits.setdefault(text, []).append(Hit(file, fields))
            draft.unlabelled &= unlabelled
    return gathered


def is_unlabelled(release: Release, shown: str) -> bool:
    """Whether the innermost folder that tells says that cases below it have no label."""
    return bool(unlabelled_folder(release, shown))


def unlabelled_folder(release: Release, shown: str) -> str:
    """Name of the folder above that says so; "" where the innermost that tells is one for training, or none tells."""
    for folder in _folders(shown):
        if re.fullmatch(release.unlabelled, folder, re.IGNORECASE):
            return folder
        if _TRAINING.search(folder):
            return ""
    return ""


def is_below_root(release: Release, shown: str) -> bool:
    """Whether a folder above is one that tells this release from others with the same case names."""
    return _in_folder(release.root, shown)


def rank(release: Release, shown: str) -> int:
    """0 for a correction, 2 for a file known to be stale, 1 for all others: the lowest wins."""
    if release.superseded is not None and re.search(release.superseded, shown, re.IGNORECASE):
        return 2
    return 0 if _in_folder(release.preferred, shown) else 1


def stratum_of(release: Release, shown: str) -> str:
    """What is balanced over the folds, such as a grade or a site, in capitals; "" where the path does not tell."""
    match = release.stratum and re.search(release.stratum, shown, re.IGNORECASE)
    return match[1].upper() if match else ""


def readable(pattern: str, case: str) -> str:
    """The file that a pattern of a release stands for, as a message shows it: with ``<number>`` for its digits."""
    text = pattern.replace("[^/]*", "*").replace("[^/]+", "*")
    text = re.sub(r"\(\?P<(\w+)>[^()]*\)", r"<\1>", text)
    text = re.sub(r"\(\?:[^()]*\)\?", "", text)
    text = re.sub(r"\(\?:([^()|]*)(?:\|[^()]*)?\)", r"\1", text)
    text = re.sub(r"\[(.)[^\]]*\]", r"\1", text)
    return text.replace(r"\d+", "<number>").replace(r"\.", ".").replace("{case}", case) + FILE_ENDING


def is_nifti(name: str) -> bool:
    """Whether a name ends as those of NIfTI files do."""
    return name.lower().endswith(ENDINGS)


@cache
def _patterns_of(case: str, files: tuple[str, ...]) -> dict[str, re.Pattern[str]]:
    patterns = {}
    for text in files:
        named = text.replace("{case}", f"(?P<case>{case})", 1).replace("{case}", "(?P=case)")
        patterns[text] = re.compile(rf"(?:^|/)(?:{named})\.nii(?:\.gz)?\Z", re.IGNORECASE)
    return patterns


def _patterns(release: Release) -> dict[str, re.Pattern[str]]:
    """Compiled patterns of all files of a release, by their text; channels of one 4D file share one."""
    return _patterns_of(release.case, (*(channel.file for channel in release.channels), *release.label))


def _in_folder(pattern: str | None, shown: str) -> bool:
    return pattern is not None and any(re.fullmatch(pattern, folder, re.IGNORECASE) for folder in _folders(shown))


def _folders(shown: str) -> Iterator[str]:
    """Names of the folders above, the innermost first."""
    return (folder.name for folder in PurePosixPath(shown).parents if folder.name)
