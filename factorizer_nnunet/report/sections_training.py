"""Sections of the page: what was trained on what, and the training curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from factorizer_nnunet.pages.markup import short, text_of
from factorizer_nnunet.report.charts.axes import model_class
from factorizer_nnunet.report.charts.curves import Line, curves_svg
from factorizer_nnunet.report.results import Result
from factorizer_nnunet.report.training import count_weights, last_checkpoint


def trained_section(results: Sequence[Result]) -> str:
    """A table with a column for each result."""
    columns = [_facts(result) for result in results]
    rows = []
    for name in columns[0]:
        texts = [column[name] for column in columns]
        if any(texts):
            cells = "".join(f"<td>{text_of(text) if text else '–'}</td>" for text in texts)
            rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    heads = "".join(
        f'<th scope="col"><i class="key {model_class(place)}"></i>{text_of(result.title)}</th>'
        for place, result in enumerate(results)
    )
    return (
        f'<div class="scroll"><table class="facts"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _facts(result: Result) -> dict[str, str]:
    dataset_json = result.dataset_json
    channels = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    labels = {name: value for name, value in dataset_json.get("labels", {}).items() if name != "background"}
    name_parts = ["", "", ""] if result.model is None else result.model.resolve().name.split("__")
    trainer, plans, configuration = name_parts if len(name_parts) == 3 else ("", "", "")
    settings = _configuration(result, configuration)
    network = str(settings.get("architecture", {}).get("network_class_name", "")).rpartition(".")[2]
    widths = settings.get("architecture", {}).get("arch_kwargs", {}).get("features_per_stage", [])
    epochs = [curve.epochs.size for curve in result.curves]
    hours = [curve.hours for curve in result.curves]
    checkpoints = (
        [] if result.model is None else [last_checkpoint(fold) for fold in sorted(result.model.glob("fold_*"))]
    )
    found = [checkpoint for checkpoint in checkpoints if checkpoint is not None]
    weights = count_weights(found[0]) if found else None
    training = dataset_json.get("numTraining")
    return {
        "data set": result.dataset + (f", {training} training cases" if training else ""),
        "channels": ", ".join(map(str, channels.values() if isinstance(channels, dict) else channels)),
        "labels": ", ".join(f"{name} ({_labels(value)})" for name, value in labels.items()),
        "trainer": trainer,
        "plans": plans or str(result.plans.get("plans_name", "")),
        "configuration": configuration,
        "network": network + (f", widths {', '.join(map(str, widths))}" if isinstance(widths, list) and widths else ""),
        "weights": "" if weights is None else f"{weights / 1e6:.2f} million",
        "patch, voxels": _product(settings.get("patch_size")),
        "voxel size, mm": _product(settings.get("spacing")),
        "batch size": str(settings.get("batch_size", "")),
        "folds trained": ", ".join(curve.fold for curve in result.curves),
        "epochs": _range(epochs, "{:.0f}"),
        "training time of a fold": _range(*_in_fitting_unit(hours)),
        "checkpoint": ", ".join(sorted({checkpoint.stem.removeprefix("checkpoint_") for checkpoint in found})),
        "cases": f"{len(result.cases)}, {result.kind}"
        + (f" of folds {', '.join(result.folds)}" if result.folds else ""),
        "folder": str(result.folder),
    }


def _configuration(result: Result, name: str) -> dict:
    """A configuration of the plans with what it inherits."""
    configurations = result.plans.get("configurations", {})
    own = configurations.get(name, {})
    above = own.get("inherits_from")
    return {**_configuration(result, above), **own} if above in configurations and above != name else dict(own)


def _labels(value: object) -> str:
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)


def _product(values: Sequence[float] | None) -> str:
    return " × ".join(short(value) for value in values) if values else ""


def _in_fitting_unit(hours: Sequence[float]) -> tuple[list[float], str]:
    """Times in hours, minutes or seconds, and how to write them."""
    longest = max(hours, default=0)
    per_hour, unit = (1, ".1f} h") if longest >= 2 else (60, ".0f} min") if longest >= 1 / 30 else (3600, ".0f} s")
    return [value * per_hour for value in hours], "{:" + unit


def _range(values: Sequence[float], form: str) -> str:
    """One number, or the smallest and the largest of different ones."""
    texts = [form.format(value) for value in sorted(values)]
    return "" if not texts else texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def curves_section(results: Sequence[Result]) -> str:
    """Losses and pseudo Dice of all folds; "" without any."""
    trained = [(place, result) for place, result in enumerate(results) if result.curves]
    if not trained:
        return ""
    quantities = (
        ("pseudo_dice", "pseudo Dice of validation patches", (0.0, 1.0)),
        ("train_loss", "loss, training", None),
        ("val_loss", "loss, validation patches", None),
    )
    figures = []
    for attribute, title, within in quantities:
        lines = [
            Line(result.title, place, curve.fold, curve.epochs, getattr(curve, attribute))
            for place, result in trained
            for curve in result.curves
            if np.isfinite(getattr(curve, attribute)).any()
        ]
        if lines:
            caption = f"{title[0].upper()}{title[1:]}"
            svg = curves_svg(title, lines, within)
            figures.append(f"<figure><figcaption><b>{caption}</b></figcaption>{svg}</figure>")
    return (
        '<p class="soft">Thin lines are folds, bold ones their mean. Pseudo Dice is nnU-Net\'s own estimate on random '
        "patches while training; it is not comparable with the scores below.</p>"
        f'<div class="charts">{"".join(figures)}</div>'
    )
