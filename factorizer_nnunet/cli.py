"""The command ``factorizer-nnunet``: one subcommand per module of ``commands``; parse, call, report.

Importing this module imports neither torch nor nnU-Net, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from factorizer_nnunet import __version__
from factorizer_nnunet.commands import (
    calibrate,
    channel_subsets,
    convert,
    demo,
    doctor,
    env,
    evaluate,
    explain,
    export,
    finetune,
    import_upstream,
    label_check,
    plan,
    predict,
    report,
    run,
    status,
    to_challenge,
    tune_inference,
    tune_postprocessing,
)
from factorizer_nnunet.commands.parser import SubcommandParser
from factorizer_nnunet.core.dependency_warnings import ignore_dependency_warnings
from factorizer_nnunet.core.disk import DISK_FULL
from factorizer_nnunet.core.errors import UserError

DESCRIPTION = """\
Factorizer, a U-shaped network that mixes context by nonnegative matrix factorisation, as a backbone for nnU-Net.
You keep working with the stock nnU-Net commands; this one sets them up."""

WORKFLOW = """\
workflow, for data set 4 in nnU-Net's raw layout:
  1. let nnU-Net find the Factorizer trainer (once per shell; --root also sets nnU-Net's three folders)
       eval "$(factorizer-nnunet env --root ~/nnunet)"
     a challenge release, or a folder of images and one of masks, becomes such a data set by
       factorizer-nnunet convert brats2021 ~/downloads/BraTS2021 -d 4
       factorizer-nnunet convert folders images --masks masks -d 4 --channels CT --labels tumor
  2. fingerprint, plan and preprocess
       factorizer-nnunet plan -d 4
  3. train five folds and choose the best configuration
       for fold in 0 1 2 3 4; do
           nnUNetv2_train 4 3d_fullres $fold -tr nnUNetTrainerFactorizer -p nnUNetFactorizerPlans --npz
       done
       nnUNetv2_find_best_configuration 4 -c 3d_fullres -tr nnUNetTrainerFactorizer -p nnUNetFactorizerPlans
  4. predict
       nnUNetv2_predict -d 4 -c 3d_fullres -tr nnUNetTrainerFactorizer -p nnUNetFactorizerPlans -i IN -o OUT

  Steps 2 to 4 for all folds in one resumable command, and how far it is:
       factorizer-nnunet run -d 4 --input IN --output OUT
       factorizer-nnunet status -d 4

  Data already preprocessed for nnU-Net? Skip step 2 and keep your plans, here the default ones:
       nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerFactorizer -p nnUNetPlans

something does not work?
       factorizer-nnunet doctor

exit status: 0 done; 1 a check failed, or some cases; 2 wrong arguments or input, the message says how to fix it;
130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line; each subcommand sets ``run``, a function from its arguments to an exit status."""
    parser = argparse.ArgumentParser(
        prog="factorizer-nnunet",
        description=DESCRIPTION,
        epilog=WORKFLOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"factorizer-nnunet {__version__}")
    subparsers = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True, parser_class=SubcommandParser
    )
    setting_up, tuning = (env, convert, plan), (tune_inference, tune_postprocessing)
    working = (run, status, calibrate, predict, *tuning, finetune, import_upstream, export)
    looking = (channel_subsets, explain, evaluate, report, label_check)
    for command in (*setting_up, *working, *looking, to_challenge, demo, doctor):
        summary, _, description = (command.__doc__ or "").partition("\n\n")
        subparser = subparsers.add_parser(
            command.__name__.split(".")[-1].replace("_", "-"),
            help=summary[:1].lower() + summary[1:].rstrip("."),
            description=description.rstrip(),
            epilog=getattr(command, "EPILOG", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_options(subparser)
        subparser.set_defaults(run=command.run, refuse=subparser.error)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name; ``None`` takes those of the process.

    Returns:
        The exit status: that of the subcommand, 2 for wrong input, 130 when interrupted.
    """
    ignore_dependency_warnings()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names of files that are not UTF-8, as for stderr
    try:
        return _run(argv)
    finally:
        _end_output()


def _run(argv: Sequence[str] | None) -> int:
    """Parse and call the subcommand; errors that a user can fix become a message."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # what read the output has ended, such as ``| head``
        return 0
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:
            raise
        where = "what this command writes" if error.filename is None else error.filename
        print(f"error: {where}: {error.strerror}. Check permissions, links and the space on its disk", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped; run the same command again to continue.", file=sys.stderr)
        return 130


def _end_output() -> None:
    """Write what is buffered; nothing more if what read the output has ended, or Python would complain at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
