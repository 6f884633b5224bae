"""Fingerprint, plan and preprocess a data set.

Extract the fingerprint of a data set, plan it for Factorizer and preprocess it: what nnUNetv2_plan_and_preprocess does,
with Factorizer as the network. nnU-Net chooses spacing and normalisation; patch, batch, widths, depth and windows are
chosen for Factorizer and the GPU memory. The result is nnUNetFactorizerPlans.json in nnUNet_preprocessed, used by
the stock commands with -p nnUNetFactorizerPlans.

Before anything is written, every voxel of every image and label is looked at, and all problems are listed at once;
files that have not changed since are not read again.

An existing fingerprint is reused unless the data have changed, and so are complete preprocessed data of these or other
plans with the same spacing, normalisation and resampling. Planning again overwrites our plans but never those of
another planner; plans that were edited are kept next to them. Folds are checked and never changed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from factorizer_nnunet.commands.options import add_data_check_option, add_dataset_option, add_shared

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


# Longer than 60 lines: it only declares options, one after the other.
def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add_dataset_option(parser)
    add_shared(
        parser,
        "-c",
        "--configurations",
        dest="configurations",
        nargs="+",
        default=["2d", "3d_fullres", "3d_lowres"],
        help="what to preprocess and show (default: 2d 3d_fullres 3d_lowres); those that the plans do not have are "
        "skipped; 3d_cascade_fullres stands for 3d_lowres and 3d_fullres, whose data it uses",
    )
    add_shared(
        parser,
        "--gpu-memory-target",
        help="GPU memory to choose patch and batch size for, in GB (default: that of --size, else 8)",
    )
    add(
        "--size",
        metavar="SIZE",
        help="width and depth: S, M, L or XL, for 6, 10, 24 and 40 GB (default: the network of S for 8 GB)",
    )
    add_shared(
        parser,
        "--plans-name",
        help="name of the plans, then used with -p NAME (default: nnUNetFactorizerPlans, with --size "
        "nnUNetFactorizerSIZEPlans, with --variant nnUNetFactorizerPlans_VARIANT, with --template "
        "nnUNetFactorizerTemplatePlans_NAME)",
    )
    add(
        "--variant",
        metavar="VARIANT",
        help="form of the network: default, everywhere (the NMF at every resolution), plain (the default of "
        "earlier versions), or as published: swin, local, global, brats_published, isles22_published",
    )
    for old in OLD_OPTIONS:
        add(f"--{old}", help=argparse.SUPPRESS)
    add_shared(
        parser,
        "--template",
        action=_TemplateOrList,
        help="ready settings for a kind of data: the name of a template, your own FILE.json, or list to show all; "
        "the template sets voxel size, patch, batch and network, so it excludes --variant, --size and "
        "--gpu-memory-target",
    )
    add_shared(
        parser,
        "-np",
        help="worker processes (default: nnUNet_def_n_proc or 8, at most one per core)",
    )
    add(
        "--verify-dataset-integrity",
        action="store_true",
        help="also run nnU-Net's own check of images and labels first",
    )
    add_data_check_option(parser)
    add(
        "--clean",
        action="store_true",
        help="compute the fingerprint again; after a change of the data that happens without it",
    )
    add("--no-preprocess", action="store_true", help="stop after planning")
    add(
        "--show",
        action="store_true",
        help="print the plans as a table: what every stage sees, keeps and costs, compared with nnU-Net's plan; "
        "existing plans are only shown, missing plans are made first",
    )


class _TemplateOrList(argparse.Action):
    """Store the name of the template, or print all templates and exit, as ``--version`` does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
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


def _print_gpu_advice(args: argparse.Namespace) -> None:
    """Print which sizes the GPU of this machine fits, if there is one; templates do not name a memory."""
    from factorizer_nnunet.planning.gpu_fit import gpu_advice, gpu_at_hand
    from factorizer_nnunet.planning.sizes import DEFAULT_SIZE, SIZES

    gpu = gpu_at_hand()
    if gpu is not None and args.template is None:
        print(gpu_advice(gpu, args.gpu_memory_target or SIZES.get(args.size, DEFAULT_SIZE).memory_target_gb))


def run(args: argparse.Namespace) -> int:
    """Plan, then print the stock command to run next."""
    _read_old_options(args)
    if args.template is not None:
        for option in ("variant", "size", "gpu_memory_target"):
            if getattr(args, option) is not None:
                args.refuse(f"argument --{option.replace('_', '-')}: not allowed with argument --template")
    from nnunetv2.configuration import default_num_processes

    from factorizer_nnunet.core.json_files import load_json_object
    from factorizer_nnunet.nnunet.names import TRAINER
    from factorizer_nnunet.planning.dataset import (
        configurations_with_own_data,
        existing_plans,
        next_command,
        plan_dataset,
    )
    from factorizer_nnunet.planning.description import describe_plans

    if args.show:
        plans_file = existing_plans(args.dataset, args.plans_name, args.size, args.variant, args.template)
        if plans_file is not None:
            if args.gpu_memory_target is not None or args.clean or args.verify_dataset_integrity:
                args.refuse(f"{plans_file} exists and is only shown; to plan again, leave out --show")
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
        check_data=not args.no_data_check,
    )
    print(f"\nPlans: {plans_file}")
    if args.show:
        print(f"\n{describe_plans(plans_file, args.configurations)}\n")
    _print_gpu_advice(args)
    command = next_command(plans_file, args.configurations)
    if command is None:
        print(f"The plans have none of {', '.join(args.configurations)}; choose another -c")
        return 0
    if args.no_preprocess:
        planned = load_json_object(plans_file, "Plan again")["configurations"]
        names = [name for name in configurations_with_own_data(args.configurations) if name in planned]
        options = f"-c {' '.join(names)} -np {num_processes}"
        print("Edit the plans if you like, then preprocess:")
        print(f"  nnUNetv2_preprocess -d {command.split()[1]} -plans_name {plans_file.stem} {options}")
    print(f"Next, train (without a GPU add -device cpu; for six hours instead of 1000 epochs, -tr {TRAINER}_6h):")
    print(f"  {command}")
    return 0
