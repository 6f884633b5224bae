"""What several subcommands share: options, how they become a request, and the summary of what was done to cases."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.path_names import component_problem
from factorizer_nnunet.core.wording import first_few
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.pages.limits import ViewerLimits

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Request = TypeVar("Request", bound="DataclassInstance")


def request_of(kind: type[Request], args: argparse.Namespace, **more: Any) -> Request:
    """Make a dataclass from the options that have the names of its fields; lists become tuples.

    Args:
        kind: the dataclass. A field without an option, or whose option was not used (None), keeps its default.
        args: the parsed options.
        more: fields that are not simply an option.
    """
    options = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(kind)}
    used = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return kind(**{name: value for name, value in {**used, **more}.items() if value is not None})


def user_path(text: str) -> Path:
    """A path as users write it; ``~`` is their home folder also where the shell leaves it, as in ``--out=~/scores``."""
    return Path(text).expanduser()


def worker_count(text: str) -> int:
    """A number of processes.

    Raises:
        ArgumentTypeError: it is not a number, or below 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes: give 1 or more")
    return int(text)


DATASET_HELP = "data set ID, or its name DatasetXXX_Name"
DEVICES = ("cuda", "cpu", "mps")
# Options that several commands have, by their first name: all names, and what they take in every command.
_SHARED: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    names[0]: (names, settings)
    for names, settings in (
        (("-d", "--dataset"), {"metavar": "ID"}),
        (("-c", "--configuration"), {"metavar": "CONFIG"}),
        (("-f", "--folds"), {"metavar": "FOLD"}),
        (("-p", "--plans"), {"metavar": "PLANS"}),
        (("-tr", "--trainer"), {"metavar": "TRAINER"}),
        (("-i", "--input"), {"type": user_path, "metavar": "FOLDER"}),
        (("-o", "--output"), {"type": user_path, "metavar": "FOLDER"}),
        (("-m", "--model"), {"type": user_path, "metavar": "FOLDER"}),
        (("-r", "--references"), {"type": user_path, "metavar": "FOLDER"}),
        (("-np", "--num-processes"), {"type": worker_count, "metavar": "N"}),
        (("-device", "--device"), {"choices": DEVICES, "default": "cuda", "help": "(default: cuda)"}),
        (("--dataset-json",), {"type": user_path, "metavar": "FILE"}),
        (("--gpu-memory-target",), {"type": float, "metavar": "GB"}),
        (("--plans-name",), {"metavar": "NAME"}),
        (("--scheme",), {"default": "none", "metavar": "SCHEME"}),
        (("--seed",), {"type": int, "metavar": "N"}),
        (("--template",), {"metavar": "NAME"}),
        (("--disable_tta",), {"action": "store_false", "dest": "use_mirroring"}),
    )
}


def add_shared(parser: argparse._ActionsContainer, name: str, *earlier: str, **settings: Any) -> None:
    """Declare an option that means the same in every command: nnU-Net's short name, if it has one, and one long name.

    Args:
        parser: or a group of it.
        name: the first one in the table above.
        earlier: names in earlier versions, which are still accepted, but not shown.
        settings: of ``add_argument``, such as what it is for in this command.
    """
    names, common = _SHARED[name]
    action = parser.add_argument(*names, *earlier, **{**common, **settings})
    action.option_strings = list(names)


def add_viewer_options(parser: argparse.ArgumentParser) -> None:
    """``--viewer-cases`` and ``--viewer-mb``: how much of the images a page stores to look at."""
    parser.add_argument(
        "--viewer-cases",
        type=int,
        default=ViewerLimits.cases,
        metavar="N",
        help="cases to open in the page (default: %(default)s; 0: none)",
    )
    add_viewer_size(parser)


def add_viewer_size(parser: argparse._ActionsContainer) -> None:
    """``--viewer-mb`` alone, for pages of a single case."""
    parser.add_argument(
        "--viewer-mb",
        type=float,
        default=ViewerLimits.mb,
        metavar="MB",
        help="limit of the volumes in a page (default: %(default)g)",
    )


def add_dataset_option(parser: argparse.ArgumentParser) -> None:
    """``-d``: an existing data set."""
    add_shared(parser, "-d", required=True, help=DATASET_HELP)


def add_run_name_option(parser: argparse.ArgumentParser, effect: str) -> None:
    """``--name`` of a run, which ``run_name`` then checks; ``effect`` is the help text."""
    parser.add_argument("--name", metavar="NAME", help=effect)


def run_name(args: argparse.Namespace) -> str | None:
    """The name of a run, which is that of a folder.

    Raises:
        UserError: it cannot be one.
    """
    problem = None if args.name is None else component_problem(args.name)
    if problem is not None:
        raise UserError(f"invalid --name {args.name!r}: it {problem}. Use a plain name such as large_patch")
    return args.name


def add_model_names(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """A model by ``-d -c -tr -p`` or by its folder, ``-m``, which ``model_folder`` then finds; returns their group."""
    group = parser.add_argument_group("the model, by -d and -c or by its folder")
    add_shared(group, "-d", help=DATASET_HELP)
    add_shared(group, "-c", help="configuration, such as 3d_fullres")
    add_shared(group, "-tr", help=f"trainer (default: {TRAINER})")
    add_shared(group, "-p", help=f"plans (default: {PLANS})")
    add_shared(group, "-m", help="folder TRAINER__PLANS__CONFIGURATION, or what export wrote")
    return group


def add_model_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """A model, as by ``add_model_names``, and its checkpoint; returns their group."""
    group = add_model_names(parser)
    add_checkpoint_options(group)
    return group


def model_folder(args: argparse.Namespace) -> Path:
    """The folder of the model that ``add_model_options`` names.

    Raises:
        UserError: it is named twice, or not at all, or its data set does not exist.
    """
    by_name = {"-d": args.dataset, "-c": args.configuration, "-tr": args.trainer, "-p": args.plans}
    given = [option for option, value in by_name.items() if value is not None]
    if args.model is not None:
        if given:
            raise UserError(f"-m already names the model: leave out {', '.join(given)}")
        folder: Path = args.model
        return folder
    missing = [option for option in ("-d", "-c") if by_name[option] is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} missing: name the model by -d and -c, or by its folder with -m")
    from factorizer_nnunet.nnunet.environment import nnunet_folder
    from factorizer_nnunet.nnunet.raw_dataset import find_dataset

    _, name = find_dataset(args.dataset, "nnUNet_results")
    model = ModelName(args.trainer or TRAINER, args.plans or PLANS, args.configuration)
    return nnunet_folder("nnUNet_results", writable=False) / name / model.folder


def add_checkpoint_options(parser: argparse._ActionsContainer) -> None:
    """``-chk`` and ``--trust-checkpoint``: ``checkpoint``, a file name in each fold, and ``trusted``."""
    parser.add_argument(
        "-chk",
        dest="checkpoint",
        default=CHECKPOINT_FINAL,
        metavar="NAME",
        help=f"file name of the checkpoint in each fold (default: {CHECKPOINT_FINAL})",
    )
    parser.add_argument(
        "--trust-checkpoint",
        dest="trusted",
        action="store_true",
        help="execute code that checkpoints or plans of the model name; only if you trust them",
    )


def add_data_check_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--no-data-check``."""
    parser.add_argument(
        "--no-data-check",
        action="store_true",
        help="do not look at every voxel of the raw images and labels first",
    )


def add_geometry_option(parser: argparse.ArgumentParser, effect: str) -> None:
    """``--ignore-geometry``, whose ``effect`` on files of the same shape the help text describes."""
    parser.add_argument(
        "--ignore-geometry",
        action="store_true",
        help=f"{effect} files of the same shape even if their geometry differs",
    )


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """``-device`` and ``--disable_progress_bar``: ``device`` and ``progress_bar``, which log files do not get."""
    add_shared(parser, "-device")
    parser.add_argument(
        "--disable_progress_bar",
        dest="progress_bar",
        action="store_false",
        default=sys.stderr.isatty(),
        help="show no progress bar (default where stderr is not a terminal)",
    )


def add_window_options(parser: argparse.ArgumentParser, mirroring: str) -> None:
    """``-step_size`` and ``--disable_tta``, explained by ``mirroring``: ``tile_step_size`` and ``use_mirroring``."""
    parser.add_argument(
        "-step_size",
        dest="tile_step_size",
        type=float,
        metavar="X",
        help="step of the sliding window, as a fraction of the patch (default: the model's, 0.5 unless it was tuned)",
    )
    add_shared(parser, "--disable_tta", help=mirroring)


def print_passed_over(names: Sequence[str], folder: Path) -> None:
    """Print which files of a folder of images were left out, if any."""
    if names:
        why = "they are not named like the model's images, CASE_0000 and their ending"
        print(f"passed over in {folder}: {first_few(names, 20)} ({why})")


def print_cases(
    done: str, now: Sized, before: Sized, failed: Mapping[str, str], warnings: Mapping[str, str], out: Path
) -> int:
    """Print how many cases are done now, were ``done`` before, and which failed, by reason; return the exit status.

    Warnings, by case, do not change the status.
    """
    warned = f", with a warning: {len(warnings)}" if warnings else ""
    print(f"{done}: {len(now)}, complete before: {len(before)}, failed: {len(failed)}{warned}; in {out}")
    for case, warning in warnings.items():
        print(f"warning: {case}: {warning}", file=sys.stderr)
    for case, reason in failed.items():
        print(f"failed: {case}: {reason}", file=sys.stderr)
    return 1 if failed else 0
