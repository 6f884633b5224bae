"""What a conversion found and did: conversion_report.json, which the way back reads, and a page for people."""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.dataset_conversion.cases import Problem
from factorizer_nnunet.dataset_conversion.check import Examined, grid_channel
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.report.contact_sheet import Pictures
from factorizer_nnunet.dataset_conversion.report.outliers import MIN_CASES, Outlier, find_outliers
from factorizer_nnunet.dataset_conversion.report.page import html_page
from factorizer_nnunet.dataset_conversion.spec import Scheme
from factorizer_nnunet.dataset_conversion.survey import Survey
from factorizer_nnunet.dataset_conversion.write import Registered, Written

REPORT_FILE = "conversion_report.json"
PAGE_FILE = "conversion_report.html"
_LIBRARIES = ("numpy", "nibabel", "SimpleITK")

Folds = Sequence[Mapping[str, Sequence[str]]]


def write_report(
    folder: Path,
    name: str,
    survey: Survey,
    written: Sequence[Written],
    folds: Folds,
    sources: Sequence[Path],
    options: Options,
) -> None:
    """Write conversion_report.json and conversion_report.html into ``folder``, each whole or not at all.

    Args:
        folder: of the data set, perhaps still under another name.
        name: of the data set's folder, such as Dataset007_BraTS2021.
        survey: what was found and kept.
        written: what writing did, in any order.
        folds: as in splits_final.json; empty where there are none.
        sources: folders the cases came from.
        options: of the conversion.

    Raises:
        OSError: the folder cannot be written to.
    """
    facts = report_facts(name, survey, written, folds, sources, options)
    pictures = Pictures.of(survey, written)
    write_text_atomically(folder / REPORT_FILE, json.dumps(facts, indent=1, allow_nan=False) + "\n")
    write_text_atomically(folder / PAGE_FILE, html_page(facts, pictures))


def report_facts(
    name: str,
    survey: Survey,
    written: Sequence[Written],
    folds: Folds,
    sources: Sequence[Path],
    options: Options,
) -> dict[str, Any]:
    """Everything a report says, as JSON holds it: volumes in mm³ and ml, spacings in mm. Arguments of write_report."""
    release, scheme = survey.release, survey.scheme
    channels = [channel.name for channel in survey.channels]
    volumes = {e.case.name: total_mm3(scheme, e) for e in survey.training}
    outliers = find_outliers(survey.kept, channels, volumes)
    fold_of = {case: number for number, fold in enumerate(folds) for case in fold["val"]}
    written_of = {one.case: one for one in written}
    notes: dict[str, list[str]] = {}
    kept = {e.case.name for e in survey.kept}
    for note in survey.notes:
        if note.case in kept:
            notes.setdefault(note.case, []).append(_note_text(note))
    return {
        "release": release.key,
        "title": release.title,
        "licence": release.licence,
        "reference": release.reference,
        "dataset": name,
        "sources": [str(source) for source in sources],
        "channels": channels,
        "label_map": _text_keys(scheme.labels.to_nnunet),
        "label_map_back": _text_keys(scheme.labels.inverse().to_nnunet),
        "regions": {region: list(values) for region, values in scheme.regions.items()},
        "regions_class_order": None if scheme.regions_class_order is None else list(scheme.regions_class_order),
        "options": {
            "link": options.link,
            "register": options.register,
            "skip_invalid": options.skip_invalid,
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
            # "" stands for folders that could not be read: how many cases are in them is not known.
            "left_out": len({problem.case for problem in survey.problems} - kept - {""}),
            "outliers": len(outliers),
        },
        "warnings": list(survey.warnings),
        "outliers_sought": len(survey.kept) >= MIN_CASES,
        "left_out": [_problem(problem) for problem in survey.problems],
        "notes": [_problem(note) for note in survey.notes if note.case not in kept],
        "folds": [_fold(fold["val"], survey.training, volumes) for fold in folds],
        "cases": {
            e.case.name: _case(
                e,
                survey,
                written_of.get(e.case.name),
                fold_of.get(e.case.name),
                notes.get(e.case.name, []),
                outliers.get(e.case.name, []),
            )
            for e in sorted(survey.kept, key=lambda e: e.case.name)
        },
    }


def total_mm3(scheme: Scheme, examined: Examined) -> float:
    """Volume of all that is not background in a case, 0 without label."""
    return _mm3(scheme, examined, [value for value in scheme.labels.to_nnunet.values() if value])


def _mm3(scheme: Scheme, examined: Examined, values: Sequence[int]) -> float:
    """Volume in a case of all label values that are written as one of ``values``."""
    if examined.label is None:
        return 0.0
    counts = examined.label.counts
    return examined.label.voxel_mm3 * sum(n for raw, n in counts.items() if scheme.labels.to_nnunet.get(raw) in values)


def _case(
    examined: Examined,
    survey: Survey,
    written: Written | None,
    fold: int | None,
    notes: Sequence[str],
    outliers: Sequence[Outlier],
) -> dict[str, Any]:
    case, label = examined.case, examined.label
    return {
        "patient": case.patient,
        "stratum": case.stratum,
        "fold": fold,
        "fields": dict(case.fields),
        "grid_channel": grid_channel(survey.channels),
        "images": [
            {
                "channel": channel.name,
                "source": str(path),
                "file": case.image_file(number),
                "treatment": facts.treatment,
                "size": list(facts.size),
                "spacing_mm": [_finite(value) for value in facts.spacing_mm],
                "intensity_range": [_finite(facts.low), _finite(facts.high)],
            }
            for number, (channel, path, facts) in enumerate(
                zip(survey.channels, case.images, examined.images, strict=True)
            )
        ],
        "label": None
        if case.label is None or label is None
        else {
            "source": str(case.label),
            "file": case.label_file,
            "voxels": _text_keys(label.counts),
            "voxel_mm3": _finite(label.voxel_mm3),
            "volume": _volume(total_mm3(survey.scheme, examined)),
            "regions": {
                region: _volume(_mm3(survey.scheme, examined, values))
                for region, values in survey.scheme.regions.items()
            },
        },
        "registrations": [] if written is None else [_registration(one) for one in written.registered],
        "notes": list(notes),
        "outliers": [{"what": one.what, "z": round(one.z, 2), "text": one.text} for one in outliers],
    }


def _fold(cases: Sequence[str], training: Sequence[Examined], volumes: Mapping[str, float]) -> dict[str, Any]:
    own = [e.case for e in training if e.case.name in set(cases)]
    deciles = (
        statistics.quantiles([volumes[case] for case in cases], n=10, method="inclusive") if len(cases) > 1 else []
    )
    return {
        "cases": len(own),
        "patients": len({case.patient for case in own}),
        "median_ml": statistics.median(volumes[case] for case in cases) / 1000 if cases else None,
        "middle_80_percent_ml": [deciles[0] / 1000, deciles[-1] / 1000] if deciles else None,
        "strata": dict(sorted(Counter(case.stratum for case in own).items())),
    }


def _volume(mm3: float) -> dict[str, float | None]:
    return {"mm3": _finite(mm3), "ml": _finite(mm3 / 1000)}


def _problem(problem: Problem) -> dict[str, str]:
    return {"case": problem.case, "path": str(problem.path), "text": problem.text}


def _text_keys(mapping: Mapping[int, int]) -> dict[str, int]:
    return {str(key): int(value) for key, value in sorted(mapping.items())}


def _finite(value: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None


def _note_text(note: Problem) -> str:
    return f"{note.path.name}: {note.text}"


def _registration(one: Registered) -> dict[str, Any]:
    found = one.registration
    return {
        "channel": one.channel,
        "ok": found.ok,
        "metric_before": _finite(found.metric_before),
        "metric_after": _finite(found.metric_after),
        "translation_mm": _finite(found.translation_mm),
        "rotation_deg": _finite(found.rotation_deg),
        "text": found.text,
    }
