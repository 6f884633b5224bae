"""The content of conversion_report.json: what a conversion found and did."""

from __future__ import annotations

import math
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from factorizer_nnunet import __version__
from factorizer_nnunet.dataset_conversion.cases import Problem
from factorizer_nnunet.dataset_conversion.check import Examined, LabelFacts, grid_channel
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.report.outliers import MIN_CASES, Outlier, find_outliers
from factorizer_nnunet.dataset_conversion.spec import LabelScheme
from factorizer_nnunet.dataset_conversion.survey import Survey
from factorizer_nnunet.dataset_conversion.write import Registered

_LIBRARIES = ("numpy", "nibabel", "SimpleITK")

Facts = Mapping[str, Any]  # the content of the report, or a part of it


@dataclass(frozen=True)
class Conversion:
    """A conversion to report on."""

    name: str  # of the data set's folder, such as Dataset007_BraTS2021
    survey: Survey
    registered: Sequence[Registered]  # sorted by case
    folds: Sequence[Mapping[str, Sequence[str]]]  # as in splits_final.json; may be empty
    sources: Sequence[Path]
    options: Options


def report_facts(conversion: Conversion) -> dict[str, Any]:
    """Everything in the report, as values for JSON: volumes in mm³ and ml, spacings in mm."""
    survey, options, folds = conversion.survey, conversion.options, conversion.folds
    release, scheme = survey.release, survey.scheme
    channels = [channel.name for channel in survey.channels]
    volumes = {e.case.name: total_mm3(scheme, e) for e in survey.training}
    outliers = find_outliers(survey.kept, channels, volumes)
    kept = {e.case.name for e in survey.kept}
    return {
        "release": release.key,
        "title": release.title,
        "licence": release.licence,
        "reference": release.reference,
        "dataset": conversion.name,
        "sources": [str(source) for source in conversion.sources],
        "channels": channels,
        "label_map": _text_keys(scheme.labels.to_nnunet),
        "label_map_back": _text_keys(scheme.labels.inverse().to_nnunet),
        "regions": {region: list(values) for region, values in scheme.regions.items()},
        "regions_class_order": None if scheme.regions_class_order is None else list(scheme.regions_class_order),
        "options": {
            "link": options.link,
            "register": options.register,
            "skip_invalid": options.skip_invalid,
            "allow_missing": options.allow_missing,
            "remap": {case: _text_keys(values) for case, values in options.remap.items()},
            "seed": options.seed,
        },
        "versions": {
            "factorizer_nnunet": __version__,
            "python": platform.python_version(),
            **{library: metadata.version(library) for library in _LIBRARIES},
        },
        "counts": {
            "training": len(survey.training),
            "unlabelled": len(survey.kept) - len(survey.training),
            "patients": len({e.case.patient for e in survey.kept}),
            # "" stands for unreadable folders, which contain an unknown number of cases.
            "left_out": len({problem.case for problem in survey.problems} - kept - {""}),
            "incomplete": sum(1 for e in survey.kept if e.case.absent),
            "outliers": len(outliers),
        },
        "warnings": list(survey.warnings),
        "outliers_sought": len(survey.kept) >= MIN_CASES,
        "left_out": [_problem(problem) for problem in survey.problems],
        "notes": [_problem(note) for note in survey.notes if note.case not in kept],
        "folds": [_fold(fold["val"], survey.training, volumes) for fold in folds],
        "cases": _cases(conversion, channels, outliers),
    }


def row_anchors(facts: Facts) -> dict[str, str]:
    """The anchor of each case's row in the page's table."""
    return {case: f"case-{number}" for number, case in enumerate(facts["cases"])}


def labelled(facts: Facts) -> list[Facts]:
    """The labelled cases."""
    return [case for case in facts["cases"].values() if case["label"] is not None]


def registrations(facts: Facts) -> list[tuple[str, Facts]]:
    """Pairs of case name and registration, failed ones first."""
    found = [(name, one) for name, case in facts["cases"].items() for one in case["registrations"]]
    return sorted(found, key=lambda pair: pair[1]["ok"])


def total_mm3(scheme: LabelScheme, examined: Examined) -> float:
    """Volume of all foreground in a case; 0 for an unlabelled case."""
    if examined.label is None:
        return 0.0
    return _mm3(scheme, examined.label, [value for value in scheme.labels.to_nnunet.values() if value])


def _mm3(scheme: LabelScheme, label: LabelFacts, values: Sequence[int]) -> float:
    """Volume of all label values that are written as one of ``values``."""
    return label.grid.voxel_mm3 * sum(
        n for raw, n in label.counts.items() if scheme.labels.to_nnunet.get(raw) in values
    )


def _cases(
    conversion: Conversion, channels: Sequence[str], outliers: Mapping[str, Sequence[Outlier]]
) -> dict[str, dict[str, Any]]:
    survey = conversion.survey
    fold_of = {case: number for number, fold in enumerate(conversion.folds) for case in fold["val"]}
    cases = {}
    for e in sorted(survey.kept, key=lambda e: e.case.name):
        name = e.case.name
        cases[name] = {
            "patient": e.case.patient,
            "stratum": e.case.stratum,
            "fold": fold_of.get(name),
            "fields": dict(e.case.fields),
            "grid_channel": grid_channel(survey.channels, e.case.absent),
            "images": _images(e, channels),
            "label": None if e.label is None else _label(e, e.label, survey.scheme),
            "registrations": [_registration(one) for one in conversion.registered if one.case == name],
            "notes": [f"{note.path.name}: {note.text}" for note in survey.notes if note.case == name],
            "outliers": [{"what": one.what, "z": round(one.z, 2), "text": one.text} for one in outliers.get(name, ())],
        }
    return cases


def _images(examined: Examined, channels: Sequence[str]) -> list[dict[str, Any]]:
    case = examined.case
    return [
        {
            "channel": channel,
            "source": None if path is None else str(path),
            "file": None if path is None and case.label is None else case.image_file(number),
            "treatment": facts.treatment,
            "size": list(facts.grid.size),
            "spacing_mm": [_finite(value) for value in facts.grid.spacing],
            "intensity_range": [_finite(facts.low), _finite(facts.high)],
        }
        for number, (channel, path, facts) in enumerate(zip(channels, case.images, examined.images, strict=True))
    ]


def _label(examined: Examined, label: LabelFacts, scheme: LabelScheme) -> dict[str, Any]:
    return {
        "source": str(examined.case.label),
        "file": examined.case.label_file,
        "voxels": _text_keys(label.counts),
        "voxel_mm3": _finite(label.grid.voxel_mm3),
        "volume": _volume(total_mm3(scheme, examined)),
        "regions": {region: _volume(_mm3(scheme, label, values)) for region, values in scheme.regions.items()},
    }


def _fold(cases: Sequence[str], training: Sequence[Examined], volumes: Mapping[str, float]) -> dict[str, Any]:
    own = [e.case for e in training if e.case.name in set(cases)]
    mm3 = [volumes[case] for case in cases]
    deciles = statistics.quantiles(mm3, n=10, method="inclusive") if len(cases) > 1 else []
    return {
        "cases": len(own),
        "patients": len({case.patient for case in own}),
        "median_ml": statistics.median(mm3) / 1000 if mm3 else None,
        "middle_80_percent_ml": [deciles[0] / 1000, deciles[-1] / 1000] if deciles else None,
        "strata": dict(sorted(Counter(case.stratum for case in own).items())),
    }


def _registration(one: Registered) -> dict[str, Any]:
    values = {
        name: _finite(value) if isinstance(value, float) else value for name, value in asdict(one.registration).items()
    }
    return {"channel": one.channel, "ok": values.pop("ok"), **values}


def _volume(mm3: float) -> dict[str, float | None]:
    return {"mm3": _finite(mm3), "ml": _finite(mm3 / 1000)}


def _problem(problem: Problem) -> dict[str, str]:
    return {"case": problem.case, "path": str(problem.path), "text": problem.text}


def _text_keys(mapping: Mapping[int, int]) -> dict[str, int]:
    return {str(key): int(value) for key, value in sorted(mapping.items())}


def _finite(value: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not support."""
    return float(value) if math.isfinite(value) else None
