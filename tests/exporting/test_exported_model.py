"""A model that travels: the labels of the original, every file checked, nothing executed, nothing private inside."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_folders import use_folders_below
from tiny_models import CASES, DATASET, FACTORIZER, STOCK, run_predict, write_dataset, write_model

from factorizer_nnunet import Predictor, __version__, cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.nnunet.checkpoint import read_fold
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.exported_model import manifest_of, opened_model
from factorizer_nnunet.nnunet.inference_settings import SHIFTS_VARIABLE
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL, ModelFolder
from factorizer_nnunet.nnunet.postprocessing import read_steps
from factorizer_nnunet.postprocessing.rule_file import write_postprocessing
from factorizer_nnunet.postprocessing.rules import Postprocessing, RegionRule
from factorizer_nnunet.prediction.model import load_model
from factorizer_nnunet.tuning.derive import derived_folder, derived_plans, write_derived
from factorizer_nnunet.tuning.search_space import stock_settings


def export(model: Path, out: Path, *options: str) -> Path:
    assert cli.main(["export", "-m", str(model), "-o", str(out), *options]) == 0
    return out


def labels_of(folder: Path) -> dict[str, bytes]:
    return {case: (folder / f"{case}.nii.gz").read_bytes() for case in CASES}


@pytest.fixture
def exported(root: Path, model: Path) -> Path:
    """An exported folder."""
    return export(model, root / "exported")


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder to copy."""
    root = tmp_path_factory.mktemp("sent")
    with pytest.MonkeyPatch.context() as patch:
        use_folders_below(root, patch)
        patch.setenv("nnUNet_compile", "f")
        write_dataset(root)
        return export(write_model(root), root / "exported")


@pytest.mark.parametrize("trainer", [FACTORIZER, STOCK, f"{FACTORIZER}_channeldrop"])
def test_folder_and_zip_give_the_labels_of_the_model(root: Path, trainer: str) -> None:
    model = write_model(root, trainer, folds=2)
    run_predict(root, model, folds=("0", "1"), use_mirroring=False)
    expected = labels_of(root / "out")
    for name in ("small.zip", "small"):
        export(model, root / name)
        out = root / f"out_{name}"
        command = ["predict", "-m", str(root / name), "-i", str(root / "images"), "-o", str(out)]
        assert cli.main([*command, "-device", "cpu", "-npp", "0", "-nps", "0", "--disable_tta"]) == 0
        assert labels_of(out) == expected
    with zipfile.ZipFile(root / "small.zip") as archive:
        archive.extractall(root / "unpacked")
    assert {p.relative_to(root / "unpacked"): p.read_bytes() for p in files_in(root / "unpacked")} == {
        p.relative_to(root / "small"): p.read_bytes() for p in files_in(root / "small")
    }
    original, travelled = (
        read_fold(path)
        for path in (model / "fold_1" / "checkpoint_final.pth", root / "small" / "fold_1" / "weights.safetensors")
    )
    assert original.weights.keys() == travelled.weights.keys()
    assert all(torch.equal(original.weights[name], travelled.weights[name]) for name in original.weights)
    assert (original.channel_drop, original.mirroring_axes) == (travelled.channel_drop, travelled.mirroring_axes)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_python_and_explain_take_it_too(root: Path, model: Path) -> None:
    zipped = export(model, root / "a model.zip")
    files = [root / "images" / f"a_{channel:04d}.nii.gz" for channel in range(2)]
    ours, theirs = (Predictor(path, device="cpu", use_mirroring=False).predict(files) for path in (zipped, model))
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    command = ["explain", "-m", str(zipped), "-i", *map(str, files), "-o", str(root / "maps"), "-device", "cpu"]
    assert cli.main([*command, "--format", "nifti", "--disable_tta", "--stage", "encoder-3"]) == 0
    assert (root / "maps" / "a").is_dir()


def test_the_same_model_gives_the_same_bytes_and_ordinary_tools_check_them(root: Path, exported: Path) -> None:
    model = next((root / "nnUNet_results").glob("*/*__*"))
    first, second = (export(model, root / name).read_bytes() for name in ("first.zip", "second.zip"))
    assert first == second
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=exported, check=True)


def write_scores(fold: Path) -> None:
    """A validation of one case."""
    case = {"metrics": {"1": {"Dice": 0.5}, "2": {"Dice": 0.7}}, "reference_file": "/home/me/Smith_Jane.nii.gz"}
    content = {"metric_per_case": [case], "scores_of": "validation of /home/me/model"}
    (fold / "validation").mkdir()
    (fold / "validation" / "summary.json").write_text(json.dumps(content))


def assert_nothing_private(exported: Path, root: Path) -> None:
    for file in files_in(exported):
        content = file.read_bytes()
        assert b"Smith" not in content and b"/home/" not in content and os.fsencode(root) not in content, file
        assert file.suffix in (".json", ".md", ".safetensors", "")


def test_nothing_private_travels_and_nothing_that_could_be_executed(root: Path, model: Path) -> None:
    cases = {"dataset": {"Smith_Jane": {"images": [], "label": ""}}, "absent_channels": {"Smith_Jane": [1]}}
    (model / "dataset.json").write_text(json.dumps({**DATASET, **cases}))
    write_scores(model / "fold_0")
    (model / "factorizer_inference.json").write_text(json.dumps({"derived_from": "/home/me", "tile_step_size": 0.75}))
    out = export(model, root / "exported")
    assert_nothing_private(out, root)
    assert json.loads((out / "scores.json").read_text())[0]["scores"][1] == {"region": "core", "mean": 0.7, "cases": 1}
    assert json.loads((out / "factorizer_inference.json").read_text()) == {"tile_step_size": 0.75}


def test_the_scores_of_a_derived_model_are_those_of_its_original(root: Path, model: Path) -> None:
    write_scores(model / "fold_0")
    loaded, name = load_model(model, ["0"], CHECKPOINT_FINAL), "nnUNetPlans_fast"
    assert isinstance(loaded.network, Factorizer)
    config = loaded.network.config
    setting = replace(stock_settings(config, ()), tile_step_size=0.75)
    derived = derived_folder(loaded, name)
    write_derived(loaded, derived_plans(loaded, config, setting, name), setting, derived, CHECKPOINT_FINAL, {})
    exported = export(derived, root / "exported")
    (scores,) = json.loads((exported / "scores.json").read_text())
    assert scores["note"] == "of the original model, with the settings it was trained with"
    assert scores["note"] in (exported / "README.md").read_text()
    assert_nothing_private(exported, root)


def test_sizes_of_the_training_images_travel_without_their_intensities(root: Path, model: Path) -> None:
    sizes = {"spacings": [[1, 1, 1]], "shapes_after_crop": [[9, 9, 9]], "factorizer_orientations": ["LPS"]}
    file = model / "dataset_fingerprint.json"
    file.write_text(json.dumps({**sizes, "foreground_intensity_properties_per_channel": {"0": {"mean": 3}}}))
    exported = export(model, root / "exported")
    assert json.loads((exported / file.name).read_text()) == sizes
    assert f"| {file.name}" in (exported / "README.md").read_text()


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def edited(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return edited


def with_record(**changes: object) -> Callable[[Path], None]:
    """The record is changed, and the list of digests with it."""

    def changed(folder: Path) -> None:
        file = folder / "factorizer_model.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
        (folder / "SHA256SUMS").write_text(manifest_of(folder))

    return changed


def unlisted(name: str) -> Callable[[Path], None]:
    def removed(folder: Path) -> None:
        lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
        (folder / "SHA256SUMS").write_text("".join(line for line in lines if not line.endswith(f" {name}\n")))

    return removed


def flipped(content: bytes) -> bytes:
    """One bit of the last number."""
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (edit("fold_0/weights.safetensors", flipped), "fold_0/weights.safetensors is not the file that was exp"),
    "plans": (edit("plans.json", lambda text: text.replace(b"0.5", b"0.6") + b" "), "plans.json is not the file"),
    "labels": (edit("dataset.json", lambda text: text.replace(b"rim", b"rum")), "dataset.json is not the file"),
    "card": (edit("README.md", lambda text: text + b"Approved for clinical use."), "README.md is not the file"),
    "record": (edit("factorizer_model.json", lambda text: text + b"\n"), "factorizer_model.json is not the file"),
    "record cut off": (
        edit("factorizer_model.json", lambda text: text[:50]),
        "factorizer_model.json is not valid JSON",
    ),
    "no card": (lambda folder: (folder / "README.md").unlink(), "README.md, the model card, is missing"),
    "card not listed": (unlisted("README.md"), "README.md is not listed in SHA256SUMS"),
    "weights not listed": (unlisted("fold_0/weights.safetensors"), "weights.safetensors is not listed"),
    "no weights": (lambda folder: (folder / "fold_0" / "weights.safetensors").unlink(), "weights.safetensors is mis"),
    "no list": (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "no record": (lambda folder: (folder / "factorizer_model.json").unlink(), "factorizer_model.json is missing"),
    "another file": (
        lambda folder: shutil.copy(folder / "plans.json", folder / "factorizer_inference.json"),
        "factorizer_inference.json: not listed in SHA256SUMS",
    ),
    "a list that leads outside": (
        edit("SHA256SUMS", lambda text: text + b"0" * 64 + b"  ../../secret\n"),
        "SHA256SUMS, line 6: expected a digest",
    ),
    "a newer version": (with_record(factorizer_nnunet="99.1"), r"exported by factorizer-nnunet 99.1\. This is version"),
    "a newer format": (with_record(format=2), "in format 2. This is version .* Install a newer version"),
    "no version": (with_record(factorizer_nnunet=None), "'None' is not a version"),
    "no folds": (with_record(folds=[]), "folds must be a list of names"),
    "a fold elsewhere": (with_record(folds=["../x"]), "folds must be numbers or all"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("what", DAMAGES)
def test_a_manipulated_or_incomplete_model_is_refused_by_name(
    tmp_path: Path, sent: Path, what: str, zipped: bool
) -> None:
    damage, message = DAMAGES[what]
    path = Path(shutil.copytree(sent, tmp_path / "model"))
    damage(path)
    if zipped:
        path = Path(shutil.make_archive(str(tmp_path / "travelled"), "zip", path))
    with pytest.raises(UserError, match=message) as refusal, opened_model(path):
        pass
    assert path.name in str(refusal.value)


def test_the_command_refuses_before_it_writes(root: Path, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit("fold_0/weights.safetensors", flipped)(exported)
    command = ["predict", "-m", str(exported), "-i", str(root / "images"), "-o", str(root / "out"), "-device", "cpu"]
    assert cli.main(command) == 2
    assert f"error: {exported}/fold_0/weights.safetensors is not the file that was" in capsys.readouterr().err
    assert not (root / "out").exists()


def test_older_versions_are_read(tmp_path: Path, sent: Path) -> None:
    exported = Path(shutil.copytree(sent, tmp_path / "model"))
    with_record(factorizer_nnunet="0.0.9")(exported)
    with opened_model(exported) as opened:
        assert opened.record is not None and opened.record.version == "0.0.9" != __version__


def test_channels_of_another_data_set_are_refused(root: Path, tmp_path: Path, sent: Path) -> None:
    exported = Path(shutil.copytree(sent, tmp_path / "model"))
    file = exported / "dataset.json"
    file.write_text(file.read_text().replace("T2", "FLAIR"))
    (exported / "SHA256SUMS").write_text(manifest_of(exported))
    with pytest.raises(UserError, match=r"names the channels T1, T2, dataset.json T1, FLAIR"):
        run_predict(root, exported, folds=None)


def test_weights_with_a_new_digest_must_still_fit(root: Path, exported: Path) -> None:
    """Whoever can change the digests, too, can change the labels, but not have code executed."""
    (exported / "fold_0" / "weights.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.")
    (exported / "SHA256SUMS").write_text(manifest_of(exported))
    with pytest.raises(UserError, match=r"weights.safetensors cannot be read .*truncated or damaged"):
        run_predict(root, exported, folds=None)


def test_a_folder_around_the_model_and_hidden_files_do_not_matter(tmp_path: Path, sent: Path) -> None:
    root, exported = tmp_path, Path(shutil.copytree(sent, tmp_path / "model"))
    (exported / ".gitattributes").write_text("*.safetensors filter=lfs")
    (root / "around").mkdir()
    exported.rename(root / "around" / "model")
    around = Path(shutil.make_archive(str(root / "download"), "zip", root / "around"))
    with opened_model(around) as opened:
        assert opened.record is not None and (opened.folder / "plans.json").is_file()
    assert not opened.folder.exists()


def test_other_files_are_told_from_exported_models(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(path: Path, *options: str) -> str:
        command = ["predict", "-m", str(path), "-i", str(root / "images"), "-o", str(root / "out"), *options]
        assert cli.main([*command, "-device", "cpu"]) == 2
        return capsys.readouterr().err

    nnunets = Path(shutil.make_archive(str(root / "nnunet"), "zip", root / "nnUNet_results"))
    assert "nnUNetv2_install_pretrained_model_from_zip" in refused(nnunets)
    assert "has no factorizer_model.json" in refused(model / "fold_0" / "checkpoint_final.pth")
    assert "is not a zip file" in refused(model / "plans.json")
    exported = export(model, root / "exported", "-f", "0")
    assert "name those with -f 0" in refused(exported, "-f", "1")
    assert "has no checkpoint_best.pth: leave out -chk" in refused(exported, "-chk", "checkpoint_best.pth")
    assert cli.main(["tune-inference", "-m", str(exported), "-device", "cpu"]) == 2
    assert "Name the original model folder" in capsys.readouterr().err
    assert cli.main(["channel-subsets", "-m", str(exported), "-device", "cpu"]) == 2
    assert "without the validation that this command needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (["T2", "T1"], "has the channels in another order"),
        (["T1", "T2", "ADC"], r"has channels that the model does not know \(ADC\)"),
        (["T1"], "has other channels"),
        (["t-1", "T 2"], None),
    ],
)
def test_images_of_other_channels_are_refused(root: Path, sent: Path, channels: list[str], message: str | None) -> None:
    exported = sent
    file = root / "dataset.json"
    file.write_text(json.dumps({**DATASET, "channel_names": dict(enumerate(channels))}))
    if message is None:
        assert run_predict(root, exported, folds=None, use_mirroring=False).predicted == list(CASES)
        return
    with pytest.raises(UserError, match=f"{file} {message}"):
        run_predict(root, exported, folds=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {**DATASET, "channel_names": {"0": "T1w", "1": "T2"}},
            r"does not know \(T1w\).*Are these images for this model",
        ),
        ({"channel_names": 3}, "are not compared with the model's"),
        ({**DATASET, "channel_names": {"0": "t1", "1": "T2"}}, None),
    ],
)
def test_images_of_other_channels_are_a_warning_for_ones_own_model(
    root: Path, model: Path, content: dict[str, Any], message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "dataset.json").write_text(json.dumps(content))
    assert run_predict(root, model, use_mirroring=False).predicted == list(CASES)
    err = capsys.readouterr().err
    assert re.search(message, err) if message else not err


def test_images_of_other_order_are_refused_by_ones_own_model(root: Path, model: Path) -> None:
    (root / "dataset.json").write_text(json.dumps({**DATASET, "channel_names": {"0": "T2", "1": "T1"}}))
    with pytest.raises(UserError, match="has the channels in another order"):
        run_predict(root, model)
    assert not (root / "out").exists()


def test_postprocessing_travels_and_is_applied(root: Path, model: Path) -> None:
    rules = Postprocessing({"rim": RegionRule(threshold=0.05)}, DatasetJson(DATASET))
    checkpoints = {"0": stamp_of(model / "fold_0" / "checkpoint_final.pth").sha256}
    write_postprocessing(ModelFolder(model).postprocessing_file, rules, checkpoints, {"made from": "/home/me"})
    exported = export(model, root / "exported.zip")
    labels = {}
    for path, postprocessed in ((model, True), (exported, True), (exported, False)):
        out = root / f"out{len(labels)}"
        run_predict(root, path, folds=("0",), use_mirroring=False, out=out, postprocessing=postprocessed)
        labels[path, postprocessed] = labels_of(out)
    assert labels[model, True] == labels[exported, True] != labels[exported, False]
    with opened_model(exported) as opened:
        assert "rim: threshold 0.05" in (opened.folder / "README.md").read_text()
        assert "/home/me" not in (opened.folder / "factorizer_postprocessing.json").read_text()


def test_the_choice_of_nnunet_is_recorded(root: Path, model: Path) -> None:
    chosen = {
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{"labels_or_regions": [1, [2, 1]]}],
    }
    file = model / "crossval_results_folds_0" / "postprocessing.json"
    file.parent.mkdir()
    file.write_text(json.dumps(chosen))
    exported = export(model, root / "exported")
    assert "only the largest component of label 1, 2 stays" in (exported / "README.md").read_text()
    assert read_steps(exported / "postprocessing.json") == ((1, 2),)
    file.write_text(json.dumps({**chosen, "postprocessing_fns": ["system"]}))
    with pytest.raises(UserError, match=r"postprocessing.json is not nnU-Net's postprocessing"):
        read_steps(file)


def test_requests_that_cannot_be_fulfilled_write_nothing(
    root: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*options: str, out: Path = root / "new.zip") -> str:
        assert cli.main(["export", "-m", str(model), "-o", str(out), *options]) == 2
        assert not (root / "new.zip").exists()
        return capsys.readouterr().err

    assert "exists and is not overwritten" in refused(out=root / "images")
    assert "is not a folder. Make it" in refused(out=root / "no" / "new.zip")
    assert "is not an identifier of a licence" in refused("--license", "CC BY 4.0")
    assert "needs the text of the licence" in refused("--license", "other")
    assert "does not exist. Name the text" in refused("--license-file", str(root / "no.txt"))
    assert "cannot read" in refused("--test-scores", str(root / "no.json"))
    (root / "scores.json").write_text('{"metric_per_case": [{"metrics": {"7": {"Dice": 1}}}]}')
    assert "has no scores of rim, core" in refused("--test-scores", str(root / "scores.json"))
    assert "name those with -f 0" in refused("-f", "3")
    with monkeypatch.context() as patch:
        patch.setenv(SHIFTS_VARIABLE, "1")
        assert f"{SHIFTS_VARIABLE} is set to '1'" in refused()
    model = export(model, root / "exported")
    assert "is not a model folder; if it was exported before, copy it" in refused()
    assert {path.name for path in root.iterdir() if path.name.startswith(".")} == set()


def test_digests_are_those_of_the_files(sent: Path) -> None:
    exported = sent
    listed = dict(reversed(line.split("  ")) for line in (exported / "SHA256SUMS").read_text().splitlines())
    assert listed == {
        path.relative_to(exported).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files_in(exported)
        if path.name != "SHA256SUMS"
    }
