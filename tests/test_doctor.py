"""The doctor: every problem becomes a line with its fix, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from factorizer_nnunet import cli, doctor
from factorizer_nnunet.doctor import Check, Probe, Status
from factorizer_nnunet.nnunet.environment import (
    FOLDER_VARIABLES,
    create_folders,
    environment_variables,
    ext_trainer_folder,
)


def results(*probes: Probe) -> list[Check]:
    return list(doctor.run_checks(list(probes)))


@pytest.mark.parametrize(
    "error", [ImportError("no lib\nlong text"), RuntimeError(""), SystemExit(3), OSError(28, "full")]
)
def test_an_exception_in_a_check_becomes_a_failed_line(error: BaseException) -> None:
    def broken() -> Check:
        raise error

    fine = Probe("fine", lambda: Check("fine", Status.OK, "good"), "")
    first, second = results(Probe("bad", broken, "do this"), fine)
    assert (first.name, first.status, first.fix) == ("bad", Status.FAIL, "do this")
    assert first.detail.startswith(type(error).__name__) and "\n" not in first.detail
    assert second.status is Status.OK


def test_interruption_is_not_swallowed() -> None:
    def interrupted() -> Check:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results(Probe("x", interrupted, ""))


@pytest.mark.parametrize(
    ("version", "status"), [((3, 9), Status.FAIL), ((3, 10), Status.OK), ((3, 13), Status.OK), ((4, 0), Status.OK)]
)
def test_python_version(version: tuple[int, int], status: Status) -> None:
    assert doctor.check_python(version).status is status


def test_a_missing_package_is_named() -> None:
    check = doctor.check_package("surely-not-installed", {})
    assert (check.status, check.detail) == (Status.FAIL, "not installed")


def test_a_version_that_another_package_cannot_use_is_reported_with_what_to_install() -> None:
    check = doctor.check_package("numpy", {"torchvision": Requirement("numpy==0.1"), "x": Requirement("numpy>=1")})
    assert check.status is Status.FAIL
    assert "torchvision asks for numpy==0.1" in check.detail and "x asks" not in check.detail
    assert check.fix == 'pip install "numpy==0.1"'


def test_requirements_come_from_the_installed_packages_without_extras() -> None:
    assert str(doctor.requirements_on("nnunetv2")["factorizer_nnunet"].specifier) == "<3,>=2.8.1"
    assert "torchvision" in doctor.requirements_on("torch")  # the pair pins each other
    assert doctor.requirements_on("ruff") == {}  # asked for by an extra only


def test_all_listed_packages_are_fine_here() -> None:
    checks = [doctor.check_package(name, doctor.requirements_on(name)) for name in doctor.PACKAGES]
    assert [check for check in checks if check.status is not Status.OK] == []


def test_a_torchvision_that_does_not_match_is_reported_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def nms(*args: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    assert doctor.check_torchvision().status is Status.OK
    monkeypatch.setattr(torchvision.ops, "nms", nms)
    check = doctor.check_torchvision()
    assert check.status is Status.FAIL
    assert "operator torchvision::nms does not exist" in check.detail
    assert "--force-reinstall torch torchvision" in check.fix


@pytest.mark.parametrize(("gb", "status"), [(0.9, Status.FAIL), (19.9, Status.WARN), (20.1, Status.OK)])
def test_free_space(gb: float, status: Status) -> None:
    check = doctor.check_free_space("nnUNet_raw", "/data", int(gb * 1e9))
    assert check.status is status
    assert f"/data, {gb} GB free" in check.detail
    assert bool(check.fix) is (status is not Status.OK)


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    check = doctor.check_folder("nnUNet_raw")
    assert (check.status, check.detail) == (Status.TO_DO, "not set") and "env --root" in check.fix
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "gone"))
    check = doctor.check_folder("nnUNet_raw")
    assert check.status is Status.FAIL and "mkdir -p" in check.fix
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert "GB free" in doctor.check_folder("nnUNet_raw").detail


def test_a_fresh_installation_ends_well_with_the_next_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in (*FOLDER_VARIABLES, "nnUNet_extTrainer"):
        monkeypatch.delenv(variable, raising=False)
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.count("\ntodo  ") == 5 and "fail  " not in out
    assert 'The installation works. To do next: run: eval "$(factorizer-nnunet env --root DIR)"' in out


def test_raw_data_may_be_read_only_but_results_may_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    for variable, status in (("nnUNet_raw", Status.WARN), ("nnUNet_results", Status.FAIL)):
        monkeypatch.setenv(variable, str(tmp_path))
        assert doctor.check_folder(variable).status is status


def test_trainer_folder_must_be_in_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    assert doctor.check_ext_trainer().status is doctor.check_trainer().status is Status.TO_DO
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    assert "lacks" in doctor.check_ext_trainer().detail
    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path}{os.pathsep}{ext_trainer_folder()}/.")
    assert doctor.check_ext_trainer().status is Status.OK


@pytest.mark.slow
def test_a_foreign_trainer_of_our_name_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerFactorizer(nnUNetTrainer):\n    pass\n"
    )
    (tmp_path / "another_trainer.py").write_text(code)
    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path}{os.pathsep}{ext_trainer_folder()}")
    check = doctor.check_trainer()
    assert check.status is Status.FAIL
    assert "module another_trainer of" in check.detail and str(tmp_path) in check.detail
    monkeypatch.setenv("nnUNet_extTrainer", str(ext_trainer_folder()))
    assert doctor.check_trainer().status is Status.OK
    for variable in ("nnUNet_factorizer_kernels", "FACTORIZER_CHECKPOINT_MINUTES"):
        with monkeypatch.context() as wrong:
            wrong.setenv(variable, "of")
            check = doctor.check_trainer()
        assert check.status is Status.FAIL and f"{variable} is 'of'; set it to" in check.fix


def test_network_runs() -> None:
    assert doctor.check_network().status is Status.OK


def test_no_gpu_is_a_warning_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    check = doctor.check_gpu()
    assert check.status is Status.WARN and "-device cpu" in check.fix
    assert doctor.check_compile().status is Status.OK


def test_report_lines_and_exit_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Probe("a long name", lambda: Check("a long name", Status.FAIL, "broken", "fix it"), "")
    warn = Probe("b", lambda: Check("b", Status.WARN, "hm", "maybe"), "")
    monkeypatch.setattr(doctor, "all_probes", lambda: [warn])
    assert cli.main(["doctor"]) == 0
    assert "All is well." in capsys.readouterr().out
    monkeypatch.setattr(doctor, "all_probes", lambda: [bad, warn])
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[:2] == [
        "fail  a long name  broken -> fix it",
        "warn  b            hm -> maybe",
    ]


@pytest.mark.slow
def test_a_broken_torch_gives_failed_lines_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')\n")
    create_folders(tmp_path)
    variables = {**os.environ, **environment_variables(tmp_path, {}), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "factorizer_nnunet", "doctor"], env=variables, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    failed = [line.split("  ")[1].strip() for line in done.stdout.splitlines() if line.startswith("fail")]
    assert failed == ["torch and torchvision", "GPU", "torch.compile", "trainer", "network"]
    assert all(" -> " in line for line in done.stdout.splitlines() if line.startswith("fail"))
