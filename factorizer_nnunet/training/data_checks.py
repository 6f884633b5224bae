"""Whether preprocessed data are complete, and made from the raw data and plans as they are now.

nnU-Net trains on whatever its folders contain. Here, what has changed since is refused if a record or the files
themselves say so; times alone only warn, since clocks and copies may be wrong about data that took days to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import CHANGED, REMOVED, Source, Stamp, changes_since, in_words
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, CaseFiles, DatasetJson
from factorizer_nnunet.nnunet.integrity import is_preprocessed
from factorizer_nnunet.nnunet.label_copies import outdated_label_copies
from factorizer_nnunet.nnunet.names import id_in_name
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.nnunet.provenance import declared_values, preprocessed_data, raw_sources

_ENDINGS = (".pkl", ".b2nd", ".npz", ".npy")  # that nnU-Net accepts in a folder of preprocessed data


def check_data(folder: Path, plans: Mapping[str, Any], configuration: str, raw: Path | None) -> Iterator[str]:
    """Yield warnings about the data of a configuration.

    Args:
        folder: the dataset's folder in ``nnUNet_preprocessed``.
        plans: the plans.
        configuration: its name.
        raw: the dataset's folder in ``nnUNet_raw``; None if there is none, which training does not need.

    Raises:
        UserError: data are incomplete, or what they were made from has changed since.
    """
    data = folder / resolved_configuration(plans, configuration, str(plans["plans_name"]))["data_identifier"]
    number = id_in_name(str(plans["dataset_name"]))
    again = f"nnUNetv2_preprocess -d {number} -plans_name {plans['plans_name']} -c {configuration}"
    if foreign := sorted(path.name for path in data.iterdir() if path.suffix not in _ENDINGS):
        raise UserError(f"{data} contains other files than preprocessed cases: {first_few(foreign)}. Move them away")
    cases = sorted(cases_in(data))
    if not cases:
        raise UserError(f"{data} has no preprocessed cases. Preprocess: {again}")
    if incomplete := [case for case in cases if not is_preprocessed(data, case)]:
        raise UserError(
            f"{data}: the files of {count_of(len(incomplete), 'case')} are incomplete ({first_few(incomplete)}). "
            f"Preprocess again: {again}"
        )
    sources: dict[str, Source] = {}
    if raw is not None:
        description = DatasetJson.read(raw / DATASET_FILE, f"Correct it, or move {raw} away to train without raw data")
        _check_declaration(description, DatasetJson.read(folder / DATASET_FILE), number)
        raw_cases = description.training_cases(raw)
        if raw_cases:  # otherwise only dataset.json was kept
            _check_label_copies(raw_cases.values(), raw, folder, description.file_ending)
            sources = raw_sources(raw, description, raw_cases.values())
        if missing := sorted(set(raw_cases) - set(cases)):
            yield f"{count_of(len(missing), 'case')} of {raw} not in {data}, so never trained on: {first_few(missing)}"
    made = preprocessed_data(folder, plans, configuration, cases, sources)
    changes = made.changes()
    if changes is None or changes.made:
        if changes is not None:
            _check_readable(data, [case for case in cases if changes.made.get(case) == CHANGED], len(cases))
            yield (
                f"{data} is not as factorizer-nnunet plan made it: {first_few(in_words(changes.made), 3)}. Unless "
                f"another command has preprocessed since, stop and preprocess again: {again}"
            )
        if sources and made.is_older():
            yield (
                f"files in {raw} have later times than the preprocessed data in {data}. If they have changed since, "
                f"stop and preprocess again: {again}"
            )
        return
    # Without raw data nobody knows whether they have changed.
    changed = {name: change for name, change in changes.sources.items() if sources or change != REMOVED}
    if changed:
        raise UserError(
            f"the data in {data} were made from other sources: {first_few(in_words(changed), 3)}. Make them again: "
            f"factorizer-nnunet plan -d {number} -c {configuration} plans and preprocesses, {again} only preprocesses. "
            f"To train on them as they are, remove {made.record}"
        )


def check_trained_from(before: Mapping[str, str], sources: Mapping[str, Source], checkpoint: str) -> None:
    """Check that a checkpoint was trained on the data and the split as they are now.

    Args:
        before: SHA-256 of the sources at the start of the training, by name; empty if the checkpoint has none.
        sources: see ``provenance.split_sources``.
        checkpoint: for the message.

    Raises:
        UserError: it was not.
    """
    changes = changes_since({name: Stamp(0, 0, digest) for name, digest in before.items()}, sources) if before else {}
    if changes:
        raise UserError(
            f"{checkpoint} was trained on other data: {first_few(in_words(changes))}. Restore them, or train the fold "
            "again without --c, on the data as they are now; to start from these weights: -pretrained_weights "
            f"{checkpoint}"
        )


def _check_declaration(raw: DatasetJson, used: DatasetJson, number: int) -> None:
    changed = [key for key, value in declared_values(raw).items() if declared_values(used)[key] != value]
    if changed:
        raise UserError(
            f"{raw.path} has changed since planning, which copied it to {used.path}: {', '.join(changed)} "
            f"{'differ' if len(changed) > 1 else 'differs'}. Plan again: factorizer-nnunet plan -d {number}"
        )


def _check_label_copies(cases: Iterable[CaseFiles], raw: Path, folder: Path, ending: str) -> None:
    if old := list(outdated_label_copies(cases, folder, ending)):
        names = first_few([copy.name for copy in old])
        raise UserError(
            f"{old[0].parent} differs from {raw} in {count_of(len(old), 'label')} ({names}): the "
            "validation would be scored against them. Remove these copies and preprocess again, which copies the labels"
        )


def _check_readable(data: Path, suspects: Sequence[str], num_cases: int) -> None:
    """Read cases that may be damaged; where all of them differ, they were made again rather than damaged."""
    if len(suspects) == num_cases > 1:
        return
    for case in suspects:
        try:
            arrays = infer_dataset_class(str(data))(str(data), [case]).load_case(case)[:2]
            for array in arrays:
                np.asarray(array[:])
        except Exception as error:  # whatever pickle and blosc2 raise on random bytes
            raise UserError(
                f"{data}: the files of {case} are damaged ({type(error).__name__}: {error}). Move {case}.* away, then "
                "plan and preprocess again"
            ) from error


def cases_in(data: Path) -> set[str]:
    """Every case with any file in a folder of preprocessed data."""
    return {path.stem.removesuffix("_seg") for path in data.iterdir()}
