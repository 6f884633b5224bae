"""Assign files to cases by the path patterns of a release."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

from factorizer_nnunet.dataset_conversion.cases import FILE_ENDING
from factorizer_nnunet.dataset_conversion.spec import Release

ENDINGS = (FILE_ENDING, ".nii")


@dataclass(frozen=True)
class NiftiFile:
    """A NIfTI file: its path, and the part of the path that patterns see, from the source folder's own name on."""

    path: Path
    shown: str


@dataclass(frozen=True)
class MatchedFile(NiftiFile):
    """A file that matches a pattern, and the named groups of the match."""

    fields: Mapping[str, str]


@dataclass
class CaseFiles:
    """All files that match a case, by pattern; ``unlabelled`` if all are in folders whose cases have no label."""

    name: str
    matches: dict[str, list[MatchedFile]] = field(default_factory=dict)
    unlabelled: bool = True


@dataclass
class GroupedFiles:
    """The files of each case, by casefolded case name, and the files that belong to no case."""

    cases: dict[str, CaseFiles] = field(default_factory=dict)
    unused: list[NiftiFile] = field(default_factory=list)
    excluded: list[NiftiFile] = field(default_factory=list)


def group_by_case(release: Release, files: list[NiftiFile]) -> GroupedFiles:
    """Group ``files`` by the cases of ``release``; a 4D file matches once for each of its channels."""
    grouped = GroupedFiles()
    patterns = _compiled(release.case, (*(channel.file for channel in release.channels), *release.label))
    for file in files:
        if in_folder(release.excluded, file.shown):
            grouped.excluded.append(file)
            continue
        matches = [(text, match) for text, pattern in patterns.items() if (match := pattern.search(file.shown))]
        if not matches:
            grouped.unused.append(file)
            continue
        unlabelled = bool(unlabelled_folder(release, file.shown))
        template = unlabelled and release.unlabelled_case_name or release.case_name
        for text, match in matches:
            fields = {name: value or "" for name, value in match.groupdict().items()}
            name = template.format_map(fields)
            case = grouped.cases.setdefault(name.casefold(), CaseFiles(name))
            case.matches.setdefault(text, []).append(MatchedFile(file.path, file.shown, fields))
            case.unlabelled &= unlabelled
    return grouped


def unlabelled_folder(release: Release, shown: str) -> str:
    """Name of the parent folder that marks cases as unlabelled.

    "" if there is none, or if a folder further inside is named after training.
    """
    for folder in _folders(shown):
        if re.fullmatch(release.unlabelled, folder, re.IGNORECASE):
            return folder
        if "train" in folder.lower():
            return ""
    return ""


def rank(release: Release, shown: str) -> int:
    """0 for a corrected file, 2 for an outdated one, 1 for all others: the lowest rank wins."""
    if release.superseded is not None and re.search(release.superseded, shown, re.IGNORECASE):
        return 2
    return 0 if in_folder(release.preferred, shown) else 1


def stratum_of(release: Release, shown: str) -> str:
    """What the folds are balanced by, such as a grade or a site, in capitals; "" if the path does not contain it."""
    match = release.stratum and re.search(release.stratum, shown, re.IGNORECASE)
    return match[1].upper() if match else ""


def readable(pattern: str, case: str) -> str:
    """The file name that a pattern of a release stands for, as shown in messages, with ``<number>`` for digits."""
    text = pattern.replace("[^/]*", "*").replace("[^/]+", "*")
    text = re.sub(r"\(\?P<(\w+)>[^()]*\)", r"<\1>", text)
    text = re.sub(r"\(\?:[^()]*\)\?", "", text)
    text = re.sub(r"\(\?:([^()|]*)(?:\|[^()]*)?\)", r"\1", text)
    text = re.sub(r"\[(.)[^\]]*\]", r"\1", text)
    return text.replace(r"\d+", "<number>").replace(r"\.", ".").replace("{case}", case) + FILE_ENDING


def is_nifti(name: str) -> bool:
    """Whether a name has a NIfTI file ending."""
    return name.lower().endswith(ENDINGS)


@cache
def _compiled(case: str, files: tuple[str, ...]) -> dict[str, re.Pattern[str]]:
    """Compiled file patterns by their text; the channels of a 4D file share one."""
    patterns = {}
    for text in files:
        named = text.replace("{case}", f"(?P<case>{case})", 1).replace("{case}", "(?P=case)")
        patterns[text] = re.compile(rf"(?:^|/)(?:{named})\.nii(?:\.gz)?\Z", re.IGNORECASE)
    return patterns


def in_folder(pattern: str | None, shown: str) -> bool:
    """Whether the name of a parent folder matches a pattern."""
    return pattern is not None and any(re.fullmatch(pattern, folder, re.IGNORECASE) for folder in _folders(shown))


def _folders(shown: str) -> Iterator[str]:
    """Names of the parent folders, innermost first."""
    return (folder.name for folder in PurePosixPath(shown).parents if folder.name)
