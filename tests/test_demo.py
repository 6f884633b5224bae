"""The demo: its patients cannot be thresholded, its folder is safe, its steps resume. Full training is `make demo`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from factorizer_nnunet.commands import demo
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.demo import jobs, run, stock
from factorizer_nnunet.demo.phantom import (
    MODALITIES,
    SHAPE,
    SPACING_MM,
    TRAINING_ROOT,
    VALIDATION_ROOT,
    draw_patient,
    write_set,
)
from factorizer_nnunet.demo.progress import EpochWatcher, Reporter
from factorizer_nnunet.demo.scores import dice, markdown_table, score_folder
from factorizer_nnunet.demo.workspace import FOLDS, Arguments, Workspace, opened
from factorizer_nnunet.network import Factorizer
from factorizer_nnunet.planning.image_geometry import ImageGeometry
from factorizer_nnunet.planning.templates import check_fit, load_template

RAW_REGIONS = {"whole tumor": (1, 2, 4), "tumor core": (1, 4), "enhancing tumor": (4,)}
ARGUMENTS = Arguments(patients=7, seed=3, trainer="nnUNetTrainerFactorizer_2epochs_3iters")


# Patients


def test_a_patient_is_an_int16_brain_with_nested_tumour_regions() -> None:
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
    assert "truth/BraTS2021_00002.nii.gz" in files
    image = sitk.ReadImage(str(tmp_path / "set" / f"{case}_t1ce.nii.gz"))
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1) and image.GetOrigin() == (0, -239, 0)
    with pytest.raises(FileExistsError):
        write_set(tmp_path / "set", training=2, held_out=1, seed=0)


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
    parser = argparse.ArgumentParser()
    demo.add_parser(parser.add_subparsers())
    args = parser.parse_args(["demo", *argv])
    return args.run(args)


def test_the_command_refuses_before_it_writes(tmp_path: Path) -> None:
    new, thesis = tmp_path / "new", tmp_path / "thesis.txt"
    thesis.write_text("mine")
    with pytest.raises(UserError, match="at least 7"):
        demo_command("--out", str(new), "--patients", "4")
    with pytest.raises(UserError, match="--seed -1 is negative"):
        demo_command("--out", str(new), "--seed", "-1")
    with pytest.raises(UserError, match="holds files that are not of this demo.*--out"):
        demo_command("--out", str(tmp_path))
    with pytest.raises(UserError, match="is a file"):
        demo_command("--out", str(thesis))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_other_arguments_are_refused_naming_them(tmp_path: Path) -> None:
    with opened(tmp_path, ARGUMENTS):
        pass
    with opened(tmp_path, ARGUMENTS):  # the same are welcome
        pass
    other = Arguments(patients=7, seed=4, trainer=ARGUMENTS.trainer)
    with pytest.raises(UserError, match="seed 3 there, 4 now.*--out"), opened(tmp_path, other):
        pass


def test_a_folder_is_held_against_a_second_demo(tmp_path: Path) -> None:
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


def command(code: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-c", code]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    with opened(tmp_path / "demo", ARGUMENTS) as workspace:
        return workspace


def run_all(workspace: Workspace, *todo: jobs.Job, lanes: int = 2) -> None:
    jobs.run_jobs(todo, lanes, workspace, {"GREETING": "hello"}, Reporter(steps=1))


def test_jobs_wait_for_one_another_and_run_once(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = workspace.out / "first", workspace.out / "second"
    write = "import os, sys; print('writing'); open({!r}, 'a').write(os.environ['GREETING'])"
    one = jobs.Job(
        name="one", argv=command(write.format(str(first))), outputs=(first,), watch=lambda line: f"heard {line.strip()}"
    )
    two = jobs.Job(
        name="two",
        argv=command(f"open({str(second)!r}, 'w').write(open({str(first)!r}).read())"),
        outputs=(second,),
        after=("one",),
    )
    run_all(workspace, two, one)
    assert second.read_text() == "hello"
    assert "heard writing" in capsys.readouterr().out
    run_all(workspace, two, one)
    assert first.read_text() == "hello"  # not written a second time
    assert "already there: two, one" in capsys.readouterr().out
    second.unlink()  # a lost output is made again, what it needs is not
    run_all(workspace, two, one)
    assert (first.read_text(), second.read_text()) == ("hello", "hello")


def test_a_failed_command_shows_the_end_of_its_log_and_stops_the_others(workspace: Workspace) -> None:
    mark = workspace.out / "late"
    bad = jobs.Job(name="bad", argv=command("raise SystemExit('no such fold')"), outputs=())
    slow = jobs.Job(name="slow", argv=command(f"import time; time.sleep(30); open({str(mark)!r}, 'w')"), outputs=())
    started = time.monotonic()
    with pytest.raises(UserError, match=r"(?s)bad ended with status 1.*bad\.log.*no such fold"):
        run_all(workspace, bad, slow)
    assert time.monotonic() - started < 20
    assert not jobs.end_left_over(workspace)
    assert not workspace.is_done("slow", ())


def test_a_missing_result_is_a_failure(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="idle left no .*nothing"):
        run_all(workspace, jobs.Job(name="idle", argv=command("pass"), outputs=(workspace.out / "nothing",)))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_commands_of_a_killed_demo_are_ended(workspace: Workspace) -> None:
    def start(owner: Path) -> subprocess.Popen:
        environment = {**os.environ, jobs.OWNER_VARIABLE: str(owner)}
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)

    ours, foreign = start(workspace.out), start(workspace.out / "other")
    try:
        assert jobs.end_left_over(workspace) == 1
        assert ours.wait(10) != 0
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()
        ours.kill()


def test_training_continues_from_a_checkpoint(workspace: Workspace) -> None:
    machine = stock.Machine(device="cpu", lanes=1, threads=1)
    job = stock.train_job(workspace, machine, 2)
    fresh = job.argv()
    assert Path(fresh[0]).is_file()
    assert fresh[1:] == f"999 3d_fullres 2 -tr {ARGUMENTS.trainer} -p nnUNetFactorizerPlans -device cpu".split()
    workspace.model(2).mkdir(parents=True)
    (workspace.model(2) / "checkpoint_latest.pth").touch()
    assert job.argv() == [*fresh, "--c"]


def test_half_a_prediction_is_done_again(workspace: Workspace) -> None:
    job = stock.predict_job(workspace, stock.Machine(device="cpu", lanes=1, threads=1), 0, held_out=2)
    draft = workspace.out / "predictions" / "fold_0.partial"
    draft.mkdir(parents=True)
    (draft / "half.nii.gz").touch()
    assert str(draft) in job.argv() and not draft.exists()
    draft.mkdir()
    job.finish()
    assert workspace.prediction(0).is_dir() and not draft.exists()


def test_epochs_are_read_from_the_log_of_nnunet() -> None:
    watch = EpochWatcher(fold=1, epochs=8)
    lines = [
        "2026-01-02 01:03:38.1: Epoch 2 ",
        "2026-01-02 01:03:38.2: Current learning rate: 0.00038 ",
        "2026-01-02 01:03:51.7: train_loss -0.1678 ",
        "2026-01-02 01:03:51.7: val_loss -0.2109 ",
        "2026-01-02 01:03:51.8: Pseudo dice [np.float32(0.659), np.float32(0.4319), np.float32(nan)] ",
        "2026-01-02 01:03:51.9: Epoch time: 15.78 s ",
    ]
    messages = [message for line in lines if (message := watch(line)) is not None]
    assert messages == ["fold 1: epoch 3 of 8, loss -0.17, patch Dice 0.66 0.43 nan (16 s)"]


# Scores and the whole run, with commands that only copy


def test_dice_of_masks_drawn_by_hand() -> None:
    truth = np.array([1, 1, 1, 0, 0], bool)
    assert dice(truth, np.array([0, 1, 1, 1, 0], bool)) == pytest.approx(4 / 6)
    assert dice(truth, ~truth) == 0
    assert dice(~truth & truth, truth & ~truth) == 1


def test_a_missing_prediction_is_an_error(tmp_path: Path) -> None:
    write_set(tmp_path / "set", training=0, held_out=1, seed=0)
    with pytest.raises(RuntimeError, match="BraTS2021_00000"):
        score_folder(run.RELEASE.schemes[0], tmp_path / "set" / "truth", tmp_path)


def test_table_is_markdown() -> None:
    table = markdown_table({"fold 0": {"core": 0.5, "mean": 0.25}, "ensemble": {"core": 1.0, "mean": 0.125}})
    assert table.splitlines() == [
        "| Dice     |  core |  mean |",
        "|----------|------:|------:|",
        "| fold 0   | 0.500 | 0.250 |",
        "| ensemble | 1.000 | 0.125 |",
    ]


class FakeCommands:
    """Stands in for `run_jobs`: folds miss the enhancing tumour, the ensemble is perfect; may be interrupted."""

    def __init__(self, interrupt_at: str | None = None) -> None:
        self.ran: list[str] = []
        self.interrupt_at = interrupt_at

    def __call__(self, todo: list[jobs.Job], lanes: int, workspace: Workspace, *_: object) -> None:
        for job in todo:
            if workspace.is_done(job.name, job.outputs):
                continue
            if job.name == self.interrupt_at:
                raise KeyboardInterrupt
            self.ran.append(job.name)
            for output in job.outputs:
                output.parent.mkdir(parents=True, exist_ok=True)
                if output.parent.name == "predictions":
                    self._predict(workspace, output)
                else:
                    output.touch()
            workspace.mark_done(job.name, 1.0)

    @staticmethod
    def _predict(workspace: Workspace, folder: Path) -> None:
        folder.mkdir()
        for path in workspace.truth.iterdir():
            labels = run.RELEASE.schemes[0].labels.apply(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
            if folder.name != "ensemble":
                labels[labels == 3] = 0
            sitk.WriteImage(sitk.GetImageFromArray(labels), str(folder / path.name))


def test_an_interrupted_demo_goes_on_and_a_finished_one_only_shows_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "demo"), "--patients", "7", "--seed", "1", "--device", "cpu"]
    interrupted = FakeCommands(interrupt_at="train_fold_3")
    monkeypatch.setattr(run, "run_jobs", interrupted)
    assert demo_command(*arguments) == 130
    assert interrupted.ran == ["plan", "preprocess", "train_fold_0", "train_fold_1", "train_fold_2"]
    assert "again to go on" in capsys.readouterr().out

    resumed = FakeCommands()
    monkeypatch.setattr(run, "run_jobs", resumed)
    reported: list[Path] = []
    monkeypatch.setattr(run, "write_report", lambda folders, target, **_: reported.extend([*folders, target]))
    assert demo_command(*arguments) == 0
    assert resumed.ran == ["train_fold_3", "train_fold_4", *(f"predict_fold_{fold}" for fold in FOLDS), "ensemble"]
    table = (tmp_path / "demo" / "results.md").read_text()
    output = capsys.readouterr().out
    assert table in output and "report.html" in output
    model, page = reported
    assert model.name.count("__") == 2 and page == tmp_path / "demo" / "report.html"
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert results["dice"]["ensemble"]["mean"] == 1
    assert results["dice"]["mean of folds"]["enhancing tumor"] == 0
    assert (tmp_path / "demo" / "figure.png").read_bytes().startswith(b"\x89PNG")

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").glob("results.*")}
    again = FakeCommands()
    monkeypatch.setattr(run, "run_jobs", again)
    assert demo_command(*arguments) == 0
    output = capsys.readouterr().out
    assert not again.ran and table in output and "is finished in" in output and "remove that folder" in output
    assert before == {path: path.stat().st_mtime_ns for path in before}
