"""Import weights of the authors' implementation as an nnU-Net model: read, check that everything fits, write.

Several imports with the same plans name, such as the networks of a cross-validation, become folds of one model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.importing.dataset import PlannedDataset, planned_dataset
from factorizer_nnunet.importing.fitting import fit_to_dataset
from factorizer_nnunet.importing.plans import AXES, upstream_plans
from factorizer_nnunet.importing.weights import read_weights
from factorizer_nnunet.importing.writing import Targets, initial_checkpoint
from factorizer_nnunet.network import from_upstream
from factorizer_nnunet.network.upstream import upstream_arguments
from factorizer_nnunet.network.upstream_config import checked_config
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.heads import Heads, heads
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE, ModelFolder, is_fold_name
from factorizer_nnunet.nnunet.model_name import ModelName, is_plans_name
from factorizer_nnunet.nnunet.names import PLANS, TRAINER

UPSTREAM_PLANS_NAME = "nnUNetFactorizerUpstreamPlans"


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import, and for which data set.

    Attributes:
        weights: a torch file or ``.npz``, see ``weights.read_weights``.
        dataset: ID or name (``DatasetXXX_Name``) of a data set in ``nnUNet_preprocessed``.
        config_file: JSON with the arguments of the authors' network; None uses the configuration in the weights file.
        plans: name of the data set's plans, which provide normalisation, resampling and so on.
        configuration: a configuration in these plans.
        plans_name: name of the plans to write.
        fold: the fold to write, a number or ``all``.
        axes: one of ``plans.AXES``.
        spacing_mm: voxel size in the order of the network's axes; None is that of ``plans``.
        input_order: for each channel of the data set, its number in the weights; None keeps the order.
        output_order: likewise for the outputs.
    """

    weights: Path
    dataset: str | int
    config_file: Path | None = None
    plans: str = PLANS
    configuration: str = "3d_fullres"
    plans_name: str = UPSTREAM_PLANS_NAME
    fold: str = "all"  # the weights have no nnU-Net fold, and numbered folds are for nnU-Net's own trainings
    axes: str = "xyz"
    spacing_mm: Sequence[float] | None = None
    input_order: Sequence[int] | None = None
    output_order: Sequence[int] | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """The result of an import.

    Attributes:
        background_added: whether a background output was added to the only output of the weights.
        left_out: names of entries in the weights file that are not part of the network.
    """

    dataset: PlannedDataset
    targets: Targets
    heads: Heads
    background_added: bool
    left_out: tuple[str, ...]


def import_upstream(request: ImportRequest) -> ImportedModel:
    """Check everything, then write plans and a model folder.

    Raises:
        UserError: an argument, a file or a folder is not usable, or the parts do not fit together; nothing has been
            written, unless a folder became full or read-only during writing.
    """
    _check_arguments(request)
    results = nnunet_folder("nnUNet_results", writable=True)
    dataset = planned_dataset(request.dataset, request.plans)
    weights = read_weights(request.weights)
    config, arguments = _configuration(request, weights.config)
    try:
        plans = upstream_plans(
            dataset.plans, request.configuration, request.plans_name, arguments, request.axes, request.spacing_mm
        )
    except ValueError as error:
        raise UserError(f"{dataset.plans_file}: {error}. Choose what fits with -c, -p and --spacing") from error
    try:
        # Refuses weights of another configuration before their rows are permuted.
        from_upstream(config, weights.state)
    except ValueError as error:
        raise UserError(
            f"{request.weights} does not fit the configuration: {error}. Give the configuration of its training"
        ) from error
    try:
        data_heads = heads(plans, request.configuration, dataset.description)
        fitted, state = fit_to_dataset(config, weights.state, data_heads, request.input_order, request.output_order)
    except ValueError as error:
        raise UserError(
            f"{request.weights} does not fit {dataset.description.path}: {error}. Choose another data set or order"
        ) from error
    network = from_upstream(fitted, state)
    name = ModelName(TRAINER, request.plans_name, request.configuration)
    model = ModelFolder(results / dataset.folder.name / name.folder)
    targets = Targets(dataset.folder / f"{request.plans_name}.json", model, model.fold(request.fold))
    description = dataset.description.content
    targets.check_free(plans, description)
    checkpoint = initial_checkpoint(network, plans, request.configuration, request.fold, description)
    targets.write(plans, description, dataset.folder / FINGERPRINT_FILE, checkpoint)
    return ImportedModel(
        dataset=dataset,
        targets=targets,
        heads=data_heads,
        background_added=fitted["out_channels"] > config["out_channels"],
        left_out=weights.left_out,
    )


def _configuration(request: ImportRequest, found: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The authors' configuration, from its file or ``found`` in the weights, and the arguments of our network."""
    config, origin = found, request.weights
    if request.config_file is not None:
        config = load_json_object(request.config_file, "Give the JSON of the arguments of the authors' network")
        origin = request.config_file
    if config is None:
        raise UserError(f"{origin} contains no configuration. Give the arguments of the authors' network with --config")
    try:
        checked = checked_config(config)
        from_upstream(checked)
        return checked, upstream_arguments(checked)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UserError(f"configuration in {origin}: {error}. Correct it") from error


def _check_arguments(request: ImportRequest) -> None:
    if not is_plans_name(request.plans_name):
        raise UserError(
            f"{request.plans_name!r} cannot name the plans of a model: use letters, digits and single underscores "
            f"between them, such as {UPSTREAM_PLANS_NAME}_2mm"
        )
    if not is_fold_name(request.fold):
        raise UserError(f"invalid fold {request.fold!r}: give a number, such as 0, or all")
    if request.axes not in AXES:
        raise UserError(f"unknown axes {request.axes!r}: choose from {', '.join(AXES)}")
    spacing = request.spacing_mm
    if spacing is not None and not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise UserError(f"the spacing is {list(spacing)} mm: give numbers above 0, such as 2 2 2")
