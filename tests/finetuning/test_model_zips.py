"""Zips of models are unpacked without trusting them."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
import torch
from finetuning_example import zipped

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.finetuning.source import opened_source
from factorizer_nnunet.nnunet.model_zip import unpack_model

NAME = "nnUNetTrainerFactorizer__nnUNetPlans__3d_fullres"
CHECKPOINT = "checkpoint_final.pth"


def unpack(file: Path, tmp_path: Path, configuration: str | None = None) -> Path:
    target = tmp_path / "unpacked"
    target.mkdir()
    return unpack_model(file, target, CHECKPOINT, configuration)


def write_zip(file: Path, **members: str) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def test_only_what_a_model_needs_is_unpacked(model: Path, tmp_path: Path) -> None:
    (model / "fold_0" / "progress.png").write_bytes(b"picture")
    (model / "fold_0" / "checkpoint_best.pth").write_bytes(b"best")
    found = unpack(zipped(model, tmp_path / "model.zip"), tmp_path)
    assert found.name == model.name
    files = {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()}
    assert files == {"plans.json", "dataset.json", f"fold_0/{CHECKPOINT}"}
    assert (found / "fold_0" / CHECKPOINT).read_bytes() == (model / "fold_0" / CHECKPOINT).read_bytes()


def test_a_zip_of_several_models_needs_a_configuration(folders: Path, tmp_path: Path) -> None:
    file = write_zip(
        tmp_path / "two.zip",
        **{
            f"Dataset004_A/{NAME}/plans.json": "{}",
            f"Dataset004_A/{NAME.replace('3d_fullres', '2d')}/plans.json": "{}",
        },
    )
    with pytest.raises(UserError, match="two.zip has 2 models: .*2d, .*3d_fullres. Name one configuration with -c"):
        unpack(file, tmp_path)
    (tmp_path / "unpacked").rmdir()
    with pytest.raises(UserError, match="has 0 of 3d_lowres"):
        unpack(file, tmp_path, "3d_lowres")
    (tmp_path / "unpacked").rmdir()
    assert unpack(file, tmp_path, "2d").name.endswith("__2d")


@pytest.mark.parametrize("name", ["../evil", f"{NAME}/../../evil", "/etc/evil", f"{NAME}//plans.json", "a\\..\\evil"])
def test_paths_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    file = write_zip(tmp_path / "model.zip", **{f"{NAME}/plans.json": "{}", name: "evil"})
    with pytest.raises(UserError, match="leads out of its folder"):
        unpack(file, tmp_path)
    assert not list((tmp_path / "unpacked").iterdir())


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo(f"{NAME}/plans.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="plans.json is a link"):
        unpack(tmp_path / "model.zip", tmp_path)


def test_a_damaged_zip_is_reported(model: Path, tmp_path: Path) -> None:
    file = zipped(model, tmp_path / "model.zip")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match="is truncated or damaged .*Export the model again"):
        unpack(file, tmp_path)


def test_a_zip_without_a_model_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no model folder TRAINER__PLANS__CONFIGURATION"):
        unpack(write_zip(tmp_path / "other.zip", **{"plans.json": "{}"}), tmp_path)


def test_a_model_that_is_not_a_zip_of_nnunet_is_reported(folders: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"no zip")
    with pytest.raises(UserError, match="is not a zip file, or is cut off"), opened_source(file, None, None):
        pass


@pytest.mark.parametrize("name", ["exported", "exported.zip"])
def test_an_exported_model_is_a_source_too(model: Path, tmp_path: Path, name: str) -> None:
    assert cli.main(["export", "-m", str(model), "-o", str(tmp_path / name)]) == 0
    with opened_source(model, None, None) as original, opened_source(tmp_path / name, None, None) as exported:
        assert (exported.fold, exported.heads) == (original.fold, original.heads)
        assert exported.architecture == original.architecture
        before, after = original.checkpoint.weights, exported.checkpoint.weights
    assert all(torch.equal(before[key], after[key]) for key in before) and before.keys() == after.keys()
    with (
        pytest.raises(UserError, match=f"was exported from {CHECKPOINT} and has no checkpoint_best.pth"),
        opened_source(tmp_path / name, None, None, "checkpoint_best.pth"),
    ):
        pass
