"""Weights of the authors' implementation to a model of nnU-Net: read, check that all fits together, write.

Several imports under one name of plans, as of the networks of a cross-validation, become folds of one model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.importing.dataset import Heads, PlannedDataset, heads, planned_dataset
from factorizer_nnunet.importing.fitting import fit_to_dataset
from factorizer_nnunet.importing.plans import AXES, upstream_plans
from factorizer_nnunet.importing.weights import read_weights
from factorizer_nnunet.importing.writing import Targets, checkpoint_of
from factorizer_nnunet.network import from_upstream
from factorizer_nnunet.network.upstream import upstream_arguments
from factorizer_nnunet.network.upstream_config import checked_config
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.names import PLANS, TRAINER

UPSTREAM_PLANS_NAME = "nnUNetFactorizerUpstreamPlans"


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import and for what.

    Attributes:
        weights: a torch file or an ``.npz``, see ``weights.read_weights``.
        dataset: ID or name (``DatasetXXX_Name``) of a data set in ``nnUNet_preprocessed``.
        config_file: JSON of the arguments of the authors' network; None takes what the weights' file holds.
        plans: name of the data set's plans, from which normalisation, resampling and the like are taken.
        configuration: one of these plans.
        plans_name: name of the plans to write.
        fold: of the model to write, a number or ``all``.
        axes: one of ``plans.AXES``.
        spacing_mm: voxel size in the order of the network's axes; None is that of ``plans``.
        input_order: for each channel of the data set, the number of the weights' channel; None keeps the order.
        output_order: likewise for the outputs.
    """

    weights: Path
    dataset: str | int
    config_file: Path | None = None
    plans: str = PLANS
    configuration: str = "3d_fullres"
    plans_name: str = UPSTREAM_PLANS_NAME
    fold: str = "all"  # the weights know nothing of nnU-Net's folds, and its own trainings fill the numbered ones
    axes: str = "xyz"
    spacing_mm: Sequence[float] | None = None
    input_order: Sequence[int] | None = None
    output_order: Sequence[int] | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """What an import wrote.

    Attributes:
        background_added: whether the weights had one output and the background got a second one.
        left_out: entries of the weights' file that belong to something beside the network.
    """

    dataset: PlannedDataset
    targets: Targets
    heads: Heads
    background_added: bool
    left_out: tuple[str, ...]


def import_upstream(request: ImportRequest) -> ImportedModel:
    """Write plans and a model folder; everything is checked before.

    Raises:
        UserError: an argument, a file or a folder cannot be used, or the parts do not fit together; nothing has been
            written then, unless a folder became full or read-only meanwhile.
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
        # Refuses weights of another configuration before rows of theirs change places.
        from_upstream(config, weights.state)
    except ValueError as error:
        raise UserError(
            f"{request.weights} is not of the configuration given: {error}. Give the one that it was trained with"
        ) from error
    try:
        counted = heads(plans, request.configuration, dataset.description)
        fitted, state = fit_to_dataset(config, weights.state, counted, request.input_order, request.output_order)
    except ValueError as error:
        file = dataset.folder / "dataset.json"
        raise UserError(f"{request.weights} does not fit {file}: {error}. Choose another data set or order") from error
    network = from_upstream(fitted, state)
    model = results / dataset.folder.name / f"{TRAINER}__{request.plans_name}__{request.configuration}"
    targets = Targets(
        plans_file=dataset.folder / f"{request.plans_name}.json", model=model, fold=model / f"fold_{request.fold}"
    )
    targets.check_free(plans, dataset.description)
    fold = request.fold if request.fold == "all" else int(request.fold)
    checkpoint = checkpoint_of(network, plans, request.configuration, fold, dataset.description)
    targets.write(plans, dataset.description, dataset.folder / "dataset_fingerprint.json", checkpoint)
    return ImportedModel(
        dataset=dataset,
        targets=targets,
        heads=counted,
        background_added=fitted["out_channels"] > config["out_channels"],
        left_out=weights.left_out,
    )


def _configuration(request: ImportRequest, held: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The authors' configuration and, from it, the arguments of our network."""
    config, origin = held, request.weights
    if request.config_file is not None:
        config = load_json_object(request.config_file, "Give the JSON of the arguments of the authors' network")
        origin = request.config_file
    if config is None:
        raise UserError(f"{origin} holds no configuration. Give the arguments of the authors' network with --config")
    try:
        checked = checked_config(config)
        from_upstream(checked)
        return checked, upstream_arguments(checked)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UserError(f"configuration in {origin}: {error}. Correct it") from error


def _check_arguments(request: ImportRequest) -> None:
    name = request.plans_name
    # Two underscores part the names in that of a model's folder.
    if not name or Path(name).name != name or name.endswith(".json") or "__" in name:
        raise UserError(
            f"{name!r} cannot name a plans file: give a name without folders, .json and double underscores, such as "
            f"{UPSTREAM_PLANS_NAME}_2mm"
        )
    if re.fullmatch(r"all|0|[1-9]\d*", request.fold) is None:
        raise UserError(f"fold {request.fold!r} is impossible: give a number, such as 0, or all")
    if request.axes not in AXES:
        raise UserError(f"axes {request.axes!r} are unknown: choose from {', '.join(AXES)}")
    spacing = request.spacing_mm
    if spacing is not None and not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise UserError(f"the spacing is {list(spacing)} mm: give numbers above 0, such as 2 2 2")
