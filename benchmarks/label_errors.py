"""How many planted label errors `label-check` ranks early.

    python -m benchmarks.label_errors synthetic
    python -m benchmarks.label_errors simulate --dataset RAW
    python -m benchmarks.label_errors plant --labels labelsTr --out DIR
    python -m benchmarks.label_errors score --key DIR/planted.json --findings label_check.json --name hippocampus

Errors are planted in a tenth of the cases: a lesion removed, a lesion shifted, classes exchanged, the label mirrored.
``synthetic`` makes labels of lesions with a core, and a model that blurs borders, misses small lesions and invents
others; ``simulate`` takes the labels of a data set without regions, and such a model. For trained models, ``plant``
writes labels with errors: train on them, with --npz, run label-check, and ``score`` its list, which adds it to
docs/measured/label_errors.json and writes the page next to it. Errors that change nothing, such as exchanged classes
where there is one, are not planted.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import distance_transform_edt, gaussian_filter

from benchmarks.output_paths import json_output
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import read_complete_json
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.evaluation.reading import LabelImage, ending_of, read_labels
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.label_check.disagreement import proposals_of
from factorizer_nnunet.label_check.finding import Finding, Kind
from factorizer_nnunet.label_check.opinion import Opinion, confidence_of
from factorizer_nnunet.label_check.ranking import ranked
from factorizer_nnunet.label_check.review import RECORD_FILE, read_review
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.model_folder import ModelFolder

PAGE = Path(__file__).resolve().parents[1] / "docs" / "measured" / "label_errors.json"
ERRORS = ("removed", "shifted", "swapped", "flipped")
KINDS = {  # what a finding may call each error
    "removed": {Kind.MISSING, Kind.EMPTY},
    "shifted": {Kind.SHIFTED, Kind.MISSING, Kind.EXTRA},
    "swapped": {Kind.SWAPPED},
    "flipped": {Kind.FLIPPED},
}
SHARE, FIRST = 0.1, 0.15  # of cases with errors; of the list that a reviewer looks at
SHAPE, SPACING_MM = (48, 40, 24), (1.0, 1.0, 2.0)
_LEAD = """\
# Measured: planted label errors

Written by `python -m benchmarks.label_errors score` (see `--help`). Errors were planted in a tenth of the cases before
the training: the largest or another large lesion (organ) removed or shifted, classes exchanged, the label mirrored. So
the models have learned from them, too. Each case was judged by the fold that was not trained on it. Shares of the cases
with errors that have a line in the first 15 % of the list, and that are among the first 15 % of the cases; whose first
line says what the error is (kind); and of each error by cases.
"""
DATASET = DatasetJson({"labels": {"background": 0, "edema": 1, "core": 2}})


def plant(labels: np.ndarray, error: str, rng: np.random.Generator) -> np.ndarray | None:
    """A label (x, y, z) with an error; None if it is not possible there or changes less than a voxel in ten."""
    lesions = cc3d.connected_components(np.ascontiguousarray(labels > 0), connectivity=26)
    sizes = np.bincount(lesions.ravel())[1:]
    large = np.flatnonzero(sizes >= max(10, sizes.max(initial=0) / 10)) + 1
    if not large.size:
        return None
    lesion = lesions == rng.choice(large)
    if error == "removed":
        result = np.where(lesion, 0, labels)
    elif error == "shifted":
        sides = [np.ptp(index) + 1 for index in np.nonzero(lesion)]
        steps = [int(rng.choice((-1, 1))) * max(2, round(side / 3)) for side in sides]
        steps = [step if n > 2 * abs(step) else 0 for step, n in zip(steps, labels.shape, strict=True)]
        moved = _moved(np.where(lesion, labels, 0), steps)
        result = np.where(moved > 0, moved, np.where(lesion, 0, labels))
    elif error == "swapped":
        values = [value for value in np.unique(labels) if value]
        if len(values) < 2:
            return None
        one, other = rng.choice(values, 2, replace=False)
        result = np.where(labels == one, other, np.where(labels == other, one, labels))
    else:
        result = labels[::-1].copy()
    changed = np.count_nonzero(result != labels)
    return result.astype(labels.dtype) if changed >= 0.1 * sizes[large - 1].min() else None


def _moved(labels: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Labels moved by whole voxels; what leaves the image is lost."""
    result = np.zeros_like(labels)
    source = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(steps, labels.shape, strict=True))
    target = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(steps, labels.shape, strict=True))
    result[target] = labels[source]
    return result


def recall(findings: Sequence[Finding], planted: Mapping[str, str], num_cases: int) -> dict[str, float]:
    """Shares of the cases with errors that are found early.

    Returns:
        ``lines``: in the first lines of the list; ``cases``: among the cases that come first, each counted once, of all
        cases; ``kind``: whose first finding is of the kind of the error; and for each error the share by cases.
    """
    lines = {one.case for one in findings[: round(FIRST * len(findings))]}
    order = list(dict.fromkeys(one.case for one in findings))
    first = set(order[: round(FIRST * num_cases)])
    found = {"lines": len(lines & planted.keys()) / len(planted), "cases": len(first & planted.keys()) / len(planted)}
    kinds = {one.case: one.kind for one in reversed(findings)}  # of the first finding of each case
    found["kind"] = sum(kinds.get(case) in KINDS[error] for case, error in planted.items()) / len(planted)
    for error in ERRORS:
        own = [case for case, planted_error in planted.items() if planted_error == error]
        found |= {error: sum(case in first for case in own) / len(own)} if own else {}
    return found


def synthetic(num_cases: int, seed: int, with_probabilities: bool = True) -> dict[str, float]:
    """Recall on made-up cases."""
    rng = np.random.default_rng(seed)
    grid = Grid(SHAPE, SPACING_MM, (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    truths = [LabelImage(_truth(rng), grid) for _ in range(num_cases)]
    return simulated(truths, DATASET, rng, with_probabilities)


def simulated(
    truths: Sequence[LabelImage], dataset: DatasetJson, rng: np.random.Generator, with_probabilities: bool = True
) -> dict[str, float]:
    """Recall when errors are planted in some of these labels, (x, y, z), and a simulated model has learned them all.

    Each error is planted in the first label in which it is possible.
    """
    planted: dict[str, str] = {}
    findings: list[Finding] = []
    names = [f"case_{number:03d}" for number in range(len(truths))]
    wanted = [ERRORS[number % len(ERRORS)] for number in range(round(SHARE * len(truths)))]
    for case, truth in zip(names, truths, strict=True):
        probabilities = _model(truth, max(dataset.label_values) + 1, rng)
        label = truth.labels
        for error in wanted:
            wrong = plant(label, error, rng)
            if wrong is not None:
                wanted.remove(error)
                label, planted[case] = wrong, error
                break
        prediction = probabilities.argmax(axis=0).astype(np.uint8)
        sure = confidence_of(label, prediction, probabilities, dataset) if with_probabilities else None
        voxel_ml = float(np.prod(truth.grid.spacing)) / 1000
        opinion = Opinion(np.ascontiguousarray(label), prediction, sure, voxel_ml, dataset.regions)
        findings += [one.finding for one in proposals_of(case, opinion, truth.grid)]
    return recall(ranked(findings, names), planted, len(names))


def _truth(rng: np.random.Generator) -> np.ndarray:
    """One to four lesions with a rough border, each with a core."""
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)), indexing="ij"))
    depth = np.full(SHAPE, -np.inf)
    for _ in range(rng.integers(1, 5)):
        radius = rng.uniform(2.5, 9)
        centre = [rng.uniform(radius, n * s - radius) for n, s in zip(SHAPE, SPACING_MM, strict=True)]
        away = np.sqrt(((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0))
        depth = np.maximum(depth, 1 - away / radius)
    depth = depth + 0.15 * _texture(SHAPE, rng)
    return ((depth > 0).astype(np.uint8) + (depth > 0.5)).astype(np.uint8)


def _model(truth: LabelImage, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Probabilities (classes, x, y, z) of a model that has learned the truth, as well as models do."""
    seen, spacing = truth.labels.copy(order="C"), truth.grid.spacing
    lesions = cc3d.connected_components(seen > 0, connectivity=26)
    for number, size in enumerate(np.bincount(lesions.ravel())[1:], 1):
        if rng.random() < 0.5 * np.exp(-size / 100):
            seen[lesions == number] = 0
    logits = np.stack(
        [_depth(seen == value, spacing) / 1.5 + 0.8 * _texture(seen.shape, rng) for value in range(num_classes)]
    )
    if rng.random() < 0.4:  # invents a lesion, of which it is more or less sure
        centre = [int(rng.integers(3, n - 3)) for n in seen.shape]
        away = np.sqrt(sum((index - c) ** 2 for index, c in zip(np.indices(seen.shape), centre, strict=True)))
        logits[1] += np.where(away < rng.uniform(1.5, 4), -logits[1] + logits[0] + rng.uniform(0, 2), 0)
    raised = np.exp(logits - logits.max(axis=0))
    return raised / raised.sum(axis=0)


def _depth(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance to the border in mm, positive inside and cut off at 6 mm."""
    inside, outside = (distance_transform_edt(one, sampling=spacing_mm) for one in (mask, ~mask))
    return np.clip(inside - outside, -6, 6) if mask.any() else np.full(mask.shape, -6.0)


def _texture(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    field = gaussian_filter(rng.standard_normal(shape), 1.5)
    return field / field.std()


def plant_in_folder(labels: Path, out: Path, seed: int) -> dict[str, str]:
    """Write all labels of a folder to another one, a tenth with errors, and ``planted.json``."""
    files = sorted(path for path in labels.iterdir() if ending_of(path.name))
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True)
    planted: dict[str, str] = {}
    for path in rng.permutation(np.array(files, dtype=object)):
        image = sitk.ReadImage(str(path))
        values = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        if len(planted) < round(SHARE * len(files)):
            turn = len(planted) % len(ERRORS)
            for error in (*ERRORS[turn:], *ERRORS[:turn]):
                wrong = plant(values, error, rng)
                if wrong is not None:
                    values = wrong
                    planted[path.name.removesuffix(ending_of(path.name) or "")] = error
                    break
        written = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
        written.CopyInformation(image)
        sitk.WriteImage(written, str(out / path.name), useCompression=True)
    (out / "planted.json").write_text(json.dumps(planted, indent=4))
    return planted


def scored(key: Path, findings: Path) -> dict[str, Any]:
    """What ``label-check`` found of the errors in ``planted.json``, with the model and its validated Dice."""
    review, planted = read_review(findings.absolute().parent), json.loads(key.read_text())
    model = ModelFolder(Path(json.loads(findings.read_text())["dataset_json"]).parent)
    summaries = [json.loads(fold.summary.read_text()) for fold in model.folds() if fold.summary.is_file()]
    return {
        "model": model.path.name,
        "dice": [summary["foreground_mean"]["Dice"] for summary in summaries],
        "cases": len(review.cases),
        "lines": len(review.findings),
        "planted": Counter(planted.values()),
        "found": recall(review.findings, planted, len(review.cases)),
    }


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page about all data sets."""
    rows = [
        ["data set", "model, Dice of its folds", "cases, with errors", "lines", "by lines", "by cases", "kind", *ERRORS]
    ]
    for name, one in results.items():
        dice, planted, found = ", ".join(f"{value:.3f}" for value in one["dice"]), one["planted"], one["found"]
        rows.append(
            [
                *(name, f"{one['model']}, {dice}", f"{one['cases']}, {sum(planted.values())}", str(one["lines"])),
                *(f"{found[by]:.0%}" for by in ("lines", "cases", "kind")),
                *(f"{found[error]:.0%} of {planted[error]}" if error in found else "–" for error in ERRORS),
            ]
        )
    return f"{_LEAD}\n{markdown_table(rows)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made_up = commands.add_parser("synthetic")
    made_up.add_argument("--cases", type=int, default=100)
    made_up.add_argument("--seeds", type=int, default=5)
    simulating = commands.add_parser("simulate")
    simulating.add_argument("--dataset", type=Path, required=True, help="with dataset.json and labelsTr")
    simulating.add_argument("--seeds", type=int, default=3)
    writing = commands.add_parser("plant")
    writing.add_argument("--labels", type=Path, required=True)
    writing.add_argument("--out", type=Path, required=True)
    writing.add_argument("--seed", type=int, default=0)
    scoring = commands.add_parser("score")
    scoring.add_argument("--key", type=Path, required=True)
    scoring.add_argument("--findings", type=Path, required=True, help=f"{RECORD_FILE} in the folder of label-check")
    scoring.add_argument("--name", required=True, help="of the data set on the page")
    scoring.add_argument("--out", type=json_output, default=PAGE, help="JSON file, with the page next to it")
    args = parser.parse_args()
    if args.command == "synthetic":
        for seed in range(args.seeds):
            for known in (True, False):
                print("probabilities" if known else "labels only", seed, _shown(synthetic(args.cases, seed, known)))
    elif args.command == "simulate":
        dataset = DatasetJson.read(args.dataset / "dataset.json")
        truths = [read_labels(path) for path in sorted((args.dataset / "labelsTr").glob(f"*{dataset.file_ending}"))]
        for seed in range(args.seeds):
            print(
                seed, len(truths), "cases", _shown(simulated(truths, dataset, np.random.default_rng(seed))), flush=True
            )
    elif args.command == "plant":
        print(json.dumps(plant_in_folder(args.labels, args.out, args.seed), indent=4))
    else:
        results = {**(read_complete_json(args.out) or {}), args.name: scored(args.key, args.findings)}
        write_text_atomically(args.out, json.dumps(results, indent=1) + "\n")
        write_text_atomically(args.out.with_suffix(".md"), page(results))
        print(page(results))


def _shown(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in found.items())


if __name__ == "__main__":
    main()
