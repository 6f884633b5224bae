"""Files with the same content: an image copied under another channel's or case's name, which nnU-Net cannot notice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from factorizer_nnunet.dataset_check.facts import FileFacts
from factorizer_nnunet.dataset_check.record import Known
from factorizer_nnunet.nnunet.dataset_json import CaseFiles


def duplicate_warnings(cases: Sequence[CaseFiles], known: Mapping[Path, Known]) -> Iterator[str]:
    """A sentence for each kind of files with the same bytes; constant images and labels of background are left out."""
    images: defaultdict[str, list[tuple[str, Path]]] = defaultdict(list)
    labels: defaultdict[str, list[tuple[str, Path]]] = defaultdict(list)
    for case in cases:
        for path in case.images:
            if not known[path].facts.constant_channels:
                images[known[path].stamp.sha256].append((case.name, path))
        if _has_foreground(known[case.label].facts):
            labels[known[case.label].stamp.sha256].append((case.name, case.label))
    copied = [[*images[content], *labels[content]] for content in images.keys() & labels.keys()]
    if copied:
        yield f"images have the content of a label{_such_as(copied, last=True)}. Copy the images again"
    within = [group for group in images.values() if len({name for name, _ in group}) < len(group)]
    if within:
        yield f"channels of a case have the same content{_such_as(within)}. Check that none is copied by mistake"
    for what, groups in (("images", images), ("labels", labels)):
        between = [group for group in groups.values() if len({name for name, _ in group}) > 1]
        if between:
            yield (
                f"{what} of different cases have the same content{_such_as(between)}. Check that none is copied by "
                "mistake, and that no case is in the dataset twice: a fold could validate on what it was trained on"
            )


def _has_foreground(facts: FileFacts) -> bool:
    return any(value != 0 for value in facts.values or ())


def _such_as(groups: Sequence[Sequence[tuple[str, Path]]], last: bool = False) -> str:
    """Two files of the first group, its first and the next, or the last."""
    (_, first), (_, second) = groups[0][0], groups[0][-1 if last else 1]
    number = "" if len(groups) == 1 else f" ({len(groups)} times)"
    return f"{number}, such as {first.name} and {second.name}"
