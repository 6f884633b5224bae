"""Sections of the page: how the models were trained, and the training curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from factorizer_nnunet.core.wording import lengths
from factorizer_nnunet.nnunet.plans import resolved_configuration
from factorizer_nnunet.pages.markup import cell, charts, dash, figure, table_below
from factorizer_nnunet.report.charts.axes import model_heads
from factorizer_nnunet.report.charts.curves import Line, curves_svg
from factorizer_nnunet.report.results import Result

_UNKNOWN = "not recorded in the folder of this result"


def trained_section(results: Sequence[Result]) -> str:
    """A table with a column for each result."""
    columns = [
        _data_facts(result) | _model_facts(result) | _training_facts(result) | {"folder": str(result.folder)}
        for result in results
    ]
    rows = []
    for name in columns[0]:
        texts = [column[name] for column in columns]
        if any(texts):
            cells = (cell(text) if text else f"<td>{dash(_UNKNOWN)}</td>" for text in texts)
            rows.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    heads = model_heads([(result.title, place) for place, result in enumerate(results)])
    return table_below(f"<tr><td></td>{heads}</tr>", rows, "facts")


def _data_facts(result: Result) -> dict[str, str]:
    training = result.dataset.num_training
    labels = {name: value for name, value in result.dataset.labels.items() if name != "background"}
    return {
        "dataset": result.dataset_name + (f", {training} training cases" if training else ""),
        "channels": ", ".join(result.dataset.channel_names),
        "labels": ", ".join(f"{name} ({' + '.join(map(str, values))})" for name, values in labels.items()),
    }


def _model_facts(result: Result) -> dict[str, str]:
    from factorizer_nnunet.nnunet.checkpoint import count_weights  # torch takes seconds to import

    name = None if result.model is None else result.model.name
    configuration = name.configuration if name else ""
    settings = resolved_configuration(result.plans, configuration, f"{result.folder / 'plans.json'}")
    architecture = settings.get("architecture", {})
    network = str(architecture.get("network_class_name", "")).rpartition(".")[2]
    widths = architecture.get("arch_kwargs", {}).get("features_per_stage", [])
    folds = [] if result.model is None else result.model.folds()
    checkpoints = [path for fold in folds if (path := fold.last_checkpoint()) is not None]
    weights = count_weights(checkpoints[0]) if checkpoints else None
    return {
        "trainer": name.trainer if name else "",
        "plans": name.plans if name else str(result.plans.get("plans_name", "")),
        "configuration": configuration,
        "network": network + (f", widths {', '.join(map(str, widths))}" if isinstance(widths, list) and widths else ""),
        "weights": "" if weights is None else f"{weights / 1e6:.2f} million",
        "patch size, voxels": _product(settings.get("patch_size")),
        "voxel size, mm": _product(settings.get("spacing")),
        "batch size": str(settings.get("batch_size", "")),
        "checkpoint": ", ".join(sorted({path.stem.removeprefix("checkpoint_") for path in checkpoints})),
    }


def _training_facts(result: Result) -> dict[str, str]:
    folds = "folds" if len(result.folds) > 1 else "fold"
    return {
        "trained folds": ", ".join(curve.fold for curve in result.curves),
        "epochs": _range([curve.epochs.size for curve in result.curves], "{:.0f}"),
        "training time per fold": _range(*_in_suitable_unit([curve.hours for curve in result.curves])),
        "cases": f"{len(result.cases)}, {result.kind}"
        + (f" of {folds} {', '.join(result.folds)}" if result.folds else ""),
    }


def _product(values: Sequence[float] | None) -> str:
    return lengths(values) if values else ""


def _in_suitable_unit(hours: Sequence[float]) -> tuple[list[float], str]:
    """Times in hours, minutes or seconds, and how to format them."""
    longest = max(hours, default=0)
    per_hour, unit = (1, ".1f} h") if longest >= 2 else (60, ".0f} min") if longest >= 1 / 30 else (3600, ".0f} s")
    return [value * per_hour for value in hours], "{:" + unit


def _range(values: Sequence[float], form: str) -> str:
    """A single number, or the smallest and the largest."""
    texts = [form.format(value) for value in sorted(values)]
    return "" if not texts else texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def curves_section(results: Sequence[Result]) -> str:
    """Losses and pseudo Dice of all folds; "" if there are none."""
    quantities = (
        ("pseudo_dice", "pseudo Dice on validation patches", (0.0, 1.0)),
        ("train_loss", "training loss", None),
        ("val_loss", "loss on validation patches", None),
    )
    figures = []
    for attribute, title, within in quantities:
        lines = [
            Line(result.title, place, curve.fold, curve.epochs, getattr(curve, attribute))
            for place, result in enumerate(results)
            for curve in result.curves
            if np.isfinite(getattr(curve, attribute)).any()
        ]
        if lines:
            figures.append(figure(f"<b>{title[0].upper()}{title[1:]}</b>", curves_svg(title, lines, within)))
    lead = (
        "Thin lines are folds, bold lines their mean. Pseudo Dice is nnU-Net's estimate on random patches during "
        "training; it cannot be compared with the scores below."
    )
    return charts(figures, lead)
