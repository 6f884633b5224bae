"""The demo: its patients cannot be thresholded, its folder is safe, it resumes. Full training is `make demo`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from scipy import ndimage

from factorizer_nnunet import cli
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.demo import run
from factorizer_nnunet.demo.figure import draw_figure
from factorizer_nnunet.demo.folder import Arguments, DemoFolder, opened
from factorizer_nnunet.demo.phantom import (
    MODALITIES,
    SHAPE,
    SPACING_MM,
    TRAINING_ROOT,
    VALIDATION_ROOT,
    draw_patient,
    write_set,
)
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.pages.palette import line_of, rgb
from factorizer_nnunet.planning.image_geometry import ImageGeometry
from factorizer_nnunet.planning.templates import check_fit, load_template

RAW_REGIONS = {"whole tumor": (1, 2, 4), "tumor core": (1, 4), "enhancing tumor": (4,)}
RAW_TO_NNUNET = {0: 0, 2: 1, 1: 2, 4: 3}
ARGUMENTS = Arguments(patients=7, seed=3, trainer="nnUNetTrainerFactorizer_2epochs_3iters")


# Patients


def test_a_patient_is_an_int16_brain_with_nested_tumor_regions() -> None:
    for number in range(4):
        patient = draw_patient(np.random.default_rng(number))
        assert patient.images.shape == (4, *SHAPE) and patient.images.dtype == np.int16
        assert patient.labels.shape == SHAPE and patient.labels.dtype == np.uint8
        assert set(np.unique(patient.labels)) == {0, 1, 2, 4}
        brain = patient.images[0] > 0
        assert all(np.array_equal(image > 0, brain) for image in patient.images)
        assert 0.2 < brain.mean() < 0.5
        assert not (patient.labels[~brain]).any()
        _, pieces = ndimage.label(np.isin(patient.labels, RAW_REGIONS["whole tumor"]))
        assert pieces == 1
        assert (patient.labels == 4).sum() > 100


def test_patients_come_from_their_generator_alone() -> None:
    state = np.random.get_state()[1].copy()
    one, same, other = (draw_patient(np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.images, same.images)
    np.testing.assert_array_equal(one.labels, same.labels)
    assert (one.labels != other.labels).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def best_threshold_dice(image: np.ndarray, mask: np.ndarray) -> float:
    """The best that any threshold on this very image, on either side, can do within the brain."""
    brain = image > 0
    values, inside = image[brain], mask[brain]
    thresholds = np.quantile(values, np.linspace(0.01, 0.99, 50))
    return max(dice(inside, chosen) for t in thresholds for chosen in (values > t, values < t))


@pytest.mark.parametrize(
    ("region", "ceiling"), [("whole tumor", 0.70), ("tumor core", 0.60), ("enhancing tumor", 0.60)]
)
def test_no_threshold_on_one_modality_segments_a_region(region: str, ceiling: float) -> None:
    patients = [draw_patient(np.random.default_rng([0, number])) for number in range(8)]
    masks = [np.isin(patient.labels, RAW_REGIONS[region]) for patient in patients]
    for number, modality in enumerate(MODALITIES):
        best = np.mean([best_threshold_dice(p.images[number], m) for p, m in zip(patients, masks, strict=True)])
        assert best < ceiling, modality


def test_the_set_is_laid_out_as_brats_2021(tmp_path: Path) -> None:
    write_set(tmp_path / "set", training=2, held_out=1, seed=0)
    files = sorted(str(path.relative_to(tmp_path / "set")) for path in (tmp_path / "set").rglob("*.nii.gz"))
    case = f"{TRAINING_ROOT}/BraTS2021_00001/BraTS2021_00001"
    assert [name for name in files if name.startswith(f"{TRAINING_ROOT}/BraTS2021_00001")] == sorted(
        f"{case}_{suffix}.nii.gz" for suffix in (*MODALITIES, "seg")
    )
    held_out = [name for name in files if name.startswith(VALIDATION_ROOT)]
    assert len(held_out) == 4 and not any("seg" in name for name in held_out)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "set" / "truth" / "BraTS2021_00002.nii.gz")))
    raw = draw_patient(np.random.default_rng([0, 2])).labels
    assert all((truth[raw == value] == new).all() for value, new in RAW_TO_NNUNET.items())
    image = sitk.ReadImage(str(tmp_path / "set" / f"{case}_t1ce.nii.gz"))
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1) and image.GetOrigin() == (0, -239, 0)
    with pytest.raises(FileExistsError):
        write_set(tmp_path / "set", training=2, held_out=1, seed=0)


def test_the_figure_outlines_nested_regions_in_their_colours(tmp_path: Path) -> None:
    write_set(tmp_path / "set", training=0, held_out=1, seed=0)
    (truth,) = (tmp_path / "set" / "truth").glob("*.nii.gz")
    case = truth.name.removesuffix(".nii.gz")
    for number, kind in enumerate(MODALITIES):
        (image,) = (tmp_path / "set").rglob(f"{case}_{kind}.nii.gz")
        image.rename(tmp_path / f"{case}_{number:04d}.nii.gz")
    draw_figure(run.RELEASE, tmp_path, truth.parent, truth.parent, tmp_path / "figure.png")
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    truth_and_prediction = np.array_split(pixels[: pixels.shape[0] * 4 // 5], 2, axis=1)[1]  # above the legend
    for number in range(len(RAW_REGIONS)):
        assert (np.abs(truth_and_prediction - rgb(line_of(number).colour)).max(axis=-1) < 40).sum() > 50, number


# Plan settings


def test_the_template_of_the_demo_fits_its_patients() -> None:
    images = ImageGeometry(num_channels=len(MODALITIES), spacing=[SPACING_MM] * 3, shape=list(SHAPE))
    check_fit(load_template("demo"), images, "the demo's data set")


def test_the_template_of_the_demo_is_small() -> None:
    template = load_template("demo")
    network = Factorizer(input_channels=4, num_classes=3, deep_supervision=False, **template.arch_kwargs)
    assert sum(parameter.numel() for parameter in network.parameters()) < 2e6
    assert np.prod(template.patch_size) < 50_000


# The folder


def test_patients_must_suffice_for_five_folds_and_a_test() -> None:
    assert run.held_out_patients(7) == 2
    assert run.held_out_patients(25) == 5
    for patients in (6, 0, -3):
        with pytest.raises(UserError, match=f"--patients {patients} is too few.*at least 7"):
            run.held_out_patients(patients)


def demo_command(*argv: str) -> int:
    """Run the subcommand as the command line does, but let a UserError through."""
    args = cli.build_parser().parse_args(["demo", *argv])
    return args.run(args)


def test_the_command_refuses_before_it_writes(tmp_path: Path) -> None:
    new, thesis = tmp_path / "new", tmp_path / "thesis.txt"
    thesis.write_text("mine")
    with pytest.raises(UserError, match="at least 7"):
        demo_command("--out", str(new), "--patients", "4")
    with pytest.raises(UserError, match="--seed -1 is negative"):
        demo_command("--out", str(new), "--seed", "-1")
    with pytest.raises(UserError, match="contains files of something else.*--out"):
        demo_command("--out", str(tmp_path))
    with pytest.raises(UserError, match="is a file"):
        demo_command("--out", str(thesis))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_other_arguments_are_refused_naming_them(tmp_path: Path) -> None:
    with opened(tmp_path, ARGUMENTS):
        pass
    with opened(tmp_path, ARGUMENTS):  # the same are accepted
        pass
    other = Arguments(patients=7, seed=4, trainer=ARGUMENTS.trainer)
    with pytest.raises(UserError, match="seed 3 then, 4 now.*--out"), opened(tmp_path, other):
        pass


def test_a_folder_is_locked_against_a_second_demo(tmp_path: Path) -> None:
    with (
        opened(tmp_path, ARGUMENTS),
        pytest.raises(UserError, match="another demo is running"),
        opened(tmp_path, ARGUMENTS),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"), opened(tmp_path / "file" / "below", ARGUMENTS):
        pass


# Commands


@pytest.fixture
def folder(tmp_path: Path) -> DemoFolder:
    with opened(tmp_path / "demo", ARGUMENTS) as folder:
        return folder


def write_program(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let a Python program stand in for factorizer-nnunet."""
    program = folder / "program"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(run, "script", lambda name: str(program))


def test_a_command_is_shown_and_finds_the_folders(
    folder: DemoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_program(tmp_path, monkeypatch, "import os, sys; print(os.environ['nnUNet_raw'], sys.argv[1:])")
    run.run_command(folder, "report", Path("a b"), 3)
    assert capfd.readouterr().out.splitlines() == [
        "",
        "$ factorizer-nnunet report 'a b' 3",
        f"{folder.out / 'nnUNet_raw'} ['report', 'a b', '3']",
    ]


def test_a_failed_command_ends_the_demo(folder: DemoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(tmp_path, monkeypatch, "raise SystemExit('no such fold')")
    with pytest.raises(UserError, match="factorizer-nnunet run ended with status 1, see above"):
        run.run_command(folder, "run", "-d", 999)


def test_an_interrupted_command_is_asked_to_end_and_awaited(
    folder: DemoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, saved = tmp_path / "begun", tmp_path / "saved"
    lines = ["import pathlib, signal, sys, time"]
    lines += [f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(saved)!r}).touch(), sys.exit(130)))"]
    lines += [f"pathlib.Path({str(begun)!r}).touch()", "time.sleep(60)"]
    write_program(tmp_path, monkeypatch, "\n".join(lines))

    def interrupt() -> None:
        while not begun.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    thread.start()
    try:
        with pytest.raises(SystemExit) as end:  # not KeyboardInterrupt: the command has said already how to continue
            run.run_command(folder, "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    thread.join()
    assert saved.exists()


# The complete job, with commands that only copy

DICE = {"whole tumor": 0.9, "tumor core": 0.8, "enhancing tumor": 0.0, "mean": 0.5}


class FakeCommands:
    """Stands in for `run_command`: folds miss the enhancing tumor, the ensemble is perfect; may be interrupted."""

    def __init__(self, interrupt_at: str | None = None) -> None:
        self.ran: list[argparse.Namespace] = []
        self.interrupt_at = interrupt_at

    def __call__(self, folder: DemoFolder, *words: object) -> None:
        args = cli.build_parser().parse_args([str(word) for word in words])  # a user could type it
        if args.command == self.interrupt_at:
            raise KeyboardInterrupt
        self.ran.append(args)
        getattr(self, args.command)(folder)

    @property
    def names(self) -> list[str]:
        return [args.command for args in self.ran]

    @staticmethod
    def convert(folder: DemoFolder) -> None:
        images = folder.run.raw / "imagesTs"
        images.mkdir(parents=True)
        for path in (folder.source / VALIDATION_ROOT).rglob("*.nii.gz"):
            case, modality = path.name.removesuffix(".nii.gz").rsplit("_", 1)
            shutil.copy(path, images / f"{case}_{MODALITIES.index(modality):04d}.nii.gz")

    @staticmethod
    def run(folder: DemoFolder) -> None:
        shutil.copytree(folder.references, folder.predictions)
        folder.run.run.mkdir(parents=True)
        model = {"folds": {str(fold): DICE for fold in range(5)}, "all_folds": DICE}
        perfect = dict.fromkeys(DICE, 1.0)
        steps = [{"name": "fingerprint", "seconds": 2.5}]
        summary = {"models": [model], "test": {"dice": perfect}, "steps": steps}
        folder.run.summary.with_suffix(".json").write_text(json.dumps(summary))

    @staticmethod
    def report(folder: DemoFolder) -> None:
        folder.report.touch()


def test_an_interrupted_demo_continues_and_a_finished_one_only_shows_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    arguments = ["--out", str(out), "--patients", "7", "--seed", "1", "--device", "cpu"]
    interrupted = FakeCommands(interrupt_at="run")
    monkeypatch.setattr(run, "run_command", interrupted)
    assert cli.main(["demo", *arguments]) == 130
    assert interrupted.names == ["convert"] and not (out / "results.json").exists()
    assert capsys.readouterr().err.count("Stopped; run the same command again to continue.") == 1

    resumed = FakeCommands()
    monkeypatch.setattr(run, "run_command", resumed)
    drawn = {path: path.stat().st_mtime_ns for path in (out / "brats2021").rglob("*.nii.gz")}
    assert demo_command(*arguments) == 0
    assert resumed.names == ["run", "report"]
    assert drawn == {path: path.stat().st_mtime_ns for path in drawn}
    ran, reported = resumed.ran
    assert (ran.template, ran.output, ran.references) == ("demo", out / "predictions", out / "brats2021" / "truth")
    assert [path.name.count("__") for path in reported.results] == [2] and reported.out == out / "report.html"
    table = (out / "results.md").read_text()
    output = capsys.readouterr().out
    assert table in output and "report.html" in output
    results = json.loads((out / "results.json").read_text())
    assert results["dice"]["ensemble"]["mean"] == 1 and results["seconds"] == {"fingerprint": 2.5}
    assert results["dice"]["fold 4"]["enhancing tumor"] == results["dice"]["all folds"]["enhancing tumor"] == 0
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")

    before = {path: path.stat().st_mtime_ns for path in out.glob("results.*")}
    again = FakeCommands()
    monkeypatch.setattr(run, "run_command", again)
    assert demo_command(*arguments) == 0
    output = capsys.readouterr().out
    assert not again.ran and table in output and "is finished in" in output and "remove that folder" in output
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_commands_of_a_killed_demo_are_ended_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(owner: Path) -> subprocess.Popen[bytes]:
        environment = {**os.environ, run.OWNER_VARIABLE: str(owner)}
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
        while not (Path("/proc") / str(process.pid) / "environ").read_bytes():
            time.sleep(0.01)
        return process

    monkeypatch.setattr(run, "run_command", FakeCommands(interrupt_at="convert"))
    ours, foreign = start(tmp_path / "demo"), start(tmp_path / "demo" / "other")
    try:
        with pytest.raises(KeyboardInterrupt):
            demo_command("--out", str(tmp_path / "demo"), "--patients", "7", "--device", "cpu")
        assert ours.wait(10) != 0
        assert foreign.poll() is None
    finally:
        for process in (ours, foreign):
            process.kill()
            process.wait()


def test_a_device_that_is_missing_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    with pytest.raises(UserError, match="no GPU found.*--device cpu"):
        demo_command("--out", str(tmp_path / "demo"), "--device", "cuda")
    assert not list(tmp_path.iterdir())


def test_table_is_markdown() -> None:
    table = run.dice_table({"fold 0": {"core": 0.5, "mean": 0.25}, "ensemble": {"core": 1.0, "mean": 0.125}})
    assert table.splitlines() == [
        "| Dice     |  core |  mean |",
        "|----------|------:|------:|",
        "| fold 0   | 0.500 | 0.250 |",
        "| ensemble | 1.000 | 0.125 |",
    ]
