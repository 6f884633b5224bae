"""The folds of a converted data set where nnU-Net looks for them, in its folder below nnUNet_preprocessed."""

from __future__ import annotations

import json
from pathlib import Path

from factorizer_nnunet.files import write_whole

SPLITS_FILE = "splits_final.json"


def install_splits(data_set: Path, preprocessed: Path) -> str:
    """Copy the folds of ``data_set`` (below nnUNet_raw) to ``preprocessed``; what is there already is kept.

    Returns what happened, a sentence for the user; "" if there was nothing to do.
    """
    source, target = data_set / SPLITS_FILE, preprocessed / data_set.name / SPLITS_FILE
    if not source.is_file():
        return ""
    text = source.read_text(encoding="utf-8")
    if target.is_file():
        same = target.read_text(encoding="utf-8") == text
        return "" if same else f"{target} is kept; the folds of the conversion, {source}, differ from it"
    first = json.loads(text)[0]
    labelled = {path.name.removesuffix(".nii.gz") for path in (data_set / "labelsTr").iterdir()}
    if {*first["train"], *first["val"]} != labelled:
        return f"{source} is not used: cases were added to or removed from {data_set / 'labelsTr'} since the conversion"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, text)
    return f"folds that keep each patient's cases together: {target}"
