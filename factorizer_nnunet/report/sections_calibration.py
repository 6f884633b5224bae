"""Section of the page: how far estimates and probabilities of a model can be trusted, as calibrate has found out."""

from __future__ import annotations

import math

import numpy as np

from factorizer_nnunet.calibration.calibration_file import Calibration, calibration_file, read_calibration
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.pages.markup import charts, figure, note, table, text_of
from factorizer_nnunet.report.charts.calibration import estimates_svg, reliability_svg
from factorizer_nnunet.report.results import CROSS_VALIDATION
from factorizer_nnunet.report.study import Group, Scored


def calibration_section(group: Group) -> str:
    """Estimates, reliability and errors of each calibrated model; how to calibrate, if none is. "" for test cases."""
    models = [one for one in group.scored if one.result.model is not None]
    if not models or models[0].result.kind != CROSS_VALIDATION:
        return ""
    parts = [part for scored in models if (part := _of_model(group, scored))]
    if parts:
        return "".join(parts)
    command = f"factorizer-nnunet calibrate -m {models[0].result.folder}"
    return note(f"Not calibrated. To learn when to trust its segmentations: <code>{text_of(command)}</code>.")


def _of_model(group: Group, scored: Scored) -> str:
    model = scored.result.model
    if model is None or not calibration_file(model.path).is_file():
        return ""
    try:
        found = read_calibration(model.path)
    except UserError as error:
        return note(text_of(error))
    title = f"<h3>{text_of(scored.title)}</h3>" if len(group.scored) > 1 else ""
    if found is None:
        return ""
    changed = [
        fold
        for fold, digest in found.checkpoints.items()
        if model.fold(fold).checkpoint().is_file() and stamp_of(model.fold(fold).checkpoint()).sha256 != digest
    ]
    if changed:
        folds = ", ".join(changed)
        return title + note(f"Fold {text_of(folds)} has been trained further since: run calibrate again.")
    lead = (
        f"{sum(found.num_cases.values())} cases, each predicted by the fold that was not trained on it. Estimates are "
        f"of lines fitted without the case; intervals are as wide as {found.coverage:.0%} of the errors need. "
        "Temperatures and offsets were fitted to other folds, or to the other half of the cases of a single fold. "
        "Probabilities below 1 % are left out."
    )
    estimates = [
        figure(f"<b>{text_of(name)}</b>", estimates_svg(name, region.cases, group.number_of))
        for name, region in found.regions.items()
        if region.cases
    ]
    reliable = [
        figure(f"<b>{text_of(name)}</b>", reliability_svg(name, one))
        for name, one in found.outputs.items()
        if not math.isnan(one.before.ece)
    ]
    remark = note(text_of(found.note)) if found.note else ""
    parts = [title, note(text_of(lead)), remark, charts(estimates, kind="charts narrow"), _estimates(found)]
    return "".join([*parts, charts(reliable, kind="charts narrow"), _outputs(found)])


def _estimates(found: Calibration) -> str:
    """How good the estimates of each region are."""
    rows = []
    for name, region in found.regions.items():
        if region.model is None:
            continue
        dice, estimate = (np.array([getattr(one, key) for one in region.cases]) for key in ("dice", "estimate"))
        reach = region.model.reach(estimate)
        rows.append(
            f"<tr><td>{text_of(name)}</td><td>{len(dice)}</td><td>{region.median_dice:.3f}</td>"
            f"<td>{np.abs(dice - estimate).mean():.3f}</td><td>± {np.median(reach):.3f}</td></tr>"
        )
    heads = ["region", "cases", "median Dice", "mean error of the estimate", "median interval"]
    return table(heads, rows) if rows else ""


def _outputs(found: Calibration) -> str:
    rows = [
        f"<tr><td>{text_of(name)}</td><td>{one.scaling.temperature:.2f}</td><td>{one.scaling.offset:.2f}</td>"
        f"<td>{one.before.ece:.3f}</td><td>{one.after.ece:.3f}</td>"
        f"<td>{one.before.brier:.4f}</td><td>{one.after.brier:.4f}</td></tr>"
        for name, one in found.outputs.items()
        if not math.isnan(one.before.ece)
    ]
    heads = ["label or region", "temperature", "offset", "ECE before", "ECE after", "Brier before", "Brier after"]
    return table(heads, rows) if rows else ""
