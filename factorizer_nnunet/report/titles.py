"""Short names for results: what tells one folder from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.report.folders import ENSEMBLE

_SEPARATOR = "__"  # between trainer, plans and configuration; nnU-Net joins the members of an ensemble by three _


@dataclass(frozen=True)
class _Named:
    """What a folder is named after: models, of which an ensemble has two, and a note."""

    models: tuple[tuple[str, ...], ...]  # trainer, plans and configuration; or the folder's own name alone
    note: str = ""


def titles_for(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder, all different: of models the parts of their names in which they differ."""
    named = [_named(folder) for folder in folders]
    full = [model for one in named for model in one.models if len(model) == 3]
    differing = [place for place in range(3) if len({model[place] for model in full}) > 1] or [0]
    titles = [_title(one, differing) for one in named]
    often = Counter(titles)
    return [
        title if often[title] == 1 else f"{title} ({folder})" for title, folder in zip(titles, folders, strict=True)
    ]


def _named(folder: Path) -> _Named:
    for path in (folder, *folder.parents[:2]):
        note = "" if path == folder or "postprocessed" not in folder.parts else "postprocessed"
        if path.name.startswith(ENSEMBLE):
            members = path.name.removeprefix(ENSEMBLE).split("___")[:2]
            return _Named(tuple(tuple(member.split(_SEPARATOR)) for member in members), note)
        if path.name.count(_SEPARATOR) == 2:
            return _Named((tuple(path.name.split(_SEPARATOR)),), note)
    return _Named(((folder.name,),))


def _title(named: _Named, differing: Sequence[int]) -> str:
    models = [", ".join(model[place] for place in differing) if len(model) == 3 else model[0] for model in named.models]
    title = models[0] if len(models) == 1 else "ensemble of " + " and ".join(models)
    return f"{title}, {named.note}" if named.note else title
