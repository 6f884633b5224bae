"""``quality.html``: the cases of a prediction, the most doubtful first, to open and look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from factorizer_nnunet.core.wording import count_of, first_few, short, today
from factorizer_nnunet.explain.heat import COLOURS
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.model_name import ModelName, short_trainer
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.pages.markup import cell, csv_button, document, note, number, sections, table, text_of
from factorizer_nnunet.pages.style import SCRIPT, STYLE
from factorizer_nnunet.pages.viewer import stored_case, viewer
from factorizer_nnunet.pages.viewer_script import VIEWER_SCRIPT
from factorizer_nnunet.pages.viewer_style import VIEWER_STYLE
from factorizer_nnunet.quality.assess import CaseQuality, Judge, RegionQuality
from factorizer_nnunet.quality.shown_cases import ShownFiles, shown_cases
from factorizer_nnunet.report.style import REPORT_STYLE

PAGE_FILE = "quality.html"
_HEADS = (
    *("rank", "case", "doubt", "region", "why to look at it"),
    *("estimated Dice", "from", "to", "agreement", "confidence", "folds", "volume in ml", "lesions"),
)
# Why a number is not known.
_NOT_FOUND = "no pass finds the region"
_NOT_FOUND_ON_AVERAGE = "the mean of the passes does not have the region"
_ONE_PASS = "one pass of each fold: nothing to compare"
_ONE_FOLD = "one fold: nothing to compare"
_NOTHING_KNOWN = "nothing was found, and it is not known how often that is wrong: the model is not calibrated"


def worklist_page(
    name: str,
    cases: Sequence[CaseQuality],
    judges: Sequence[Judge],
    files: Mapping[str, ShownFiles],
    dataset: DatasetJson,
    limits: ViewerLimits,
    failed: Mapping[str, str],
) -> str:
    """The page.

    Args:
        name: of the folder of predictions.
        cases: the most doubtful first.
        judges: the models.
        files: by case.
        dataset: what labels mean.
        limits: of the viewer.
        failed: cases that could not be predicted, with the reason.

    Raises:
        UserError: files of a case cannot be shown.
    """
    flagged = sum(bool(case.flags) for case in cases)
    lead = f"{count_of(len(cases), 'case')}, {flagged} flagged for review. "
    lead = note(text_of(f"{lead}Click a row to open its case, a column head to sort.")) + csv_button("quality")
    links, body = sections(
        [
            ("cases", "Cases, the most doubtful first", f'{lead}<div class="cases">{_table(cases, judges)}</div>'),
            ("meaning", "What the columns mean", _meaning(judges)),
        ]
    )
    ranked = {case.case: files[case.case] for case in cases}
    stored = map(stored_case, shown_cases(ranked, dataset))
    shown = viewer(stored, dataset.regions, list(ranked), limits, COLOURS.tolist())
    return document(
        f"{name}: worklist of {today()}",
        STYLE + REPORT_STYLE + VIEWER_STYLE,
        SCRIPT + VIEWER_SCRIPT,
        f"{_header(name, judges, files, failed)}<nav>{links}</nav>{body}{shown}",
    )


def _header(name: str, judges: Sequence[Judge], files: Mapping[str, ShownFiles], failed: Mapping[str, str]) -> str:
    """What was predicted, when the page was written, which models predicted it, and what is missing."""
    models = "".join(f'<li title="{text_of(judge.model)}">{text_of(_model(judge))}</li>' for judge in judges)
    warnings = [f"Not predicted: {case}: {reason}" for case, reason in failed.items()]
    warnings += [note for judge in judges for note in judge.notes]
    if changed := [words for own in files.values() for words in own.changed]:
        warnings.append(f"Images are not those that were predicted from: {first_few(changed)}. Predict again")
    shown = "".join(f'<p class="warning">{text_of(warning)}</p>' for warning in warnings)
    subtitle = note(f"Worklist of segmentations, {today()}")
    return f'<header><h1>{text_of(name)}</h1>{subtitle}<ul class="models">{models}</ul>{shown}</header>'


def _model(judge: Judge) -> str:
    """A model as people read it: data set, trainer, plans, configuration and folds; and if it is calibrated."""
    parsed, parts = ModelName.parse(judge.model.name), [judge.model.name]
    if parsed is not None:
        trainer = short_trainer(parsed.trainer)
        parts = [f"{judge.model.parent.name}: {trainer}", parsed.plans, parsed.configuration]
    parts.append(f"{'fold' if len(judge.folds) == 1 else 'folds'} {', '.join(judge.folds)}")
    if judge.calibration is None:
        return ", ".join([*parts, "not calibrated"])
    count = sum(judge.calibration.num_cases.values())
    return ", ".join([*parts, f"calibrated on {count_of(count, 'out-of-fold case')}"])


def _table(cases: Sequence[CaseQuality], judges: Sequence[Judge]) -> str:
    """A row for every region of a case."""
    rows = []
    for place, case in enumerate(cases):
        opens = f'<button class="open" data-view="{place}">{text_of(case.case)}</button>'
        doubt = _cell(case.doubt, _NOTHING_KNOWN)
        first, *_ = case.regions
        for name, region in case.regions.items():
            # What is said of the image stands once; rows can be sorted, so that others name the row.
            of_image = case.image.reasons if name == first else [f"the image: see {first}"] * bool(case.image.reasons)
            reasons = "; ".join([*region.flags, *of_image])
            cells = [
                cell(place + 1, "number"),
                f'<th scope="row">{opens}</th>{doubt}{cell(name)}{cell(reasons, "words")}',
                *_numbers(name, region, judges),
            ]
            rows.append(f'<tr data-view="{place}">{"".join(cells)}</tr>')
    return table(_HEADS, rows, sortable=True)


def _numbers(name: str, region: RegionQuality, judges: Sequence[Judge]) -> list[str]:
    found = region.estimate
    estimated = (math.nan,) * 3 if found is None else (found.dice, found.low, found.high)
    missing = None if any(region.volumes_ml) else _NOT_FOUND
    return [
        *(_cell(value, missing or _no_estimate(name, judges)) for value in estimated),
        _cell(region.agreement, missing or _ONE_PASS),
        _cell(region.confidence, missing or _NOT_FOUND_ON_AVERAGE),
        _cell(region.fold_agreement, missing or _ONE_FOLD),
        _range(*region.volumes_ml),
        _range(*region.lesions),
    ]


def _no_estimate(region: str, judges: Sequence[Judge]) -> str:
    for judge in judges:
        known = None if judge.calibration is None else judge.calibration.regions.get(region)
        if known is None or known.model is None:
            return judge.note
    return "its passes do not have what the Dice is estimated from"


def _cell(value: float, undefined: str) -> str:
    known = None if math.isnan(value) else value
    return number(known, f"{value:.2f}", undefined=undefined)


def _range(low: float, high: float) -> str:
    return cell(short(low) if low == high else f"{short(low)} to {short(high)}", "number")


def _meaning(judges: Sequence[Judge]) -> str:
    coverage = [judge.calibration.coverage for judge in judges if judge.calibration is not None]
    estimated = (
        f"estimated from agreement and confidence as in the model's out-of-fold cases; in {coverage[0]:.0%} of cases "
        "like those the Dice lies between “from” and “to”"
        if coverage
        else "not estimated, since the model is not calibrated"
    )
    lines = {
        "doubt": "1 minus the lowest of estimated Dice (without it, agreement and confidence) and agreement of the "
        "folds, over regions; where no pass finds a region, how often it was there in such out-of-fold cases; cases of "
        "unknown doubt come first",
        "estimated Dice": estimated,
        "agreement": "mean Dice of pairs of mirrored passes of one fold, the mean over folds",
        "confidence": "the Dice that the network's probabilities promise, the mean over folds",
        "folds": "mean Dice of pairs of folds; it is not in the estimate, since out-of-fold cases have one fold only",
        "volume, lesions": "the smallest and the largest among the folds, or the mirrored passes of a single one",
    }
    return (
        "<dl>" + "".join(f"<dt>{text_of(key)}</dt><dd>{text_of(value)}</dd>" for key, value in lines.items()) + "</dl>"
    )
