"""The command blocks of the README and the tutorials, run one after the other in a shell, on tiny data."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from blobs import CASES, TEST_CASES, write_dataset
from nifti_files import intensities, labels, write
from workspace import BLOBS, PLANS, Workspace

pytestmark = pytest.mark.slow

PAGES = Path(__file__).resolve().parents[2]
_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer")
_SHAPE = (20, 18, 16)
SHORT = "nnUNetTrainerFactorizer_1epochs_2iters"


def run_blocks(page: str, replaced: Mapping[str, str], folder: Path, env: Mapping[str, str]) -> None:
    """Run all blocks of a page in one shell in ``folder``, with texts ``replaced``."""
    text = (PAGES / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    script = "\n".join(["set -euo pipefail", *blocks])
    for text, other in {"pip install .": ":", **replaced}.items():
        assert text in script, f"{page} has no {text!r}"
        script = script.replace(text, other)
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    shell = {**env, "HOME": str(folder), "PATH": path}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=shell, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_a_first_model_of_images_and_masks(tmp_path: Path) -> None:
    write_dataset(tmp_path / "drawn", {"background": 0, "rim": 1, "core": 2})
    for target, part, cases in (("images", "imagesTr", CASES), ("new_images", "imagesTs", TEST_CASES)):
        (tmp_path / target).mkdir()
        for case in cases:
            shutil.copy(tmp_path / "drawn" / part / f"{case}_0000.nii.gz", tmp_path / target / f"{case}.nii.gz")
    (tmp_path / "drawn" / "labelsTr").rename(tmp_path / "masks")
    env = {name: value for name, value in Workspace.below(tmp_path / "other").env.items() if name not in _FOLDERS}
    replaced = {
        "--labels tumor": "--labels rim core",
        "factorizer-nnunet doctor": ":",  # its tests are its own
        "nnUNetv2_train": "nnUNetv2_train -device cpu",
        "factorizer-nnunet predict": "factorizer-nnunet predict -device cpu",
        "nnUNetTrainerFactorizer_20m": SHORT,
    }
    run_blocks("docs/tutorials/first_model.md", replaced, tmp_path, {**env, "nnUNet_n_proc_DA": "0"})
    raw = tmp_path / "nnunet" / "nnUNet_raw" / "Dataset001_Own"
    assert json.loads((raw / "dataset.json").read_text())["channel_names"] == {"0": "CT"}
    assert {path.name for path in (tmp_path / "predictions").glob("*.nii.gz")} == {f"{c}.nii.gz" for c in TEST_CASES}
    assert SHORT in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_from_a_unet_to_a_factorizer(folds: Workspace, tmp_path: Path) -> None:
    """A trained fold stands in for that of the U-Net."""
    for part in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(folds.root / part / BLOBS, tmp_path / part / BLOBS)
    (tmp_path / "nnUNet_preprocessed" / BLOBS / f"{PLANS}.json").unlink()
    results = tmp_path / "nnUNet_results" / BLOBS
    unet, other_fold = results / "nnUNetTrainer__nnUNetPlans__3d_fullres", shutil.ignore_patterns("fold_1")
    shutil.copytree(folds.model("3d_fullres"), unet, ignore=other_fold)
    env = {name: value for name, value in folds.env.items() if name != "nnUNet_extTrainer"}
    env |= {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    replaced = {
        "Dataset004_Mine": BLOBS,
        "nnUNetv2_train 4": "nnUNetv2_train -device cpu 501",
        "nnUNetv2_predict -d 4": "nnUNetv2_predict -device cpu -npp 0 -nps 0 -d 501",
        "plan -d 4": "plan -d 501 -np 1",
        "nnUNetTrainerFactorizer": SHORT,
    }
    run_blocks("docs/tutorials/from_my_unet.md", replaced, tmp_path, {**env, "nnUNet_n_proc_DA": "0"})
    fold = results / f"{SHORT}__nnUNetPlans__3d_fullres" / "fold_0"
    assert (fold / "checkpoint_final.pth").is_file() and list((fold / "validation").glob("*.npz"))
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "U-Net" in page and SHORT in page
    assert {path.name for path in (tmp_path / "predictions").glob("*.nii.gz")} == {f"{c}.nii.gz" for c in TEST_CASES}
    assert (tmp_path / "nnUNet_preprocessed" / BLOBS / f"{PLANS}.json").is_file()


def test_the_readme(planned: Workspace, tmp_path: Path) -> None:
    """A BraTS release is drawn, and preprocessed data stand in for those of the reader's U-Net."""
    for number in range(5):
        case = f"BraTS2021_{number:05d}"
        for channel in ("t1", "t1ce", "t2", "flair"):
            write(tmp_path / "BraTS2021" / case / f"{case}_{channel}.nii.gz", intensities(case + channel, _SHAPE))
        write(tmp_path / "BraTS2021" / case / f"{case}_seg.nii.gz", labels(case, _SHAPE, (1, 2, 4)).astype(np.uint8))
    write_dataset(tmp_path / "drawn", {"background": 0, "rim": 1, "core": 2})
    (tmp_path / "images").mkdir()
    for case in CASES:
        shutil.copy(tmp_path / "drawn" / "imagesTr" / f"{case}_0000.nii.gz", tmp_path / "images" / f"{case}.nii.gz")
    (tmp_path / "drawn" / "labelsTr").rename(tmp_path / "masks")
    env = {name: value for name, value in planned.env.items() if name not in _FOLDERS}
    results = tmp_path / "of_the_unet"
    results.mkdir()
    folders = f"nnUNet_raw={planned.raw} nnUNet_preprocessed={planned.preprocessed} nnUNet_results={results}"
    number = str(int(BLOBS[7:10]))
    replaced = {
        "factorizer-nnunet doctor": ":",
        "factorizer-nnunet demo": ":",  # its tests are its own
        "nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerFactorizer": (
            f"{folders} nnUNetv2_train {number} 3d_fullres 0 -device cpu -tr {SHORT}"
        ),
        "factorizer-nnunet predict -d 4": f"{folders} factorizer-nnunet predict -d {number} -device cpu -tr {SHORT}",
        "-i IMAGES": f"-i {planned.unseen}",
        "--labels liver tumor": "--labels rim core",
        "factorizer-nnunet run -d 137": f"factorizer-nnunet run -d 137 -f 0 -tr {SHORT} -device cpu -np 1",
    }
    run_blocks("README.md", replaced, tmp_path, {**env, "nnUNet_n_proc_DA": "0"})
    assert (results / BLOBS / f"{SHORT}__nnUNetPlans__3d_fullres" / "fold_0" / "checkpoint_final.pth").is_file()
    assert {path.name for path in (tmp_path / "OUT").glob("*.nii.gz")} == {f"{case}.nii.gz" for case in TEST_CASES}
    root = tmp_path / "nnunet"
    [own] = (root / "nnUNet_raw").glob("Dataset001_*")
    assert json.loads((own / "dataset.json").read_text())["labels"] == {"background": 0, "rim": 1, "core": 2}
    [dataset] = (root / "nnUNet_results").glob("Dataset137_*")
    assert (dataset / f"{SHORT}__{PLANS}__3d_fullres" / "fold_0" / "validation" / "summary.json").is_file()
