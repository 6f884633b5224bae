"""nnU-Net's environment variables: values, quoting, and the faults of folders."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.environment import (
    FOLDER_VARIABLES,
    create_folders,
    environment_variables,
    ext_trainer_folder,
    ext_trainer_value,
    nnunet_folder,
    required_folders,
    shell_lines,
)

NASTY_NAMES = ["plain", "two words", "it's", 'a "quoted" one', "$HOME `id` \\ ;&|", "über\nzwei Zeilen", " edge "]


def evaluated(lines: list[str], variable: str) -> str:
    """What a shell holds in ``variable`` after ``eval`` of the lines, as a user would run it."""
    script = f'eval "$(cat)"; printf %s "${variable}"'
    return subprocess.run(
        ["sh", "-c", script], input="\n".join(lines), capture_output=True, text=True, check=True
    ).stdout


def test_the_trainer_folder_contains_only_the_shim() -> None:
    assert {path.name for path in ext_trainer_folder().glob("*.py")} == {"nnUNetTrainerFactorizer.py"}


def test_without_root_only_the_trainer_folder_is_set() -> None:
    assert environment_variables(None, {}) == {"nnUNet_extTrainer": str(ext_trainer_folder())}


def test_root_sets_absolute_folders_below_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    values = environment_variables(Path("data"), {})
    assert {name: values[name] for name in FOLDER_VARIABLES} == {
        name: str(tmp_path / "data" / name) for name in FOLDER_VARIABLES
    }


def test_folders_of_the_user_are_kept_in_front_and_ours_comes_once() -> None:
    ours = str(ext_trainer_folder())
    assert ext_trainer_value("/mine:/theirs") == f"/mine:/theirs:{ours}"
    assert ext_trainer_value(f"{ours}:/mine") == f"{ours}:/mine"
    assert ext_trainer_value(ext_trainer_value("/mine")) == f"/mine:{ours}"


def test_empty_and_double_entries_are_dropped() -> None:
    ours = str(ext_trainer_folder())
    assert ext_trainer_value(f":/mine: :/mine/:{ours}/.") == f"/mine:{ours}/."


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_any_path_survives_eval(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    lines = shell_lines(root, {"nnUNet_extTrainer": f"/mine/{name}", "PYTHONWARNINGS": "error::UserWarning"})
    assert evaluated(lines, "PYTHONWARNINGS") == (
        "error::UserWarning,ignore:`torch.jit.interface` is deprecated:FutureWarning"
    )
    assert evaluated(lines, "nnUNet_raw") == str(root / "nnUNet_raw")
    assert evaluated(lines, "nnUNet_extTrainer") == f"/mine/{name}:{ext_trainer_folder()}"


def test_folders_are_made_and_existing_ones_kept(tmp_path: Path) -> None:
    kept = tmp_path / "r" / "nnUNet_raw" / "keep.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    create_folders(tmp_path / "r")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == sorted(FOLDER_VARIABLES)
    assert kept.read_text() == "mine"


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    with pytest.raises(UserError, match=r"root/nnUNet_raw for nnUNet_raw: .*--root"):
        create_folders(tmp_path / "root")


def test_unset_and_empty_variables_are_named_with_the_fix() -> None:
    for environment in ({}, {"nnUNet_raw": " "}):
        with pytest.raises(UserError, match=r"nnUNet_raw is not set.*export nnUNet_raw=.*env --root DIR"):
            nnunet_folder("nnUNet_raw", writable=False, current=environment)


def test_a_missing_folder_is_named_with_a_command_that_makes_it(tmp_path: Path) -> None:
    folder = tmp_path / "not yet"
    with pytest.raises(UserError, match=r"nnUNet_results names .*does not exist") as caught:
        nnunet_folder("nnUNet_results", writable=True, current={"nnUNet_results": str(folder)})
    assert f"mkdir -p {shlex.quote(str(folder))}" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "finding", "path"),
    [
        ("~/data", "~ that the shell has not replaced", "/home/me/data"),
        ("$HOME/data", "a variable that the shell has not replaced", "/home/me/data"),
        ("${HOME}/my data", "a variable that the shell has not replaced", "'/home/me/my data'"),
        ("/scratch/$UNKNOWN/x", "a variable that the shell has not replaced", "/path/to/nnUNet_raw"),
        ("'/data'", "quotes around the path", "/data"),
        ('"~/data"', "quotes around the path", "/home/me/data"),
    ],
)
def test_what_a_shell_would_have_replaced_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, finding: str, path: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("UNKNOWN", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        nnunet_folder("nnUNet_raw", writable=False, current={"nnUNet_raw": value})
    assert f"nnUNet_raw is {value}: it has {finding}" in str(caught.value)
    assert str(caught.value).endswith(f"Set it as: export nnUNet_raw={path}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    for name in ("$HOME", "it's", "~"):
        (tmp_path / name).mkdir()
        nnunet_folder("nnUNet_raw", writable=False, current={"nnUNet_raw": str(tmp_path / name)})


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        nnunet_folder("nnUNet_raw", writable=False, current={"nnUNet_raw": str(tmp_path / "file")})


def test_two_variables_must_not_name_one_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "results").mkdir()
    names = {"nnUNet_raw": "data", "nnUNet_preprocessed": "link", "nnUNet_results": "results"}
    with pytest.raises(UserError, match="nnUNet_raw and nnUNet_preprocessed name the same folder.*folder of its own"):
        required_folders({variable: str(tmp_path / name) for variable, name in names.items()})


def test_only_folders_to_be_written_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not bind the superuser, under whom tests may run, so the answer of the system is replaced.
    create_folders(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    environment = environment_variables(tmp_path, {})
    assert nnunet_folder("nnUNet_raw", writable=False, current=environment) == tmp_path / "nnUNet_raw"
    with pytest.raises(UserError, match="nnUNet_preprocessed names .* may not write"):
        required_folders(environment)


def test_required_folders_returns_all_three(tmp_path: Path) -> None:
    create_folders(tmp_path)
    assert required_folders(environment_variables(tmp_path, {})) == {n: tmp_path / n for n in FOLDER_VARIABLES}
