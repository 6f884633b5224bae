"""Stopped, killed and diverging trainings: what they leave, and that --c completes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.crossval_split import generate_crossval_split
from preprocessed_case import save_case
from short_trainings import EPOCHS, STEPS, BeforeBatch, ShortTrainings, losses_of, weights_of

from factorizer_nnunet.core import interrupts
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import STOPPED
from factorizer_nnunet.nnunet.folds import ensure_folds
from factorizer_nnunet.nnunet.model_folder import FoldFolder
from factorizer_nnunet.nnunet.provenance import trained_fold
from factorizer_nnunet.training.checkpoints import MINUTES_VARIABLE, minutes_between_checkpoints, save_atomically
from factorizer_nnunet.training.random_state import random_state, restore_random_state
from factorizer_nnunet.training.resumable import RESUME_KEY, SOURCES_KEY


class Killed(BaseException):
    """As if the process ended here."""


def at(kind: str, given: int, number: int | None) -> BeforeBatch:
    """Before this batch: the signal ``number``, or for None an end without any warning."""

    def before(now: str, count: int) -> None:
        if (now, count) == (kind, given):
            if number is None:
                raise Killed
            os.kill(os.getpid(), number)

    return before


@pytest.fixture(scope="module")
def undisturbed() -> list[tuple[torch.Tensor, dict[str, list[float]]]]:
    """The result of ``uninterrupted`` after the first test that asks for it."""
    return []


@pytest.fixture
def uninterrupted(short: ShortTrainings, undisturbed: list) -> tuple[torch.Tensor, dict[str, list[float]]]:
    """Weights and log of a training that nothing interrupted."""
    if not undisturbed:
        trainer = short.trainer()
        trainer.run_training()
        shutil.rmtree(short.fold)
        short.fold.mkdir()
        undisturbed.append((weights_of(trainer), losses_of(trainer)))
    return undisturbed[0]


MOMENTS = [
    ("train", 0, signal.SIGTERM),  # the first step of all
    ("train", STEPS + 2, signal.SIGUSR1),  # within an epoch
    ("train", 2 * STEPS - 1, signal.SIGTERM),  # the last step of an epoch
    ("val", 1, signal.SIGTERM),  # a validation step
    ("train", STEPS + 2, None),
]


@pytest.mark.parametrize(("kind", "given", "number"), MOMENTS)
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(
    short: ShortTrainings,
    uninterrupted: tuple[torch.Tensor, dict[str, list[float]]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    given: int,
    number: int | None,
) -> None:
    if number is None:  # a signal needs no checkpoint before it
        monkeypatch.setenv(MINUTES_VARIABLE, "1e-9")  # after every step
    with pytest.raises(BaseException) as end:
        short.trainer(at(kind, given, number)).run_training()
    monkeypatch.delenv(MINUTES_VARIABLE, raising=False)
    if number is None:
        assert end.type is Killed
    else:
        assert (end.type, end.value.code) == (SystemExit, STOPPED)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "the process may be ended again"

    steps: list[str] = []
    trainer = short.trainer(lambda kind, given: steps.append(kind), go_on=True, seed=99)
    trainer.run_training()
    done = given if number is None else given + 1
    if kind == "train":
        assert steps.count("train") == EPOCHS * STEPS - done, "a training step was repeated or left out"
    expected, logged = uninterrupted
    torch.testing.assert_close(weights_of(trainer), expected, rtol=0, atol=0)
    assert losses_of(trainer) == logged
    assert {len(values) for values in trainer.logger.get_checkpoint().values()} == {EPOCHS}
    assert sorted(p.name for p in short.fold.glob("checkpoint*")) == ["checkpoint_best.pth", "checkpoint_final.pth"]


def test_without_the_minutes_a_short_training_saves_as_nnunet_does(
    short: ShortTrainings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(MINUTES_VARIABLE, "0")
    with pytest.raises(Killed):
        short.trainer(at("train", STEPS - 1, None)).run_training()
    assert not list(short.fold.glob("checkpoint*"))
    assert minutes_between_checkpoints({}) == 10
    for wrong in ("soon", "-1", "nan"):
        with pytest.raises(UserError, match=f"{MINUTES_VARIABLE} is '{wrong}'; set it to minutes"):
            minutes_between_checkpoints({MINUTES_VARIABLE: wrong})


@pytest.mark.parametrize("stopped", [True, False])
def test_data_loaders_that_the_signal_ends_do_not_cost_the_epoch(
    short: ShortTrainings,
    stopped: bool,
) -> None:
    def worker_dies(kind: str, given: int) -> None:
        if kind == "train" and given == STEPS + 2:
            if stopped:
                os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("One or more background workers are no longer alive")

    with pytest.raises(SystemExit if stopped else RuntimeError):
        short.trainer(worker_dies).run_training()
    if stopped:
        saved = torch.load(short.fold / "checkpoint_latest.pth", weights_only=False)
        assert saved["current_epoch"] == 1
        assert len(saved[RESUME_KEY]["losses"]) == 2


@pytest.mark.parametrize("kind", ["train", "val"])
def test_a_loss_that_is_not_a_number_stops_at_once(short: ShortTrainings, kind: str) -> None:
    trainer = short.trainer(at("train", STEPS + 1, signal.SIGTERM))
    with pytest.raises(SystemExit):
        trainer.run_training()
    latest = short.fold / "checkpoint_latest.pth"
    good = latest.read_bytes()

    trainer = short.trainer(go_on=True)
    loaders = trainer.get_dataloaders

    def spoilt_loaders() -> tuple:
        both = loaders()
        loader = both[kind == "val"]
        draw = loader.draw

        def spoilt() -> dict:
            batch = draw()
            batch["data"][1, 0, 3, 3, 3] = float("nan")
            return batch

        loader.draw = spoilt
        return both

    trainer.get_dataloaders = spoilt_loaders
    step = {"train": "training step 3", "val": "a validation step"}[kind]
    message = rf"the loss is nan in {step} of epoch 1 \(cases case_0, case_1\)\. The images of case_1 contain NaN"
    with pytest.raises(UserError, match=message) as error:
        trainer.run_training()
    assert str(error.value).endswith(f"{latest} is kept, and --c continues from it")
    assert latest.read_bytes() == good
    logs = "".join(log.read_text() for log in short.fold.glob("training_log*"))
    assert "Stopped: the loss is nan" in logs


def test_spoilt_weights_are_named(short: ShortTrainings) -> None:
    trainer = short.trainer()
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("inf"))
    with pytest.raises(UserError, match=r"images are finite, the weights no longer are \(\S+\.weight first\)") as e:
        trainer.run_training()
    assert "train with a learning rate below" in str(e.value)
    assert str(e.value).endswith("No checkpoint had been written")


def test_what_kills_left_is_cleared_away_and_nothing_else(short: ShortTrainings) -> None:
    trainer = short.trainer()
    for name in ("checkpoint_latest.pth.draft", "checkpoint_final.pth.draft", "mine.draft"):
        (short.fold / name).write_bytes(b"half")
    trainer.on_train_start()
    assert [path.name for path in short.fold.glob("*.draft")] == ["mine.draft"]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "checkpoint_latest.pth"
    save_atomically({"value": 1}, file)

    def full(content: object, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*checkpoint_latest.pth .*Free space"):
        save_atomically({"value": 2}, file)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert torch.load(file) == {"value": 1}


@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_signal_ends_the_final_validation(
    short: ShortTrainings,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    calls: list[str] = []

    def validate(self: nnUNetTrainer, save_probabilities: bool = False) -> None:
        calls.append("begun")
        os.kill(os.getpid(), signal.SIGTERM)
        calls.append("went on")

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", validate)
    monkeypatch.setattr(interrupts, "end_process", sys.exit)
    trainer = short.trainer()
    stale = short.fold / "validation" / "summary.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    if moment == "before":
        with trainer._stop.noted():
            os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        trainer.perform_actual_validation()
    assert end.value.code == STOPPED
    assert calls == {"before": [], "within": ["begun"]}[moment]
    assert not stale.exists(), "what says that the validation is complete"


def test_folds_are_nnunets_own(tmp_path: Path) -> None:
    cases = [f"case_{number}" for number in (3, 1, 2, 5, 4, 0)]
    file = tmp_path / "splits_final.json"
    ensure_folds(file, cases)
    assert json.loads(file.read_text()) == generate_crossval_split(sorted(cases))
    file.write_text(json.dumps([{"train": ["case_0"], "val": ["case_1"]}]))
    ensure_folds(file, cases)
    assert json.loads(file.read_text()) == [{"train": ["case_0"], "val": ["case_1"]}]
    file.write_text('[{"train": ["case_')
    with pytest.raises(UserError, match=r"splits_final.json is not valid JSON: .* Correct the file, or move it away"):
        ensure_folds(file, cases)
    assert file.read_text() == '[{"train": ["case_'
    with pytest.raises(UserError, match="3 training cases are too few for 5 folds.* nnUNetv2_train … all"):
        ensure_folds(tmp_path / "new.json", cases[:3])


def test_a_finished_fold_says_what_it_was_trained_from(short: ShortTrainings) -> None:
    trainer = short.trainer()
    trainer.run_training()
    sources = trainer._current_sources()
    assert set(sources) == {"case_0", "case_1", "training cases", "validation cases"}
    finished = trained_fold(FoldFolder(short.fold), sources)
    assert finished.changed_sources() == {}
    saved = torch.load(short.fold / "checkpoint_final.pth", weights_only=False)
    assert saved[SOURCES_KEY] == {name: stamp.sha256 for name, stamp in sources.items()}
    (short.fold / "checkpoint_final.pth").write_bytes(b"another training")
    assert trained_fold(FoldFolder(short.fold), sources).changed_sources() is None


@pytest.mark.parametrize("what", ["image", "label", "folds"])
def test_a_training_is_not_resumed_on_other_data(short: ShortTrainings, what: str) -> None:
    with pytest.raises(SystemExit):
        short.trainer(at("train", STEPS + 2, signal.SIGTERM)).run_training()
    saved = (short.fold / "checkpoint_latest.pth").read_bytes()
    if what == "folds":
        folds = [{"train": ["case_1"], "val": ["case_0"]}]
        (short.preprocessed / "splits_final.json").write_text(json.dumps(folds))
        expected = "training cases (changed), validation cases (changed)"
    else:
        save_again(short, image=int(what == "image"), label=int(what == "label"))
        expected = "case_1 (changed)"
    with pytest.raises(UserError, match=re.escape(f"was trained on other data: {expected}. Restore them, or train")):
        short.trainer(go_on=True)
    assert (short.fold / "checkpoint_latest.pth").read_bytes() == saved


def test_data_made_again_alike_are_the_same_data(short: ShortTrainings) -> None:
    with pytest.raises(SystemExit):
        short.trainer(at("train", STEPS + 2, signal.SIGTERM)).run_training()
    save_again(short)
    short.trainer(go_on=True)


def save_again(short: ShortTrainings, image: int = 0, label: int = 0) -> None:
    """Write the files of case_1 again, with a time in the past, which says nothing."""
    folder = short.preprocessed / "nnUNetPlans_3d"
    for file in folder.glob("case_1*"):
        file.unlink()
    save_case(folder, "case_1", image, label)
    for file in folder.glob("case_1*"):
        os.utime(file, (10**9, 10**9))


def test_a_checkpoint_of_an_earlier_version_is_resumed(short: ShortTrainings) -> None:
    with pytest.raises(SystemExit):
        short.trainer(at("train", STEPS + 2, signal.SIGTERM)).run_training()
    latest = short.fold / "checkpoint_latest.pth"
    content = torch.load(latest, weights_only=False)
    del content[SOURCES_KEY]
    torch.save(content, latest)
    short.trainer(go_on=True)


def test_the_random_state_comes_back_through_a_safe_checkpoint(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    torch.save(random_state(cpu), tmp_path / "state.pth")
    drawn = (torch.rand(3), np.random.rand(3), np.random.randn())
    restore_random_state(torch.load(tmp_path / "state.pth", weights_only=True), cpu)
    again = (torch.rand(3), np.random.rand(3), np.random.randn())
    for one, other in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_random_state_of_a_gpu_comes_back() -> None:
    device = torch.device("cuda", 0)
    state = random_state(device)
    drawn = torch.rand(3, device=device)
    restore_random_state(state, device)
    torch.testing.assert_close(torch.rand(3, device=device), drawn, rtol=0, atol=0)
