"""The names that ``factorizer_nnunet`` itself offers, by the examples in their docstrings."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

import factorizer_nnunet
from factorizer_nnunet import evaluate_arrays

LABELS = {
    "channel_names": {"0": "T1"},
    "labels": {"background": 0, "rim": 1, "core": 2},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def folder(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the examples name, in the current folder."""
    (root / "model").symlink_to(model)
    for file in (root / "images").glob("a_*"):
        (root / file.name).symlink_to(file)
    labels = np.zeros((6, 8, 10), np.uint8)
    labels[1:5, 2:6, 2:8], labels[2:4, 3:5, 4:6] = 1, 2
    for name in ("predictions", "labelsTr"):
        (root / name).mkdir()
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(root / name / "a.nii.gz"))
    (root / "predictions" / "dataset.json").write_text(json.dumps(LABELS))
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("name", [name for name in factorizer_nnunet.__all__ if name != "__version__"])
def test_examples(name: str, folder: Path) -> None:
    found = getattr(factorizer_nnunet, name)
    (example,) = (one for one in doctest.DocTestFinder(recurse=False).find(found, name, globs={name: found}))
    assert example.examples, f"{name} has no example"
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_package_alone_imports_nothing_heavy() -> None:
    code = "import sys, factorizer_nnunet; print(sorted({'torch', 'nnunetv2', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    code = "import sys; from factorizer_nnunet import build_network; print('nnunetv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_regions_are_named_by_their_labels_or_by_hand() -> None:
    labels = np.zeros((5, 6, 7), np.int16)
    labels[1:3, 1:4, 1:4], labels[2, 2, 2] = 1, 3
    assert list(evaluate_arrays(labels, labels, (1, 1, 1))) == ["label 1", "label 3"]
    assert list(evaluate_arrays(labels, labels, (1, 1, 1), ignore=3)) == ["label 1"]
    scores = evaluate_arrays(labels > 0, labels, (1, 1, 1), {"all": (1, 3)})
    assert scores["all"]["dice"] == 1


@pytest.mark.parametrize(
    ("prediction", "spacing", "message"),
    [
        (np.zeros((3, 3, 3), np.float32), (1, 1, 1), "prediction has the type float32"),
        (np.zeros((3, 3, 3), int), (1, 1), "expected 3 sizes above 0"),
        (np.zeros((3, 3, 3), int), (1, 0, 1), "expected 3 sizes above 0"),
        (np.zeros((3, 3, 4), int), (1, 1, 1), "differ"),
    ],
)
def test_arrays_that_cannot_be_scored(prediction: np.ndarray, spacing: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_arrays(prediction, np.zeros((3, 3, 3), int), spacing)
