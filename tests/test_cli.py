"""The command line: what it teaches, how it ends, and that asking for help costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from factorizer_nnunet import __version__, cli
from factorizer_nnunet.commands import env, plan
from factorizer_nnunet.commands.options import request_of
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.explain.run import ExplainRequest
from factorizer_nnunet.nnunet.environment import FOLDER_VARIABLES


def output_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Standard output of a command that argparse answers itself."""
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_teaches_the_stock_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(capsys, "--help")
    for word in ("nnUNetv2_train", "nnUNetTrainerFactorizer", "nnUNetFactorizerPlans", "nnUNetv2_predict", "doctor"):
        assert word in text


COMMANDS = [
    "env",
    "plan",
    "run",
    "status",
    "predict",
    "tune-inference",
    "import-upstream",
    "explain",
    "evaluate",
    "report",
    "demo",
    "doctor",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert f"factorizer-nnunet {command}" in output_of(capsys, command, "--help")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(capsys, "--version") == f"factorizer-nnunet {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["unknown"], ["plan"], ["plan", "-d", "1", "-np", "two"]])
def test_wrong_arguments_end_with_status_2(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 2
    assert "usage: factorizer-nnunet" in capsys.readouterr().err


def test_help_imports_neither_torch_nor_nnunet() -> None:
    code = (
        "import sys; from factorizer_nnunet import cli; cli.build_parser().format_help(); "
        "print(sorted({'torch', 'nnunetv2', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_user_error_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(root: Path | None) -> list[str]:
        raise UserError("the thing is wrong. Fix it")

    monkeypatch.setattr(env, "shell_lines", run)
    assert cli.main(["env"]) == 2
    assert capsys.readouterr() == ("", "error: the thing is wrong. Fix it\n")


def test_interruption_ends_with_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(root: Path | None) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(env, "shell_lines", run)
    assert cli.main(["env"]) == 130


def test_the_status_of_a_command_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "run", lambda args: 7)
    assert cli.main(["plan", "-d", "1"]) == 7


def test_env_root_makes_the_folders_that_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env", "--root", str(tmp_path / "a b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    for variable in FOLDER_VARIABLES:
        assert f"export {variable}='{tmp_path}/a b/{variable}'" in lines
        assert (tmp_path / "a b" / variable).is_dir()


def test_env_with_an_empty_root_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env", "--root", ""]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--root is empty" in err


def test_the_module_runs_as_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "factorizer_nnunet", "env"],
        env={**os.environ, "nnUNet_extTrainer": "/mine"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("export nnUNet_extTrainer=/mine:")


def test_options_become_the_fields_of_the_same_names() -> None:
    parser = cli.build_parser()
    model = ["explain", "-i", "a", "b", "-m", "m", "-o", "o"]
    plain = request_of(ExplainRequest, parser.parse_args(model))
    assert plain == ExplainRequest(model=Path("m"), images=(Path("a"), Path("b")), out=Path("o"))
    chosen = request_of(ExplainRequest, parser.parse_args([*model, "--disable_tta", "--format", "png,", "--head", "2"]))
    assert (chosen.use_mirroring, chosen.formats, chosen.heads) == (False, ("png",), (2,))
