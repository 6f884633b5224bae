"""Short titles for results: the parts of their folder names that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from factorizer_nnunet.nnunet.model_name import ModelName, parse_ensemble, short_trainer

_PARTS = ("trainer", "plans", "configuration")


# What a folder is named after: a model, the two members of an ensemble, or only its own name; and a note.
_Named = tuple[tuple[ModelName | str, ...], str]


def titles_for(folders: Sequence[Path], complete: bool = False) -> list[str]:
    """A short title for each folder, all different; models are named by the parts of their names that differ.

    With ``complete``, trainers have the names that nnU-Net knows, as in names of files.
    """
    named = [_named(folder) for folder in folders]
    models = [model for members, _ in named for model in members if isinstance(model, ModelName)]
    differing = [part for part in _PARTS if len({getattr(model, part) for model in models}) > 1] or ["trainer"]
    titles = [_title(members, note, differing, complete) for members, note in named]
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
            return models, note
    return (folder.name,), ""


def _title(models: Sequence[ModelName | str], note: str, differing: Sequence[str], complete: bool) -> str:
    names = [
        one if isinstance(one, str) else ", ".join(_part(one, part, complete) for part in differing) for one in models
    ]
    title = names[0] if len(names) == 1 else "ensemble of " + " and ".join(names)
    return f"{title}, {note}" if note else title


def _part(model: ModelName, part: str, complete: bool) -> str:
    name = str(getattr(model, part))
    return short_trainer(name) if part == "trainer" and not complete else name
