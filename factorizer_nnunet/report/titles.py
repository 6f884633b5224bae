"""Short titles for results: the parts of their folder names that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.nnunet.model_name import ModelName, parse_ensemble

_PARTS = ("trainer", "plans", "configuration")


@dataclass(frozen=True)
class _Named:
    """What a folder is named after: a model, the two members of an ensemble, or only its own name."""

    models: tuple[ModelName | str, ...]  # a text if it is not a name of nnU-Net's
    note: str = ""


def titles_for(folders: Sequence[Path]) -> list[str]:
    """A short title for each folder, all different; models are named by the parts of their names that differ."""
    named = [_named(folder) for folder in folders]
    models = [model for one in named for model in one.models if isinstance(model, ModelName)]
    differing = [part for part in _PARTS if len({getattr(model, part) for model in models}) > 1] or ["trainer"]
    titles = [_title(one, differing) for one in named]
    often = Counter(titles)
    return [
        title if often[title] == 1 else f"{title} ({folder})" for title, folder in zip(titles, folders, strict=True)
    ]


def _named(folder: Path) -> _Named:
    for path in (folder, *folder.parents[:2]):
        note = "postprocessed" if path != folder and "postprocessed" in folder.parts else ""
        names = parse_ensemble(path.name) or (path.name,)
        models = tuple(ModelName.parse(name) or name for name in names)
        if len(models) == 2 or isinstance(models[0], ModelName):
            return _Named(models, note)
    return _Named((folder.name,))


def _title(named: _Named, differing: Sequence[str]) -> str:
    models = [
        model if isinstance(model, str) else ", ".join(getattr(model, part) for part in differing)
        for model in named.models
    ]
    title = models[0] if len(models) == 1 else "ensemble of " + " and ".join(models)
    return f"{title}, {named.note}" if named.note else title
