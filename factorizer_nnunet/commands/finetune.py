"""Continue a trained model on another data set.

It may have other channels or classes: these are matched by name, and new ones start from the mean of the old. The plans
of the model (network, patch, voxel size, normalisation) are used for the new data where they fit. What comes from where
is printed first.

The data are checked, planned under a name of their own and preprocessed, then nnUNetv2_train trains each fold, at a
lower learning rate. The results are an ordinary model in nnUNet_results. Nothing that exists is overwritten; the same
command resumes what was interrupted.
"""

from __future__ import annotations

import argparse
import os

from factorizer_nnunet.commands.options import (
    add_data_check_option,
    add_dataset_option,
    add_shared,
    request_of,
    user_path,
)
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL
from factorizer_nnunet.nnunet.names import TRAINER

EPILOG = """\
examples:
  factorizer-nnunet finetune --from MODEL_FOLDER -d 5 --dry-run         # only what comes from where
  factorizer-nnunet finetune --from MODEL.zip -d 5 -f 0 -tr nnUNetTrainerFactorizer_100epochs
  factorizer-nnunet finetune --from MODEL_FOLDER -d 5 --map T1ce=T1c --map "left atrium=LA" --freeze encoder

exit status: 0 done; 1 a training failed; 2 wrong arguments or data, or a file cannot be written; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "--from",
        dest="source",
        required=True,
        type=user_path,
        metavar="MODEL",
        help="folder TRAINER__PLANS__CONFIGURATION, a zip of nnUNetv2_export_model_to_zip, or what export wrote",
    )
    add_dataset_option(parser)
    add(
        "--map",
        dest="maps",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="a channel or class of the model, and the one of the data set that starts from it; can be repeated",
    )
    add_shared(parser, "-c", help="configuration of the model, if the zip has several")
    add_shared(parser, "-f", nargs="+", default=["0", "1", "2", "3", "4"], help="folds to train (default: 0 1 2 3 4)")
    add_shared(
        parser,
        "-p",
        help="name of the plans to write (default: nnUNetFactorizerFinetunedPlans_from and the ID of the model's data)",
    )
    add_shared(parser, "-tr", help=f"trainer (default: {TRAINER}; for models of other networks, the model's)")
    add(
        "--learning-rate",
        type=float,
        metavar="X",
        help="highest learning rate, which becomes part of the trainer's name (default: 1e-3)",
    )
    add(
        "--warmup",
        type=int,
        metavar="N",
        help="iterations over which it rises (default: a tenth, of trainings with a time such as _6h a twentieth; at "
        "most 1000)",
    )
    add(
        "--freeze",
        nargs="+",
        default=[],
        metavar="PART",
        help="parts that are not trained: stem (the first convolution), encoder, decoder (without the last layers)",
    )
    add("--from-fold", dest="source_fold", metavar="FOLD", help="fold of the model (default: all, else the first)")
    add(
        "-chk",
        dest="checkpoint",
        default=CHECKPOINT_FINAL,
        metavar="NAME",
        help=f"file name of the checkpoint in this fold (default: {CHECKPOINT_FINAL})",
    )
    add_shared(parser, "-device")
    add_shared(parser, "-np", help="worker processes (default: nnUNet_def_n_proc or 8, at most one per core)")
    add_data_check_option(parser)
    stop = parser.add_mutually_exclusive_group()
    stop.add_argument("--dry-run", action="store_true", help="print what comes from where and the commands, and stop")
    stop.add_argument("--no-train", action="store_true", help="stop before the trainings and print their commands")


def run(args: argparse.Namespace) -> int:
    """Fine-tune; print what comes from where, then the commands."""
    from nnunetv2.configuration import default_num_processes

    from factorizer_nnunet.finetuning.description import commands, describe
    from factorizer_nnunet.finetuning.finetune import make_ready, train
    from factorizer_nnunet.finetuning.preparation import prepared
    from factorizer_nnunet.finetuning.request import FinetuneRequest
    from factorizer_nnunet.running.worker_slots import available_device
    from factorizer_nnunet.training.variables import check_variables

    if not (args.dry_run or args.no_train):
        available_device(args.device)  # before the data are preprocessed for hours
        check_variables(args.device)
    processes = args.num_processes or max(1, min(default_num_processes, os.cpu_count() or 1))
    request = request_of(FinetuneRequest, args, num_processes=processes, check_data=not args.no_data_check)
    with prepared(request) as preparation:
        print("\n\n".join(describe(preparation)), flush=True)
        if not args.dry_run:
            make_ready(preparation)
    *trainings, prediction = commands(preparation)
    if args.dry_run or args.no_train:
        made = "After these steps" if args.dry_run else "Next"
        print(f"\n{made}, train:", *trainings, "then predict:", prediction, sep="\n  ")
        return 0
    if failed := train(preparation):
        folds = ", ".join(f"{fold} (status {status})" for fold, status in failed.items())
        print(f"\nfailed: fold {folds}; the same command continues them")
        return 1
    print(f"\nModel: {preparation.target.path}\nNext, predict:\n  {prediction}")
    return 0
