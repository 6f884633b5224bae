"""``factorizer-nnunet run``: a whole cross-validation and its predictions, resumable."""

from __future__ import annotations

import argparse
from pathlib import Path

from factorizer_nnunet.commands.options import add_dataset_option
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.names import PLANS, TRAINER
from factorizer_nnunet.running.settings import Folders, RunModel, Prediction, RunSettings

DESCRIPTION = """\
Fingerprint, plan, preprocess, train every fold of every configuration, let nnU-Net choose the best model or pair of
models, and predict test images with it. Every step is one of nnU-Net's commands, and what is done is read from the
files that it leaves: run again, the same command does only what is missing, from the last checkpoint on, whatever
ended it. A failed fold does not stop the others.

What you already have (plans, preprocessed data, trained folds) is used. The summary with Dice, cost and the commands of
every step, logs and measurements are in nnUNet_results/DATASET/factorizer_run."""

EPILOG = """\
examples:
  factorizer-nnunet run -d 4                                  # five folds of 3d_fullres
  factorizer-nnunet run -d 4 -c 2d 3d_fullres --input IMAGES --output OUT
  factorizer-nnunet run -d 4 --compare nnUNetTrainer:nnUNetPlans     # the best of both backbones, or their mean
  factorizer-nnunet run -d 4 --gpus 0,1                       # two folds at a time
  factorizer-nnunet run -d 4 --executor slurm --partition gpu --time 2-00:00:00
  factorizer-nnunet run -d 4 --device cpu -tr nnUNetTrainerFactorizer_20epochs_50iters --gpu-memory-target 0.6

exit status: 0 done (slurm: submitted); 1 a step failed, the summary says which and why; 2 wrong arguments or input, and
nothing long was begun; 130 interrupted
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "run",
        help="five folds, the best configuration and its predictions in one resumable command",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_dataset_option(parser)
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        default=["3d_fullres"],
        metavar="CONFIG",
        help="to train and choose from (default: 3d_fullres); a cascade brings its 3d_lowres along",
    )
    parser.add_argument("-tr", "--trainer", default=TRAINER, metavar="NAME", help=f"trainer (default: {TRAINER})")
    parser.add_argument("-p", "--plans", default=PLANS, metavar="NAME", help=f"plans (default: {PLANS})")
    parser.add_argument(
        "-f", "--folds", nargs="+", type=int, default=[0, 1, 2, 3, 4], metavar="K", help="folds (default: 0 1 2 3 4)"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="TRAINER:PLANS",
        help="other trainers and plans, trained on the same configurations and folds and chosen from, too",
    )
    parser.add_argument("--input", type=Path, metavar="DIR", help="test images (default with --output: imagesTs)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="new folder for their segmentations")
    parser.add_argument(
        "--references",
        type=Path,
        metavar="DIR",
        help="labels of the test images, to score with (default: labelsTs beside imagesTs, if it is there)",
    )
    parser.add_argument("--disable-tta", action="store_true", help="predict test images without mirroring: faster")
    parser.add_argument(
        "--gpu-memory-target",
        type=float,
        metavar="GB",
        help="GPU memory to plan for, in GB (default: that of the plans; 8)",
    )
    parser.add_argument(
        "-np",
        "--num-processes",
        type=int,
        metavar="N",
        help="workers of preprocessing and merging (default: 8 or cores)",
    )
    parser.add_argument("--executor", choices=("local", "slurm"), default="local", help="where (default: local)")
    parser.add_argument("--device", choices=("cuda", "cpu", "mps"), default="cuda", help="default: cuda")
    parser.add_argument(
        "--gpus-per-fold", type=int, default=1, metavar="N", help="GPUs of one machine that train a fold together"
    )
    local = parser.add_argument_group("with --executor local")
    local.add_argument("--gpus", metavar="0,1", help="GPUs as nvidia-smi counts them, a fold on each (default: all)")
    local.add_argument(
        "--folds-at-a-time", type=int, metavar="N", help="on the CPU (default: one a core, at most 5), which they share"
    )
    slurm = parser.add_argument_group('with --executor slurm (pip install "factorizer_nnunet[slurm]")')
    slurm.add_argument("--partition", metavar="NAME", help="for training and prediction (default: the cluster's)")
    slurm.add_argument("--cpu-partition", metavar="NAME", help="for all other steps (default: the same)")
    slurm.add_argument("--time", default="1-00:00:00", metavar="D-HH:MM:SS", help="limit of a job (default: a day)")
    slurm.add_argument("--cpus", type=int, default=8, metavar="N", help="cores of a job (default: 8)")
    slurm.add_argument("--memory", type=float, metavar="GB", help="memory of a job (default: the cluster's)")
    slurm.add_argument("--account", metavar="NAME", help="account to charge")
    slurm.add_argument("--qos", metavar="NAME", help="quality of service")
    slurm.add_argument(
        "--sbatch",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="further options of sbatch, such as constraint=a100",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run or submit, and say where the results are."""
    from factorizer_nnunet.running.paths import RunPaths
    from factorizer_nnunet.running.run import run_here
    from factorizer_nnunet.running.worker_slots import plan_worker_slots, visible_gpus

    settings = _settings(args)
    paths = RunPaths(settings.folders, settings.dataset)
    if args.executor == "slurm":
        return _submit(args, settings)
    gpus = list(dict.fromkeys(args.gpus.split(","))) if args.gpus else visible_gpus()
    _check_device(args, gpus, visible_gpus())
    try:
        done = run_here(settings, plan_worker_slots(args.device, gpus, args.gpus_per_fold, args.folds_at_a_time))
    except KeyboardInterrupt:
        print("\nStopped; run the same command again to go on from here.")
        return 130
    print(f"\n{paths.summary.with_suffix('.md').read_text(encoding='utf-8').split('## Steps')[0].rstrip()}")
    print(f"\nSummary: {paths.summary.with_suffix('.md')}")
    if paths.report.is_file():
        print(f"Report: {paths.report}")
    return 0 if done else 1


def _settings(args: argparse.Namespace) -> RunSettings:
    """What the arguments ask for; paths become absolute."""
    from factorizer_nnunet.core.processes import core_count
    from factorizer_nnunet.nnunet.environment import required_folders
    from factorizer_nnunet.nnunet.raw_dataset import find_dataset

    raw, preprocessed, results = (folder.resolve() for folder in required_folders().values())
    _, dataset = find_dataset(args.dataset)
    counts = {
        "-np": args.num_processes,
        "--gpus-per-fold": args.gpus_per_fold,
        "--folds-at-a-time": args.folds_at_a_time,
        "--cpus": args.cpus,
    }
    for option, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{option} is {value}: give 1 or more")
    pairs = [(args.trainer, args.plans), *(_pair(text) for text in args.compare)]
    models = [RunModel(*pair, configuration) for pair in pairs for configuration in args.configurations]
    return RunSettings(
        folders=Folders(raw=raw, preprocessed=preprocessed, results=results),
        dataset=dataset,
        models=tuple(dict.fromkeys(models)),
        folds=tuple(sorted(set(args.folds))),
        device=args.device,
        gpus_per_fold=args.gpus_per_fold,
        processes=args.num_processes or (args.cpus if args.executor == "slurm" else min(8, core_count())),
        gpu_memory_target_gb=args.gpu_memory_target,
        prediction=_prediction(args, raw / dataset),
    )


def _pair(text: str) -> tuple[str, str]:
    trainer, _, plans = text.partition(":")
    if not trainer or not plans:
        raise UserError(f"--compare {text} is not TRAINER:PLANS, such as nnUNetTrainer:nnUNetPlans")
    return trainer, plans


def _prediction(args: argparse.Namespace, raw: Path) -> Prediction | None:
    if args.output is None:
        if args.input is not None or args.references is not None:
            raise UserError("test images need a folder for their segmentations: give --output, too")
        return None
    images = raw / "imagesTs" if args.input is None else args.input.absolute()
    references = args.references and args.references.absolute()
    if references is None and images == raw / "imagesTs" and (raw / "labelsTs").is_dir():
        references = raw / "labelsTs"
    return Prediction(
        images=images, output=args.output.absolute(), references=references, mirroring=not args.disable_tta
    )


def _check_device(args: argparse.Namespace, wanted: list[str], present: list[str]) -> None:
    if args.gpus and args.device != "cuda":
        raise UserError(f"--gpus is for --device cuda, not {args.device}")
    if args.device != "cuda":
        if args.gpus_per_fold > 1:
            raise UserError(f"--gpus-per-fold is for --device cuda, not {args.device}")
        return
    if not present:
        raise UserError("no GPU found (nvidia-smi shows none): give --device cpu, or see factorizer-nnunet doctor")
    if unknown := [gpu for gpu in wanted if gpu not in present]:
        raise UserError(f"no GPU {', '.join(unknown)}: this machine has {', '.join(present)}")


def _submit(args: argparse.Namespace, settings: RunSettings) -> int:
    from factorizer_nnunet.running.slurm import SlurmOptions, submit_run

    options = SlurmOptions(
        partition=args.partition,
        cpu_partition=args.cpu_partition or args.partition,
        time=args.time,
        cpus=args.cpus,
        memory_gb=args.memory,
        account=args.account,
        qos=args.qos,
        further=tuple(args.sbatch),
    )
    submitted = submit_run(settings, options)
    print(f"{len(submitted)} jobs submitted, {', '.join(submitted.values())}" if submitted else "nothing to submit")
    print(f"Watch them: factorizer-nnunet status -d {settings.dataset_id}")
    return 0
