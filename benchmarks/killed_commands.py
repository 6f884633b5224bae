"""Kill every command again and again: nothing half is taken for complete, nothing is lost, no draft stays.

    python -m benchmarks.killed_commands --work DIR --kills 100 --page docs/measured/killed_commands.md

Each command first runs undisturbed. Then it is started, killed with SIGKILL together with all its workers, and started
again, as often as its share of the kills says; the last start is not disturbed. Half of the kills come after a random
part of the undisturbed time, the others soon after the command has begun to write. The data are the demo's synthetic
patients, on the CPU. Run again, the script skips the commands that it has finished in DIR.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import platform
import random
import runpy
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.output_paths import output_file
from factorizer_nnunet.core.atomic_files import is_draft, remove_draft, write_text_atomically
from factorizer_nnunet.core.processes import end_marked, script
from factorizer_nnunet.core.set_aside import is_set_aside
from factorizer_nnunet.demo.phantom import write_set
from factorizer_nnunet.nnunet.environment import create_folders, environment_variables
from factorizer_nnunet.nnunet.integrity import gzip_damage, is_complete

OWNER_VARIABLE = "FACTORIZER_NNUNET_KILLED_COMMANDS"  # in the environment of every process that is started
DATASET, TRAINER, EPOCHS = "Dataset007_Phantom", "nnUNetTrainerFactorizer_2epochs_2iters", 2
SHARES = {  # of 100 kills
    **{"convert": 13, "plan": 5, "run": 4, "predict": 8, "evaluate": 20, "report": 10, "explain": 8},
    **{"tune-inference": 5, "to-challenge": 20, "import-upstream": 7},
}
MODALITIES, IMPORTED_PLANS = 4, "nnUNetImportedPlans"
UPSTREAM_EXAMPLE = Path(__file__).parents[1] / "tests" / "upstream_example.py"
_CHECKED = {".json", ".npz", ".pkl", ".pth"}


@dataclass(frozen=True)
class Killed:
    """A command that is killed.

    Attributes:
        words: the command.
        outputs: files and folders that it makes.
        refuses: it refuses outputs that exist; otherwise it resumes.
        in_place: nnU-Net's commands write in place there, so only the end result is checked.
        trains: from random weights, so that only the names of its results are the same every time.
    """

    words: tuple[str, ...]
    outputs: tuple[Path, ...]
    refuses: bool = False
    in_place: bool = False
    trains: bool = False


def commands(root: Path) -> dict[str, Killed]:
    """All commands, in the order in which each uses the results of those before."""
    raw, results = root / "nnUNet_raw" / DATASET, root / "nnUNet_results" / DATASET
    preprocessed = root / "nnUNet_preprocessed" / DATASET
    plans = "nnUNetFactorizerTemplatePlans_demo"
    model = results / f"{TRAINER}__{plans}__3d_fullres"
    imported = results / f"nnUNetTrainerFactorizer__{IMPORTED_PLANS}__3d_fullres"
    images, out = str(raw / "imagesTs"), root / "out"
    of_model = ("-i", images, "-m", str(model), "-f", "0", "-device", "cpu")
    runs = ("-tr", TRAINER, "--device", "cpu", "-f", "0", "-np", "1", "--disable-tta")
    folders = {name: str(out / name) for name in ("run", "predict", "scores", "explained", "submission")}
    return {
        "convert": Killed(("brats2021", str(root / "source"), "-d", "7", "--name", "Phantom"), (raw,), refuses=True),
        "plan": Killed(("-d", "7", "--template", "demo", "-np", "1"), (preprocessed,), in_place=True),
        "run": Killed(
            ("-d", "7", "--template", "demo", *runs, "--output", folders["run"]),
            (results, Path(folders["run"])),
            in_place=True,
            trains=True,
        ),
        "predict": Killed((*of_model, "-o", folders["predict"], "-npp", "1", "-nps", "1"), (Path(folders["predict"]),)),
        "evaluate": Killed(
            ("-p", folders["predict"], "-r", str(root / "source" / "truth"), "-o", folders["scores"], "-np", "1"),
            (Path(folders["scores"]),),
            refuses=True,
        ),
        "report": Killed(
            (str(model), "--partial", "-o", str(out / "report.html")), (out / "report.html", out / "report_scores")
        ),
        "explain": Killed((*of_model, "-o", folders["explained"], "--stage", "encoder-3"), (out / "explained",)),
        "tune-inference": Killed(
            ("-m", str(model), "-f", "0", "--iterations", "1", "--shifts", "1", "--mirroring", "none")
            + ("--step-sizes", "1", "-device", "cpu"),
            (results / "tune_inference",),
        ),
        "to-challenge": Killed(
            ("brats2021", folders["predict"], folders["submission"], "-d", "7", "--zip"),
            (Path(folders["submission"]), out / "submission.zip"),
            refuses=True,
        ),
        "import-upstream": Killed(
            (str(root / "upstream.pt"), "--config", str(root / "upstream.json"), "-d", "7", "-p", plans)
            + ("--plans-name", IMPORTED_PLANS, "-f", "0"),
            (imported, preprocessed / f"{IMPORTED_PLANS}.json"),
            refuses=True,
        ),
    }


def write_inputs(root: Path) -> None:
    """The patients, weights of the authors' implementation, and a file of the user among the results."""
    create_folders(root)
    if not (root / "source").exists():
        write_set(root / "source", training=5, held_out=2, seed=0)
    example = runpy.run_path(str(UPSTREAM_EXAMPLE))
    config = {**example["CONFIG"], "in_channels": MODALITIES}
    (root / "upstream.json").write_text(json.dumps(config))
    torch.save(example["upstream_state"](config), root / "upstream.pt")
    (root / "out").mkdir(exist_ok=True)
    (root / "out" / "mine.md").write_text("a file of the user")


def start(root: Path, name: str, command: Killed) -> subprocess.Popen:
    """Start a command; what it prints goes to a log."""
    few = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **environment_variables(root, {}), **few, OWNER_VARIABLE: str(root)}
    argv = [script("factorizer-nnunet"), name, *command.words]
    with (root / "log.txt").open("ab") as log:
        log.write(f"\n$ {' '.join(argv)}\n".encode())
        return subprocess.Popen(argv, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def kill_all(root: Path, process: subprocess.Popen) -> None:
    """Kill a command and whatever it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    while end_marked(OWNER_VARIABLE, str(root)):  # repeated, since a process may start another meanwhile
        pass
    process.wait()


def kill_soon(root: Path, process: subprocess.Popen, seconds: float, rng: random.Random) -> bool:
    """Kill a command at a random moment; returns whether it was still running.

    Args:
        root: the folder of data and results.
        process: the command.
        seconds: how long it runs undisturbed.
        rng: draws the moment.
    """
    delay = rng.uniform(0, 1.1 * seconds)
    if rng.random() < 0.5:
        before, delay = set(_paths(root)), rng.uniform(0, 0.2 * seconds)
        while process.poll() is None and before.issuperset(_paths(root)):
            time.sleep(0.01)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        kill_all(root, process)
        return True
    return False


def _paths(root: Path) -> Iterator[str]:
    return (os.path.join(folder, name) for folder, folders, files in os.walk(root) for name in (*folders, *files))


def half_files(command: Killed) -> list[str]:
    """Files under their final names that are not complete."""
    return [f"half: {file}" for file in _files(command.outputs) if not _is_whole(file)]


def _is_whole(file: Path) -> bool:
    if file.suffix == ".gz":
        return gzip_damage(file) is None
    return file.suffix not in _CHECKED or is_complete(file)


def _files(outputs: Sequence[Path]) -> list[Path]:
    """Files below the outputs, without drafts and what was set aside."""
    below = [path for output in outputs for path in ([output] if output.is_file() else output.rglob("*"))]
    return [
        path
        for path in sorted(below)
        if path.is_file() and not any(is_draft(part) or is_set_aside(part.name) for part in (path, *path.parents))
    ]


def contents(command: Killed, outputs: Sequence[Path]) -> dict[str, str]:
    """Names of all files of a result; with the digest of the content where it is the same every time."""
    endings = () if command.trains else (".nii.gz", ".csv")
    return {
        f"{output.name}/{file.relative_to(output)}": _digest(file) if file.name.endswith(endings) else ""
        for output in outputs
        for file in _files([output])
        if file.name not in (".lock", "events.txt")
    }


def _digest(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha256(gzip.decompress(content) if file.suffix == ".gz" else content).hexdigest()


def others(root: Path, command: Killed) -> dict[Path, str]:
    """The digest of every file that the command must leave alone."""
    return {
        file: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file() and file.suffix != ".txt" and not any(output in file.parents for output in command.outputs)
        if file not in command.outputs and not is_draft(file) and file.name != "factorizer_data_check.json"
    }


def training_problems(command: Killed) -> list[str]:
    """Whether folds were trained in full and logged each epoch once."""
    found = []
    for file in (path for output in command.outputs for path in output.glob("*/fold_*/checkpoint_final.pth")):
        checkpoint = torch.load(file, map_location="cpu", weights_only=False)
        logged = {len(values) for values in checkpoint["logging"].values() if isinstance(values, list)}
        if checkpoint["current_epoch"] != EPOCHS or logged != {EPOCHS}:
            found.append(f"{file} has {checkpoint['current_epoch']} epochs and logged {logged}")
    return found


def try_command(root: Path, name: str, command: Killed, kills: int, rng: random.Random) -> dict[str, object]:
    """Run a command undisturbed, then kill it again and again; returns what was seen."""
    _remove(command)
    for left in [Path(path) for path in _paths(root) if is_draft(Path(path))]:
        remove_draft(left)  # of a kill run that was stopped
    began = time.monotonic()
    status = start(root, name, command).wait()
    seconds = time.monotonic() - began
    problems = [f"undisturbed, it ended with status {status}"] if status else []
    expected, alone = contents(command, command.outputs), others(root, command)
    _remove(command)
    came = starts = 0
    while came < kills and starts < 3 * kills:
        starts += 1
        process = start(root, name, command)
        was_killed = kill_soon(root, process, seconds, rng)
        came += was_killed
        if not was_killed:
            problems += [f"ended with status {process.returncode}"] if process.returncode else []
            problems += _result_problems(expected, command)
        elif not command.in_place:
            problems += half_files(command)
        if not was_killed or (command.refuses and command.outputs[0].exists()):
            problems += _differences(expected, contents(command, command.outputs[:1]), only_found=True)
            _remove(command)  # so that the next start has something to do
    problems += [f"the last start ended with status {status}"] if (status := start(root, name, command).wait()) else []
    problems += _result_problems(expected, command)
    problems += [f"draft left: {path}" for path in root.rglob("*") if is_draft(path) or path.name.endswith(".draft")]
    after = others(root, command)
    problems += [f"changed or lost: {file}" for file, digest in alone.items() if after.get(file) != digest]
    return {"command": name, "seconds": round(seconds, 1), "starts": starts + 1, "kills": came, "problems": problems}


def _result_problems(expected: Mapping[str, str], command: Killed) -> list[str]:
    return _differences(expected, contents(command, command.outputs)) + half_files(command) + training_problems(command)


def _differences(expected: Mapping[str, str], found: Mapping[str, str], only_found: bool = False) -> list[str]:
    names = set(found) if only_found else {*expected, *found}
    kept = {name for name in names if "/logs/" not in name and "training_log_" not in name and "/sources/" not in name}
    return [f"differs: {name}" for name in sorted(kept) if expected.get(name) != found.get(name)]


def _remove(command: Killed) -> None:
    for output in command.outputs:
        shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)


def page(seen: Sequence[Mapping[str, object]], arguments: argparse.Namespace) -> str:
    """The results as Markdown."""
    rows = [
        f"| {one['command']} | {one['seconds']} s | {one['starts']} | {one['kills']} | {len(_problems(one))} |"
        for one in seen
    ]
    listed = [f"* {one['command']}: {problem}" for one in seen for problem in _problems(one)]
    kills, problems = sum(int(str(one["kills"])) for one in seen), len(listed)
    return "\n".join(
        [
            "# Every command, killed again and again",
            "",
            f"Repeat with `python -m benchmarks.killed_commands --work DIR --kills {arguments.kills} --seed "
            f"{arguments.seed} --commands {' '.join(arguments.commands)}`.",
            f"Synthetic BraTS patients of the demo (5 to train, 2 to predict), one fold of {EPOCHS} "
            f"epochs, on the CPU. {kills} kills with SIGKILL, of the command and all its workers, half of them at "
            "random moments, half soon after it began to write; a start that ended before is not counted as a kill.",
            f"Machine: {platform.machine()}, {os.cpu_count()} cores; torch {torch.__version__}.",
            "",
            f"**{problems} problems**: files under their final names that are not complete, results that differ from "
            "those of an undisturbed command, other files that changed or are missing, drafts left after the last "
            "start.",
            "",
            "| command | undisturbed | starts | kills | problems |",
            "|---|---|---|---|---|",
            *rows,
            *(["", *listed] if listed else []),
            "",
        ]
    )


def _problems(one: Mapping[str, object]) -> list[str]:
    problems = one["problems"]
    return problems if isinstance(problems, list) else []


def main() -> None:
    """Kill the commands and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for data and results, new or of the same kill run"
    )
    parser.add_argument("--kills", type=int, default=100, help="of all commands together (default: 100)")
    parser.add_argument("--commands", nargs="+", choices=SHARES, default=list(SHARES), help="those to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=output_file, help="Markdown file to write")
    arguments = parser.parse_args()
    root = arguments.work.absolute()
    write_inputs(root)
    finished = root / "seen.txt"  # not among the files that the commands must leave alone
    seen: list[dict[str, object]] = json.loads(finished.read_text()) if finished.exists() else []
    share = arguments.kills / sum(SHARES[name] for name in arguments.commands)
    for name, command in commands(root).items():
        if any(one["command"] == name for one in seen):
            continue
        if name not in arguments.commands:
            if not all(output.exists() for output in command.outputs) and start(root, name, command).wait():
                raise SystemExit(f"{name} failed, see {root / 'log.txt'}")
            continue
        rng = random.Random(f"{arguments.seed} {name}")
        seen.append(try_command(root, name, command, round(SHARES[name] * share), rng))
        write_text_atomically(finished, json.dumps(seen))
        print(json.dumps(seen[-1]), flush=True)
        if arguments.page is not None:
            arguments.page.write_text(page(seen, arguments), encoding="utf-8")


if __name__ == "__main__":
    main()
