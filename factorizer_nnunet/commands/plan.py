"""``factorizer-nnunet plan``: fingerprint, plan and preprocess a data set for Factorizer."""

from __future__ import annotations

import argparse
import os

from factorizer_nnunet.commands.options import add_dataset_option

DESCRIPTION = """\
Extract the fingerprint of a data set, plan it for Factorizer and preprocess it: what nnUNetv2_plan_and_preprocess does,
with Factorizer as the network. Spacing and normalisation are nnU-Net's choice; patch, batch, widths, depth and windows
are chosen for Factorizer and the GPU memory. The result is nnUNetFactorizerPlans.json in nnUNet_preprocessed, used by
the stock commands with -p nnUNetFactorizerPlans.

An existing fingerprint is reused, as nnU-Net does, and so are whole preprocessed data that other plans of equal
spacing, normalisation and resampling have left. Planning again overwrites our plans but never those of another
planner."""

EPILOG = """\
examples:
  factorizer-nnunet plan -d 4
  factorizer-nnunet plan -d Dataset004_Hippocampus -c 3d_fullres -np 2 --verify-dataset-integrity
  factorizer-nnunet plan -d 4 --size L                # nnUNetFactorizerLPlans, for 24 GB
  factorizer-nnunet plan -d 4 --gpu-memory-target 16 --plans-name nnUNetFactorizerPlans_16GB
  factorizer-nnunet plan -d 4 --show -c 3d_fullres    # existing plans as a table
  factorizer-nnunet plan -d 4 --variant swin          # nnUNetFactorizerPlans_swin
  factorizer-nnunet plan -d 4 --template brats_fast   # nnUNetFactorizerTemplatePlans_brats_fast
  factorizer-nnunet plan --template list
"""


OLD_OPTIONS = {"preset": "size", "network": "variant"}  # names of earlier versions, still accepted


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "plan",
        help="fingerprint, plan and preprocess a data set",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_dataset_option(parser)
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        default=["2d", "3d_fullres", "3d_lowres"],
        metavar="CONFIG",
        help="what to preprocess and show (default: 2d 3d_fullres 3d_lowres); those the data set does not need are "
        "skipped; 3d_cascade_fullres stands for 3d_lowres and 3d_fullres, whose data it uses",
    )
    parser.add_argument(
        "--gpu-memory-target",
        type=float,
        metavar="GB",
        help="GPU memory for which patch and batch size are chosen, in GB (default: that of --size, else 8)",
    )
    parser.add_argument(
        "--size",
        metavar="SIZE",
        help="width and depth: S, M, L or XL, for 6, 10, 24 and 40 GB (default: the network of S for 8 GB)",
    )
    parser.add_argument(
        "--plans-name",
        metavar="NAME",
        help="name of the plans, then used with -p NAME (default: nnUNetFactorizerPlans, with --size "
        "nnUNetFactorizerSIZEPlans, with --variant nnUNetFactorizerPlans_VARIANT, with --template "
        "nnUNetFactorizerTemplatePlans_NAME)",
    )
    parser.add_argument(
        "--variant",
        metavar="VARIANT",
        help="form of the network: default, or as published: swin, local, global, brats_published, isles22_published",
    )
    for old in OLD_OPTIONS:
        parser.add_argument(f"--{old}", help=argparse.SUPPRESS)
    parser.add_argument(
        "--template",
        action=_TemplateOrList,
        metavar="NAME",
        help="settings that are ready for a kind of data: a template's name, a FILE.json like one, or list to see all; "
        "the template sets voxel size, patch, batch and network, so it excludes --variant, --size and "
        "--gpu-memory-target",
    )
    parser.add_argument(
        "-np",
        "--num-processes",
        type=int,
        metavar="N",
        help="worker processes (default: nnUNet_def_n_proc or 8, but not more than there are cores)",
    )
    parser.add_argument(
        "--verify-dataset-integrity",
        action="store_true",
        help="first check that all files are whole and pass nnU-Net's own check; do it once for each data set",
    )
    parser.add_argument(
        "--clean", action="store_true", help="compute the fingerprint anew; needed after the data have changed"
    )
    parser.add_argument("--no-preprocess", action="store_true", help="stop after planning")
    parser.add_argument(
        "--show",
        action="store_true",
        help="print the plans as a table: what every stage sees, keeps and costs, beside nnU-Net's plan; plans that "
        "are there are only shown, others are made first",
    )
    parser.set_defaults(run=run, refuse=parser.error)


class _TemplateOrList(argparse.Action):
    """Keep the template's name, or print all templates and end, as ``--version`` does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str,
        option_string: str | None = None,
    ) -> None:
        if values == "list":
            from factorizer_nnunet.planning.templates import template_sources

            for name, source in template_sources().items():
                print(f"{name}\n    {source}")
            parser.exit()
        setattr(namespace, self.dest, values)


def _read_old_options(args: argparse.Namespace) -> None:
    """Take ``--size`` and ``--variant`` from their old names where these are used; refuse two different values."""
    for old, new in OLD_OPTIONS.items():
        value = getattr(args, old)
        if value is None:
            continue
        if getattr(args, new) not in (None, value):
            args.refuse(f"--{new} {getattr(args, new)} and --{old} {value} mean the same option: give only --{new}")
        setattr(args, new, value)


def run(args: argparse.Namespace) -> int:
    """Plan, then say which stock command comes next."""
    _read_old_options(args)
    if args.template is not None:
        for option in ("variant", "size", "gpu_memory_target"):
            if getattr(args, option) is not None:
                args.refuse(f"argument --{option.replace('_', '-')}: not allowed with argument --template")
    from nnunetv2.configuration import default_num_processes

    from factorizer_nnunet.core.json_files import load_json_object
    from factorizer_nnunet.planning.dataset import existing_plans, next_command, plan_dataset, with_data_of_their_own
    from factorizer_nnunet.planning.description import describe_plans

    if args.show:
        plans_file = existing_plans(args.dataset, args.plans_name, args.size, args.variant, args.template)
        if plans_file is not None:
            if args.gpu_memory_target is not None or args.clean or args.verify_dataset_integrity:
                args.refuse(f"{plans_file} is there and is only shown; to plan it anew, leave --show out")
            print(describe_plans(plans_file, args.configurations))
            return 0

    num_processes = args.num_processes
    if num_processes is None:
        num_processes = max(1, min(default_num_processes, os.cpu_count() or 1))
    plans_file = plan_dataset(
        args.dataset,
        args.configurations,
        gpu_memory_target_gb=args.gpu_memory_target,
        plans_name=args.plans_name,
        size=args.size,
        variant=args.variant,
        template=args.template,
        num_processes=num_processes,
        verify_integrity=args.verify_dataset_integrity,
        preprocess=not args.no_preprocess,
        clean=args.clean,
    )
    print(f"\nPlans: {plans_file}")
    if args.show:
        print(f"\n{describe_plans(plans_file, args.configurations)}\n")
    command = next_command(plans_file, args.configurations)
    if command is None:
        print(f"The plans have none of {', '.join(args.configurations)}; choose another -c")
        return 0
    if args.no_preprocess:
        planned = load_json_object(plans_file, "Plan again")["configurations"]
        names = [name for name in with_data_of_their_own(args.configurations) if name in planned]
        options = f"-c {' '.join(names)} -np {num_processes}"
        print("Edit the plans if you like, then preprocess:")
        print(f"  nnUNetv2_preprocess -d {command.split()[1]} -plans_name {plans_file.stem} {options}")
    print(f"Next, train fold 0 (without a GPU add -device cpu):\n  {command}")
    return 0
