"""Five folds, the best configuration and its predictions in one resumable command.

Fingerprint, plan, preprocess, train every fold of every configuration, let nnU-Net choose the best model or pair of
models, and predict test images with it. Every step is one of nnU-Net's commands, and what is done is read from the
files that it leaves: whatever ended a run, the same command resumes it from the last checkpoint. A failed fold does
not stop the others.

Existing plans, preprocessed data and trained folds are used. The summary with Dice, cost and the commands of every
step, logs and measurements are in nnUNet_results/DATASET/factorizer_run, those of a run with a name in
factorizer_runs/NAME next to it.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from factorizer_nnunet.commands.options import (
    add_data_check_option,
    add_dataset_option,
    add_run_name_option,
    add_shared,
    request_of,
    run_name,
)
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import PLANS, TRAINER, parse_repeat, template_plans_name
from factorizer_nnunet.running.cascade import FULLRES
from factorizer_nnunet.running.paths import Folders
from factorizer_nnunet.running.settings import Prediction, RunSettings

EPILOG = """\
examples:
  factorizer-nnunet run -d 4                                  # five folds of 3d_fullres
  factorizer-nnunet run -d 4 -c 2d 3d_fullres --input IMAGES --output OUT
  factorizer-nnunet run -d 4 --compare nnUNetTrainer:nnUNetPlans     # the best of both backbones, or their mean
  factorizer-nnunet run -d 4 --template brats_fast            # ready settings for BraTS
  factorizer-nnunet run -d 4 --name large -p nnUNetFactorizerLPlans  # a second run, with a summary of its own
  factorizer-nnunet run -d 4 --gpus 0,1                       # two folds at a time
  factorizer-nnunet run -d 4 --compare nnUNetTrainer:nnUNetPlans --repeats 3   # is the difference more than chance?
  factorizer-nnunet run -d 4 --hours 24                       # all folds are trained in a day
  factorizer-nnunet run -d 4 --executor slurm --partition gpu --time 2-00:00:00
  factorizer-nnunet run -d 4 --device cpu -tr nnUNetTrainerFactorizer_20epochs_50iters --gpu-memory-target 0.6

exit status: 0 done (slurm: submitted); 1 a step failed, the summary says which and why; 2 wrong arguments or input,
before anything long began; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add_dataset_option(parser)
    add_run_name_option(parser, "keeps state and summary of this run apart from those of others over the data set")
    _add_model_options(parser)
    _add_prediction_options(parser)
    add_shared(parser, "-np", help="worker processes of a command (default: 8 or cores)")
    add(
        "--channel-subsets",
        action="store_true",
        help="also predict each fold's validation cases with every subset of channels, for the report; with -tr "
        "…_channeldrop",
    )
    add_data_check_option(parser)
    add(
        "--accept-outdated",
        action="store_true",
        help="use trained folds and edited plans as they are although images, labels or plans have changed since",
    )
    add("--executor", choices=("local", "slurm"), default="local", help="where to run (default: local)")
    add_shared(parser, "-device")
    add("--gpus-per-fold", type=int, default=1, metavar="N", help="GPUs of one machine that train a fold together")
    local = parser.add_argument_group("with --executor local")
    local.add_argument("--gpus", metavar="0,1", help="GPUs by nvidia-smi's numbers, one fold on each (default: all)")
    local.add_argument(
        "--folds-at-a-time", type=int, metavar="N", help="folds that share the CPU (default: one per core, at most 5)"
    )
    _add_slurm_options(parser.add_argument_group('with --executor slurm (pip install "factorizer_nnunet[slurm]")'))


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_shared(
        parser,
        "-c",
        "--configurations",
        dest="configurations",
        nargs="+",
        default=[FULLRES],
        help="configurations to train and choose from (default: 3d_fullres); 3d_lowres is added automatically for a "
        "cascade",
    )
    add_shared(parser, "-tr", default=TRAINER, help=f"trainer (default: {TRAINER})")
    add(
        "--hours",
        type=float,
        metavar="H",
        help="time for all trainings with their validations, shared equally (default: the epochs of the trainer)",
    )
    plans = parser.add_mutually_exclusive_group()
    add_shared(plans, "-p", default=PLANS, help=f"plans (default: {PLANS})")
    add_shared(plans, "--template", help="plan with these ready settings (factorizer-nnunet plan --template list)")
    add_shared(parser, "-f", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="folds (default: 0 1 2 3 4)")
    add(
        "--compare",
        nargs="+",
        default=[],
        metavar="TRAINER:PLANS",
        help="more trainers and plans to train on the same configurations and folds, and to choose from",
    )
    add(
        "--repeats",
        type=int,
        default=1,
        metavar="N",
        help="train every fold N times from other random weights: report and summary show how much they differ; only "
        "the first trainings are chosen from (default: 1)",
    )
    add_shared(parser, "--gpu-memory-target", help="GPU memory to plan for, in GB (default: the planner's)")


def _add_prediction_options(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "-i", help="test images (default with --output: imagesTs)")
    add_shared(parser, "-o", help="new folder for their segmentations")
    add_shared(
        parser,
        "-r",
        help="labels of the test images to score with (default: labelsTs next to imagesTs, if it exists)",
    )
    parser.add_argument(
        "--tune-postprocessing",
        dest="postprocessing",
        nargs="?",
        const="none",
        metavar="SCHEME",
        help="tune the postprocessing of the chosen model under this challenge's scoring (without a name: mean Dice)",
    )
    add_shared(parser, "--disable_tta", help="predict test images without mirroring: faster")
    parser.add_argument(
        "--quality",
        action="store_true",
        help="calibrate the best model on its out-of-fold cases and say how far to trust each segmentation",
    )


def _add_slurm_options(slurm: argparse._ArgumentGroup) -> None:
    add = slurm.add_argument
    add("--partition", metavar="NAME", help="for training and prediction (default: the cluster's)")
    add("--cpu-partition", metavar="NAME", help="for all other steps (default: the same)")
    add("--time", default="1-00:00:00", metavar="D-HH:MM:SS", help="limit of a job (default: a day)")
    add("--cpus", type=int, default=8, metavar="N", help="cores of a job (default: 8)")
    add("--memory", dest="memory_gb", type=float, metavar="GB", help="memory of a job (default: the cluster's)")
    add("--account", metavar="NAME", help="account to charge")
    add("--qos", metavar="NAME", help="quality of service")
    add(
        "--sbatch",
        dest="further",
        nargs="+",
        metavar="KEY=VALUE",
        help="more options of sbatch, such as constraint=a100",
    )


def run(args: argparse.Namespace) -> int:
    """Run or submit, and print where the results are."""
    from factorizer_nnunet.running.hours import share_hours
    from factorizer_nnunet.running.run import run_here
    from factorizer_nnunet.running.worker_slots import available_device, plan_worker_slots, visible_gpus

    settings = _settings(args)
    if args.executor == "slurm":
        if args.hours is not None:
            raise UserError(
                "--hours is shared by the trainings of one machine, while SLURM decides how many jobs run at a time: "
                f"give each training a time instead, such as -tr {TRAINER}_6h"
            )
        return _submit(args, settings)
    available_device(args.device)
    slots = plan_worker_slots(args.device, _gpus(args, visible_gpus()), args.gpus_per_fold, args.folds_at_a_time)
    if args.hours is not None:
        settings = share_hours(settings, args.hours, len(slots))
    done = run_here(settings, slots)
    summary = settings.paths.summary.with_suffix(".md")
    print(f"\n{summary.read_text(encoding='utf-8').split('## Steps')[0].rstrip()}\n\nSummary: {summary}")
    if settings.paths.report.is_file():
        print(f"Report: {settings.paths.report}")
    return 0 if done else 1


def _settings(args: argparse.Namespace) -> RunSettings:
    """The settings of the arguments, with absolute paths."""
    from factorizer_nnunet.core.processes import core_count
    from factorizer_nnunet.evaluation.schemes import scheme_named
    from factorizer_nnunet.nnunet.environment import required_folders
    from factorizer_nnunet.nnunet.raw_dataset import find_dataset

    raw, preprocessed, results = (folder.resolve() for folder in required_folders().values())
    _, dataset = find_dataset(args.dataset)
    counts = {
        "--gpus-per-fold": args.gpus_per_fold,
        "--folds-at-a-time": args.folds_at_a_time,
        "--cpus": args.cpus,
        "--repeats": args.repeats,
    }
    for option, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"invalid {option} {value}: give 1 or more")
    plans = args.plans if args.template is None else template_plans_name(args.template)
    pairs = [(args.trainer, plans), *(_pair(text) for text in args.compare)]
    repeats = [trainer for trainer, _ in pairs if parse_repeat(trainer)[1] > 1]
    if args.repeats > 1 and repeats:
        raise UserError(f"{repeats[0]} is a repeat itself: leave out --repeats, or name {parse_repeat(repeats[0])[0]}")
    if args.postprocessing is not None:
        scheme_named(args.postprocessing)
    models = [ModelName(*pair, configuration) for pair in pairs for configuration in args.configurations]
    return RunSettings(
        folders=Folders(raw=raw, preprocessed=preprocessed, results=results),
        dataset=dataset,
        models=tuple(dict.fromkeys(models)),
        folds=tuple(sorted(set(args.folds))),
        device=args.device,
        gpus_per_fold=args.gpus_per_fold,
        data_check=not args.no_data_check,
        channel_subsets=args.channel_subsets,
        accept_outdated=args.accept_outdated,
        processes=args.num_processes or (args.cpus if args.executor == "slurm" else min(8, core_count())),
        gpu_memory_target_gb=args.gpu_memory_target,
        prediction=_prediction(args, raw / dataset),
        repeats=args.repeats,
        postprocessing=args.postprocessing,
        name=run_name(args),
    )


def _pair(text: str) -> tuple[str, str]:
    trainer, _, plans = text.partition(":")
    if not trainer or not plans:
        raise UserError(f"invalid --compare {text}: expected TRAINER:PLANS, such as nnUNetTrainer:nnUNetPlans")
    return trainer, plans


def _prediction(args: argparse.Namespace, raw: Path) -> Prediction | None:
    if args.output is None:
        if args.input is not None or args.references is not None or args.quality:
            raise UserError("test images need a folder for their segmentations: add --output")
        return None
    images = raw / "imagesTs" if args.input is None else args.input.absolute()
    references = args.references and args.references.absolute()
    if references is None and images == raw / "imagesTs" and (raw / "labelsTs").is_dir():
        references = raw / "labelsTs"
    return Prediction(
        images=images,
        output=args.output.resolve(),
        references=references,
        mirroring=args.use_mirroring,
        quality=args.quality,
    )


def _gpus(args: argparse.Namespace, present: list[str]) -> list[str]:
    """The GPUs to use, none for another device."""
    if args.device != "cuda":
        for option, given in (("--gpus", bool(args.gpus)), ("--gpus-per-fold", args.gpus_per_fold > 1)):
            if given:
                raise UserError(f"{option} is for --device cuda, not {args.device}")
        return []
    wanted = list(dict.fromkeys(args.gpus.split(","))) if args.gpus else present
    if unknown := [gpu for gpu in wanted if gpu not in present]:
        raise UserError(f"no GPU {', '.join(unknown)}: this machine has {', '.join(present)}")
    return wanted


def _submit(args: argparse.Namespace, settings: RunSettings) -> int:
    from factorizer_nnunet.running.slurm import SlurmOptions, submit_run

    options = request_of(SlurmOptions, args, cpu_partition=args.cpu_partition or args.partition)
    submitted = submit_run(settings, options)
    print(f"{len(submitted)} jobs submitted, {', '.join(submitted.values())}" if submitted else "nothing to submit")
    name = [] if settings.name is None else ["--name", settings.name]
    print(f"Watch them: {shlex.join(['factorizer-nnunet', 'status', '-d', str(settings.dataset_id), *name])}")
    return 0
