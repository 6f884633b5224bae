"""Import weights of the authors' implementation as an nnU-Net model.

Import weights of the authors' implementation (github.com/pashtari/factorizer) as an nnU-Net model: plans with their
network and patch size in nnUNet_preprocessed, and a model folder in nnUNet_results for nnUNetv2_predict, whose
checkpoint nnUNetv2_train accepts as -pretrained_weights. Existing files are not overwritten.

The data set must have plans. Their normalisation and resampling are kept, so check that the weights were trained with
the same. To predict with all networks of a cross-validation, import them one by one, each with its own -f.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from factorizer_nnunet.commands.options import add_dataset_option, add_shared, request_of
from factorizer_nnunet.nnunet.names import TRAINER

if TYPE_CHECKING:
    from factorizer_nnunet.importing.model import ImportedModel, ImportRequest

FINE_TUNING_TRAINER = f"{TRAINER}_lr1e-4"  # writes to its own results folder

EPILOG = """\
CONFIG.json contains the arguments of the authors' network, as network_def in their MONAI bundles:
  {"in_channels": 4, "out_channels": 3, "spatial_size": [128, 128, 128], "encoder_width": [32, 64, 128, 256, 512],
   "encoder_depth": [1, 1, 1, 1, 1], "decoder_depth": [1, 1, 1, 1], "strides": [1, 2, 2, 2, 2],
   "reshape": ["SWMatricize", {"head_dim": 8, "patch_size": 8}], "rank": 1, "num_iters": 5, "solver": "hals",
   "mlp_ratio": 3}

example: weights that take FLAIR, T1, T1ce, T2 and give enhancing tumor, tumor core, whole tumor, for a data set with
T1, T1ce, T2, FLAIR and whole tumor, tumor core, enhancing tumor
  factorizer-nnunet plan -d 137 --no-preprocess
  factorizer-nnunet import-upstream model.pt --config network.json -d 137 --spacing 1 1 1 \\
      --input-order 1 2 3 0 --output-order 2 1 0
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "weights",
        type=Path,
        metavar="WEIGHTS",
        help="torch file of the network's state_dict, bare or under state_dict or model, or .npz of arrays state/NAME",
    )
    add(
        "--config",
        dest="config_file",
        type=Path,
        metavar="CONFIG.json",
        help="arguments of the authors' network; not needed if an .npz contains them as config",
    )
    add_dataset_option(parser)
    add_shared(parser, "-p", help="plans to start from (default: nnUNetFactorizerPlans)")
    add_shared(parser, "-c", help="one of these plans' configurations (default: 3d_fullres)")
    add_shared(
        parser,
        "--plans-name",
        help="name of the plans to write, then used with -p NAME (default: nnUNetFactorizerUpstreamPlans)",
    )
    add_shared(
        parser,
        "-f",
        "--fold",
        dest="fold",
        help="fold of the model to write (default: all, which leaves the numbered folds free for trainings)",
    )
    add(
        "--axes",
        choices=["xyz", "plans"],
        help="xyz (default): the network sees x before y before z, as with the authors' loaders; plans: as in PLANS, "
        "where nnU-Net's order is z, y, x",
    )
    add(
        "--spacing",
        dest="spacing_mm",
        type=float,
        nargs="+",
        metavar="MM",
        help="voxel size for the network, in mm, in the order of its axes (default: that of PLANS)",
    )
    for what in ("input", "output"):
        names = "channel" if what == "input" else "region or label"
        add(
            f"--{what}-order",
            type=int,
            nargs="+",
            metavar="N",
            help=f"for each {names} of dataset.json, in its order, which {what} of the weights it is, from 0 "
            "(default: the same order)",
        )


def run(args: argparse.Namespace) -> int:
    """Import, then print how the channels were interpreted and which stock commands to run next."""
    from factorizer_nnunet.importing.model import ImportRequest, import_upstream

    request = request_of(ImportRequest, args)
    imported = import_upstream(request)
    print("\n".join(_report(request, imported)))
    return 0


def _report(request: ImportRequest, imported: ImportedModel) -> Iterator[str]:
    targets, heads = imported.targets, imported.heads
    yield f"Plans: {targets.plans_file}\nModel: {targets.fold.path}"
    if imported.left_out:
        yield f"Skipped entries that are not part of the network: {', '.join(imported.left_out[:5])}" + " …" * (
            len(imported.left_out) > 5
        )
    yield f"\nThe inputs of the weights are taken to be   {_numbered(heads.channels, request.input_order)}"
    if imported.background_added:
        foreground, background = heads.outputs[1], heads.outputs[0]
        yield f"The only output of the weights is taken to be {foreground}, and {background} where it is negative"
    else:
        yield f"The outputs of the weights are taken to be  {_numbered(heads.outputs, request.output_order)}"
    names = f"-p {request.plans_name}"
    dataset, configuration = imported.dataset.id, request.configuration
    yield f"""
Next, predict (with --disable_tta if the weights were trained without mirrored images):
  nnUNetv2_predict -d {dataset} -c {configuration} -f {request.fold} -tr {TRAINER} {names} -i IN -o OUT
or train from these weights, here at the authors' learning rate, into another model folder:
  nnUNetv2_preprocess -d {dataset} -plans_name {request.plans_name} -c {configuration}
  nnUNetv2_train {dataset} {configuration} 0 -tr {FINE_TUNING_TRAINER} {names} \\
      -pretrained_weights {shlex.quote(str(targets.fold.checkpoint()))}"""


def _numbered(names: Sequence[str], order: Sequence[int] | None) -> str:
    numbered = sorted(zip(order or range(len(names)), names, strict=True))
    return ", ".join(f"{number}: {name}" for number, name in numbered)
