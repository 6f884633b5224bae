"""Whatever a worker of fingerprint or preprocessing raises is one message that names the case."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from in_process import use_threads
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from planning_example import NAME, fingerprint, write_json

from factorizer_nnunet import cli
from factorizer_nnunet.planning.failures import LOG_FILE

ARGUMENTS = ["plan", "-d", "7", "-c", "3d_fullres", "-np", "1", "--no-data-check"]


@pytest.fixture
def made(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The dataset's folder in ``nnUNet_preprocessed``."""
    use_threads(monkeypatch)
    return folders / "nnUNet_preprocessed" / NAME


def test_a_worker_of_the_fingerprint(raw: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = raw / "imagesTr" / "case_1_0001.nii.gz"
    file.write_bytes(b"not an image")
    assert cli.main(ARGUMENTS) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: the fingerprint failed for case case_1 (")
    assert str(file) in message and str(made / LOG_FILE) in message
    assert "Traceback" in (made / LOG_FILE).read_text()
    assert not (made / "dataset_fingerprint.json").exists()


@pytest.fixture
def failing(raw: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Preprocessing of case_2 raises the exception in this list."""
    errors: list[Exception] = []
    original = DefaultPreprocessor.run_case

    def run_case(self: DefaultPreprocessor, images: list[str], *args: object) -> object:
        if errors and "case_2" in images[0]:
            raise errors[0]
        return original(self, images, *args)

    monkeypatch.setattr(DefaultPreprocessor, "run_case", run_case)
    write_json(made / "dataset_fingerprint.json", fingerprint((20, 28, 24)))
    return errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Error while\ncreating the NDArray"), "RuntimeError: Error while creating the NDArray"),
        (KeyError("spacing"), "KeyError: 'spacing'"),
        (ZeroDivisionError(), "ZeroDivisionError. The"),
    ],
)
def test_a_worker_of_preprocessing(
    failing: list[Exception], made: Path, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    failing.append(error)
    assert cli.main(ARGUMENTS) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "preprocessing failed for case case_2 (" in message and said in message
    assert type(error).__name__ in (made / LOG_FILE).read_text()
    failing.clear()
    assert cli.main(ARGUMENTS) == 0, "the same command completes what failed"


def test_a_full_disk_is_said(
    failing: list[Exception], made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(RuntimeError("Error while creating the NDArray"))
    assert cli.main([*ARGUMENTS, "--no-preprocess"]) == 0
    monkeypatch.setattr("factorizer_nnunet.planning.space.free_space", lambda folder: 1e12)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=4096))
    assert cli.main(ARGUMENTS) == 2
    assert "preprocessing failed: the disk of " in (message := capsys.readouterr().err)
    assert "is full (0 MB left). Free space, then run the same command again" in message


def test_a_killed_worker_is_said(failing: list[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    failing.append(RuntimeError("Some background worker is 6 feet under. Yuck."))
    assert cli.main(ARGUMENTS) == 2
    assert "most likely because memory ran out. Use fewer processes (-np)" in capsys.readouterr().err
