"""The command line: what it teaches, how it ends, and that asking for help costs nothing."""

from __future__ import annotations

import argparse
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
    "finetune",
    "import-upstream",
    "channel-subsets",
    "export",
    "explain",
    "evaluate",
    "report",
    "label-check",
    "tune-postprocessing",
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


def test_options_become_the_fields_of_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # only terminals get a progress bar
    parser = cli.build_parser()
    model = ["explain", "-i", "a", "b", "-m", "m", "-o", "o"]
    plain = request_of(ExplainRequest, parser.parse_args(model))
    assert plain == ExplainRequest(model=Path("m"), images=(Path("a"), Path("b")), out=Path("o"))
    chosen = request_of(ExplainRequest, parser.parse_args([*model, "--disable_tta", "--format", "png,", "--head", "2"]))
    assert (chosen.use_mirroring, chosen.formats, chosen.heads) == (False, ("png",), (2,))


@pytest.mark.parametrize(
    "spelled",
    [
        "-i a -o b -m c -device cpu --disable_tta --save_probabilities -step_size 0.5 -prev_stage_predictions d",
        "--input a --output b --model c --device cpu --disable-tta --save-probabilities --step-size=0.5 "
        "--prev-stage-predictions=d",
        "--i a --o b --m c -device=cpu -disable_tta -save-probabilities --step_size 0.5 -prev-stage_predictions d",
    ],
)
def test_options_may_be_spelled_with_dashes_and_underscores(spelled: str) -> None:
    args = cli.build_parser().parse_args(["predict", *spelled.split()])
    assert (args.images, args.out, args.model, args.device) == (Path("a"), Path("b"), Path("c"), "cpu")
    assert (args.use_mirroring, args.save_probabilities, args.tile_step_size) == (False, True, 0.5)
    assert args.previous_stages == [Path("d")]


def test_a_declared_spelling_is_not_taken_for_another() -> None:
    args = cli.build_parser().parse_args(["predict", "-i", "a", "-o", "b", "-d", "4", "-c", "2d", "--c"])
    assert (args.configuration, args.continue_prediction) == ("2d", True)


def test_values_that_look_like_options_are_left_to_argparse() -> None:
    parse = cli.build_parser().parse_args
    assert parse(["demo", "--seed", "-3"]).seed == -3
    assert parse(["report", "--", "-strange_name"]).results == [Path("-strange_name")]


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (action for action in cli.build_parser()._actions if action.dest == "command")
    return dict(commands.choices or {})


# The only names that two commands use for different things.
OTHER_MEANINGS = {"--name", "--memory", "--patients", "--labels"}


def test_an_option_takes_the_same_in_every_command() -> None:
    """Numbers of values and defaults may differ; a command that takes one fold of a model may not take several."""
    kinds: dict[str, set[tuple[object, ...]]] = {}
    for parser in subcommands().values():
        for action in parser._actions:
            for option in set(action.option_strings) - OTHER_MEANINGS:
                kinds.setdefault(option, set()).add((action.type, tuple(action.choices or ())))
    differing = {option: found for option, found in kinds.items() if len(found) > 1}
    # convert numbers a new data set, which has no name yet; run counts folds; demo chooses the device by itself
    assert differing.keys() == {"-d", "--dataset", "-f", "--folds", "-device", "--device"}


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
@pytest.mark.parametrize("command", ["convert", "plan", "run", "evaluate", "report"])
def test_a_number_of_processes_is_checked_in_every_command(
    capsys: pytest.CaptureFixture[str], command: str, value: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "-np", value])
    error = capsys.readouterr().err
    assert end.value.code == 2 and f"{value!r} is not a number of processes: give 1 or more" in error


@pytest.mark.parametrize(
    "argv",
    [
        ["predict", "-m", "m", "-i", "~/in", "-o", "~/out"],
        ["explain", "-m", "m", "-i", "~/in", "-o", "~/out"],
        ["evaluate", "-r", "r", "-i", "~/in", "-o", "~/out"],
        ["report", "x", "-i", "~/in", "-o", "~/out"],
        ["run", "-d", "4", "-i", "~/in", "-o", "~/out"],
        ["demo", "-o", "~/out"],
    ],
)
def test_the_home_folder_may_be_written_as_a_tilde(argv: list[str]) -> None:
    values = vars(cli.build_parser().parse_args(argv)).values()
    paths = {path for value in values for path in (value if isinstance(value, list) else [value])}
    assert {Path.home() / word[2:] for word in argv if word.startswith("~")} <= paths


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["predict", "--memry", "3"],
            "factorizer-nnunet predict: error: unknown option --memry; did you mean --memory?",
        ),
        (["plan", "--gpu-mem", "3"], "unknown option --gpu-mem; "),
        (["run", "-d", "4", "--fold", "0"], "did you mean --folds?"),
        (["evaluate", "-q"], "unknown option -q; see factorizer-nnunet evaluate --help"),
        (["status", "-d", "4", "5"], "factorizer-nnunet status: error: unexpected argument 5"),
    ],
)
def test_a_wrong_option_shows_the_usage_of_its_command_and_the_nearest_one(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error
    assert error.startswith(f"usage: factorizer-nnunet {argv[0]} ")


def test_names_of_earlier_versions_are_accepted_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    parse = cli.build_parser().parse_args
    assert parse(["plan", "-d", "4", "--configurations", "2d"]).configurations == ["2d"]
    assert parse(["evaluate", "-p", "a", "-r", "b", "--out", "c"]).predictions == Path("a")
    assert "--configurations" not in output_of(capsys, "plan", "--help")


def test_each_shared_option_has_one_long_name() -> None:
    names: dict[str, set[str]] = {}
    for parser in subcommands().values():
        for action in parser._actions:
            if action.option_strings and not action.option_strings[0].startswith("--"):
                names.setdefault(action.option_strings[0], set()).update(action.option_strings[1:])
    assert {"-d", "-c", "-f", "-p", "-tr", "-i", "-o", "-np", "-device"} <= set(names)
    assert {short: long for short, long in names.items() if len(long) > 1} == {}


def test_a_reader_that_ends_early_is_not_an_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m factorizer_nnunet convert list | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_reader_that_has_ended_before_is_no_error(option: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "factorizer_nnunet", option]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_shown_on_terminals_only(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    predict = ["predict", "-i", "IN", "-o", "OUT", "-m", "MODEL"]
    assert cli.build_parser().parse_args(predict).progress_bar is terminal
    assert cli.build_parser().parse_args([*predict, "--disable-progress-bar"]).progress_bar is False
