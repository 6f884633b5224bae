"""Find the cases of a release below a folder, wherever unpacking has put them; copies are told by their content."""

from __future__ import annotations

import filecmp
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from factorizer_nnunet.dataset_conversion.spec import Release

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Problem:
    """Something that keeps a set from being converted: where it is and what is wrong."""

    case: str
    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.case}: {self.path}: {self.text}"


@dataclass(frozen=True)
class Case:
    """The files of one case: `images` in channel order, `label` None where the release gives none."""

    id: str
    folder: Path
    images: tuple[Path, ...]
    label: Path | None


@dataclass
class Found:
    """What lies below a source: whole cases and the problems of the others."""

    cases: list[Case] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find_cases(release: Release, source: Path) -> Found:
    """Find all cases of `release` at any depth below `source`, sorted by ID.

    A case met twice is taken once if the copies are equal byte for byte. Hidden folders and `__MACOSX`, left by
    unpackers, are passed over; files of other names are ignored.
    """
    found = Found()
    by_id: dict[str, list[Path]] = {}

    def unreadable(error: OSError) -> None:
        found.problems.append(Problem("folder", Path(error.filename), f"cannot be read: {error.strerror}"))

    for folder, subfolders, _ in os.walk(source, onerror=unreadable, followlinks=True):
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s != "__MACOSX")
        path = Path(folder)
        # A doubled root (ID/ID/files) is unpackers' work, too: the folder that holds case folders is not the case.
        if re.fullmatch(release.case_pattern, path.name) and path.name not in subfolders:
            by_id.setdefault(path.name, []).append(path)

    for case, folders in sorted(by_id.items()):
        copies = [_files_of_case(release, case, folder, source, found.problems) for folder in folders]
        whole = [copy for copy in copies if copy is not None]
        if len(whole) < len(copies):
            continue
        for other in whole[1:]:
            if not _same_content(whole[0], other):
                found.problems.append(Problem(case, other.folder, f"differs from the same case in {whole[0].folder}"))
        found.cases.append(whole[0])
    return found


def _files_of_case(release: Release, case: str, folder: Path, source: Path, problems: list[Problem]) -> Case | None:
    names = {path.name.lower(): path for path in folder.iterdir() if not path.name.startswith(".")}

    def file_of(template: str, what: str) -> Path | None:
        stem = template.format(case=case)
        hits = [names[(stem + ending).lower()] for ending in ENDINGS if (stem + ending).lower() in names]
        if len(hits) > 1:
            problems.append(Problem(case, folder, f"{what} is there twice: {', '.join(hit.name for hit in hits)}"))
        elif not hits and what != "label":
            problems.append(Problem(case, folder, f"{what} is missing: no {stem}.nii.gz or .nii"))
        return hits[0] if len(hits) == 1 else None

    before = len(problems)
    images = [file_of(channel.file, f"modality {channel.name}") for channel in release.channels]
    label = file_of(release.label_file, "label")
    above = folder.relative_to(source.parent).parts[:-1]
    if label is None and not any(re.fullmatch(release.unlabelled_pattern, part) for part in above):
        stem = release.label_file.format(case=case)
        problems.append(Problem(case, folder, f"label is missing: no {stem}.nii.gz or .nii"))
    if len(problems) > before:
        return None
    return Case(id=case, folder=folder, images=tuple(path for path in images if path is not None), label=label)


def _same_content(one: Case, other: Case) -> bool:
    pairs = list(zip((*one.images, one.label), (*other.images, other.label), strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    return all(filecmp.cmp(a, b, shallow=False) for a, b in pairs if a is not None and b is not None)
