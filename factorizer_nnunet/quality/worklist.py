"""``quality.html``: the cases of a prediction, the most doubtful first, to open and look at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.explain.heat import COLOURS
from factorizer_nnunet.imaging.display_grid import display_grid, to_uint8
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.pages.markup import cell, csv_button, document, note, number, sections, table, text_of
from factorizer_nnunet.pages.style import SCRIPT, STYLE
from factorizer_nnunet.pages.viewer import ShownCase, ShownMap, stored_case, viewer
from factorizer_nnunet.pages.viewer_script import VIEWER_SCRIPT
from factorizer_nnunet.pages.viewer_style import VIEWER_STYLE
from factorizer_nnunet.quality.assess import CaseQuality, Judge, RegionQuality
from factorizer_nnunet.report.case_volumes import CaseVolumes, read_image, read_volumes
from factorizer_nnunet.report.results import ResultCase
from factorizer_nnunet.report.style import REPORT_STYLE

PAGE_FILE = "quality.html"
_MAP_SIDE = 96  # voxels of a map's longest side
_UNKNOWN = "not known: too few passes, or nothing was found"


@dataclass(frozen=True)
class ShownFiles:
    """The files of a case: its images, its segmentation, and its maps by name."""

    images: tuple[Path, ...]
    segmentation: Path
    maps: Mapping[str, Path]


def worklist_page(
    title: str,
    cases: Sequence[CaseQuality],
    judges: Sequence[Judge],
    files: Mapping[str, ShownFiles],
    dataset: DatasetJson,
    limits: ViewerLimits,
) -> str:
    """The page.

    Args:
        title: of the predictions.
        cases: the most doubtful first.
        judges: the models.
        files: by case.
        dataset: what labels mean.
        limits: of the viewer.

    Raises:
        OSError, RuntimeError, ValueError, IndexError: files of a case cannot be shown.
    """
    names = [case.case for case in cases]
    flagged = sum(bool(case.flags) for case in cases)
    lead = note(text_of(f"{count_of(len(cases), 'case')}, {flagged} with a reason to look closer."))
    lead += "".join(f'<p class="warning">{text_of(judge.note)}</p>' for judge in judges if judge.note)
    links, body = sections(
        [
            ("cases", "Cases, the most doubtful first", lead + _table(cases)),
            ("meaning", "What the columns mean", _meaning(judges)),
        ]
    )
    shown = viewer(map(stored_case, _shown(cases, files, dataset)), dataset.regions, names, limits, COLOURS.tolist())
    header = f"<header><h1>{text_of(title)}</h1></header>"
    style, script = STYLE + REPORT_STYLE + VIEWER_STYLE, SCRIPT + VIEWER_SCRIPT
    return document(title, style, script, f"{header}<nav>{links}</nav>{body}{shown}")


def _table(cases: Sequence[CaseQuality]) -> str:
    heads = ["rank", "case", "region", "estimated Dice", "from", "to", "agreement", "confidence", "folds"]
    heads += ["volume in ml", "lesions", "why to look at it"]
    rows = []
    for rank, case in enumerate(cases, 1):
        opens = f'<td><button class="open" data-view="{rank - 1}">{text_of(case.case)}</button></td>'
        for name, region in case.regions.items():
            reasons = "; ".join([*region.flags, *case.image.reasons])
            rows.append(
                f"<tr>{number(rank, str(rank), undefined=_UNKNOWN)}{opens}{cell(name)}{_numbers(region)}"
                f"{cell(reasons)}</tr>"
            )
    return csv_button("quality") + table(heads, rows, sortable=True)


def _numbers(region: RegionQuality) -> str:
    found = region.estimate
    estimated = (math.nan,) * 3 if found is None else (found.dice, found.low, found.high)
    cells = [_cell(value) for value in (*estimated, region.agreement, region.confidence, region.fold_agreement)]
    cells.append(_range(*region.volumes_ml))
    cells.append(_range(*region.lesions))
    return "".join(cells)


def _cell(value: float) -> str:
    known = None if math.isnan(value) else value
    return number(known, f"{value:.2f}", undefined=_UNKNOWN)


def _range(low: float, high: float) -> str:
    shown = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return number(high, shown, undefined=_UNKNOWN)


def _meaning(judges: Sequence[Judge]) -> str:
    coverage = [judge.calibration.coverage for judge in judges if judge.calibration is not None]
    estimated = (
        f"estimated from agreement and confidence as in the model's out-of-fold cases; in {coverage[0]:.0%} of cases "
        "like those the Dice lies between “from” and “to”"
        if coverage
        else "not estimated, since the model is not calibrated"
    )
    lines = {
        "estimated Dice": estimated,
        "agreement": "mean Dice of pairs of mirrored passes of one fold, the mean over folds",
        "confidence": "the Dice that the network's probabilities promise, the mean over folds",
        "folds": "mean Dice of pairs of folds; it is not in the estimate, since out-of-fold cases have one fold only",
        "volume, lesions": "the smallest and the largest among the folds, or the mirrored passes of a single one",
        "order": "by 1 less the lowest of estimated Dice and agreement of the folds, over regions",
    }
    return (
        "<dl>" + "".join(f"<dt>{text_of(key)}</dt><dd>{text_of(value)}</dd>" for key, value in lines.items()) + "</dl>"
    )


def _shown(cases: Sequence[CaseQuality], files: Mapping[str, ShownFiles], dataset: DatasetJson) -> Iterator[ShownCase]:
    for place, case in enumerate(cases):
        own = files[case.case]
        # A prediction has no reference: it takes its place, under its own name.
        read = read_volumes(
            ResultCase(case.case, own.segmentation, own.segmentation, own.images), {}, dataset, None, True
        )
        (labels,) = read.segmentations.values()
        read = replace(read, segmentations={"prediction": labels})
        maps = [_map(name, file, read) for name, file in own.maps.items()]
        yield read.in_viewer(place, maps)


def _map(name: str, file: Path, read: CaseVolumes) -> ShownMap:
    values, _ = read_image(file)
    box = tuple(slice(first, first + size) for first, size in zip(read.first, read.grid.size, strict=True))
    grid = display_grid(read.grid, _MAP_SIDE)
    return ShownMap(name, to_uint8(grid.resample(values[box]), 0.0, 1.0), "1")
