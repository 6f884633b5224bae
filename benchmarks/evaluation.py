"""How long it takes to score a case, compared with surface-distance and MONAI.

    python -m benchmarks.evaluation --work DIR

A synthetic case of BraTS' size (240 x 240 x 155 voxels, three nested regions, a few lesions) is scored by each library
on one core, each in its own process; memory is that of the process. Our scores include those of the others, with which
they must agree, and lesion-wise scores. Then a folder of such cases is scored by one and more processes.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from factorizer_nnunet.evaluation.case import score_arrays
from factorizer_nnunet.evaluation.evaluate import evaluate_folder
from factorizer_nnunet.evaluation.schemes import SCHEMES
from factorizer_nnunet.nnunet.dataset_json import DatasetJson

SHAPE = (240, 240, 155)
SPACING = (1.0, 1.0, 1.0)
TOLERANCES_MM = (1.0, 2.0)
REGIONS = {"whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing tumor": (3,)}
DATASET = DatasetJson({"labels": {"background": 0, **{name: list(labels) for name, labels in REGIONS.items()}}})
LESIONS = ((1.0, (0.35, 0.45, 0.5)), (0.35, (0.65, 0.6, 0.55)), (0.2, (0.6, 0.3, 0.4)))  # size, centre
Found = Mapping[str, Mapping[str, float]]  # by region and metric


def synthetic_case(seed: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A reference and a prediction that differs along all borders and misses or invents small pieces, uint8 labels."""
    rng = np.random.default_rng(seed)
    scale = min(shape)
    depth = np.full(shape, -np.inf, np.float32)
    for size, centre in LESIONS:
        middle = np.array(centre) + rng.normal(0, 0.02, 3)
        squares = [((np.arange(n) - m * n) / (0.2 * size * scale)) ** 2 for n, m in zip(shape, middle, strict=True)]
        radius = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2]).astype(np.float32)
        depth = np.maximum(depth, 1 - radius)
    rough = _texture(rng, shape, 3.0)
    reference = depth + 0.25 * rough
    prediction = reference + 0.08 * _texture(rng, shape, 2.0)
    return _labels(reference), _labels(prediction)


def _texture(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    field = gaussian_filter(rng.standard_normal(shape, np.float32), sigma)
    return field / field.std()


def _labels(depth: np.ndarray) -> np.ndarray:
    labels = np.zeros(depth.shape, np.uint8)
    for threshold, label in ((0.1, 2), (0.45, 3), (0.7, 1)):
        labels[depth > threshold] = label
    return labels


def ours(reference: np.ndarray, prediction: np.ndarray) -> Found:
    """All metrics without a scheme, including lesion-wise ones."""
    scores = score_arrays(prediction, reference, SPACING, REGIONS, SCHEMES["none"], TOLERANCES_MM)
    return {region: found.values for region, found in scores.items()}


def ours_as_brats(reference: np.ndarray, prediction: np.ndarray) -> Found:
    """The same by the rules of BraTS 2023 for gliomas, which dilate lesions."""
    scores = score_arrays(prediction, reference, SPACING, REGIONS, SCHEMES["brats2023-gli"], TOLERANCES_MM)
    return {region: found.values for region, found in scores.items()}


def with_surface_distance(reference: np.ndarray, prediction: np.ndarray) -> Found:
    """Everything that the library offers: Dice, HD95, average distance and surface Dice."""
    import surface_distance as sd

    found = {}
    for region, labels in REGIONS.items():
        masks = np.isin(reference, labels), np.isin(prediction, labels)
        distances = sd.compute_surface_distances(*masks, SPACING)
        areas = [distances[f"surfel_areas_{name}"].sum() for name in ("gt", "pred")]
        found[region] = {
            "dice": sd.compute_dice_coefficient(*masks),
            "hd95": sd.compute_robust_hausdorff(distances, 95),
            "assd": float(np.average(sd.compute_average_surface_distance(distances), weights=areas)),
            **{f"nsd_{t:g}mm": sd.compute_surface_dice_at_tolerance(distances, t) for t in TOLERANCES_MM},
        }
    return found


def with_monai(reference: np.ndarray, prediction: np.ndarray) -> Found:
    """The same metrics by MONAI's functions, all regions at once as channels."""
    import torch
    from monai import metrics

    torch.set_num_threads(1)
    tensors = []
    for array in (prediction, reference):
        channels = np.stack([np.isin(array, labels) for labels in REGIONS.values()])
        tensors.append(torch.from_numpy(channels[None].astype(np.float32)))
    count = len(REGIONS)
    values = {
        "dice": metrics.compute_dice(*tensors),
        "hd95": metrics.compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=SPACING),
        "assd": metrics.compute_average_surface_distance(
            *tensors, include_background=True, symmetric=True, spacing=SPACING
        ),
        **{
            f"nsd_{t:g}mm": metrics.compute_surface_dice(
                *tensors, [t] * count, include_background=True, spacing=SPACING
            )
            for t in TOLERANCES_MM
        },
    }
    return {region: {name: float(value[0, n]) for name, value in values.items()} for n, region in enumerate(REGIONS)}


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], Found]] = {
    "factorizer_nnunet": ours,
    "factorizer_nnunet, brats2023-gli": ours_as_brats,
    "surface-distance": with_surface_distance,
    "MONAI": with_monai,
}


def prepare() -> None:
    """Keep this process on one core."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def measured(method: str, seed: int, shape: tuple[int, int, int]) -> tuple[float, float, Found]:
    """Processor seconds for a case, peak memory of this process in MB so far, and the scores."""
    case = synthetic_case(seed, shape)
    start = time.process_time()  # every method uses one thread, and other work on the machine may make it wait
    found = METHODS[method](*case)
    seconds = time.process_time() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, found


def measure_all(cases: int, shape: tuple[int, int, int]) -> dict[str, list[tuple[float, float, Found]]]:
    """Results of ``measured`` for each case by each method in turn, each method in its own process."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pools = {method: stack.enter_context(context.Pool(1, prepare)) for method in METHODS}
        for method, pool in pools.items():
            pool.apply(measured, (method, 0, (24, 24, 24)))  # imports and tables
        results: dict[str, list[tuple[float, float, Found]]] = {method: [] for method in METHODS}
        for seed in range(cases):
            for method, pool in pools.items():
                results[method].append(pool.apply(measured, (method, seed, shape)))
    return results


def check_agreement(results: Mapping[str, Sequence[tuple[float, float, Found]]]) -> None:
    """Check that our scores equal those of ``surface-distance``, and that dilating lesions leaves HD95 as it is.

    Raises:
        AssertionError: they differ by more than 1e-6.
    """
    turns = (results[name] for name in ("surface-distance", "factorizer_nnunet", "factorizer_nnunet, brats2023-gli"))
    for (_, _, expected), (_, _, found), (_, _, challenge) in zip(*turns, strict=True):
        for region, values in expected.items():
            own = [found[region][name] for name in values]
            np.testing.assert_allclose(own, list(values.values()), atol=1e-6, rtol=0, err_msg=region)
            np.testing.assert_equal(challenge[region]["hd95"], found[region]["hd95"])
    print("\nsurface-distance agrees with factorizer_nnunet in all scores of all cases.")


def write_cases(folder: Path, cases: int, shape: tuple[int, int, int]) -> tuple[Path, Path]:
    """Write predictions and references of synthetic cases; existing files stay."""
    names = folder / "predictions", folder / "references"
    for seed in range(cases):
        paths = [name / f"case_{seed:03d}.nii.gz" for name in names]
        if all(path.exists() for path in paths):
            continue
        for path, labels in zip(paths, reversed(synthetic_case(seed, shape)), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(labels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the files of the cases")
    parser.add_argument("--cases", type=int, default=3, help="cases scored by each library (default 3)")
    parser.add_argument("--folder-cases", type=int, default=16, help="cases of the folder (default 16)")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar="N", help="of a case, in voxels")
    options = parser.parse_args(arguments)
    shape = (options.shape[0], options.shape[1], options.shape[2])
    versions = ", ".join(f"{name} {version(name)}" for name in ("scipy", "numpy", "surface-distance", "monai"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n")
    print("| one case, one core | processor s | over ours | peak memory, MB | HD95, mm | ASSD, mm |")
    print("|---|---|---|---|---|---|")
    results = measure_all(options.cases, shape)
    base = [seconds for seconds, _, _ in next(iter(results.values()))]
    for method, turns in results.items():
        seconds = [turn[0] for turn in turns]
        ratio = statistics.median(theirs / own for theirs, own in zip(seconds, base, strict=True))
        _, memory, found = turns[-1]
        hd95, assd = (" / ".join(f"{found[region][key]:.2f}" for region in REGIONS) for key in ("hd95", "assd"))
        middle = statistics.median(seconds)
        print(f"| {method} | {middle:.2f} | {ratio:.1f} | {memory:.0f} | {hd95} | {assd} |", flush=True)
    check_agreement(results)
    folders = write_cases(options.work, options.folder_cases, shape)
    print(f"\n| {options.folder_cases} cases from files, processes | s | cases per s |\n|---|---|---|")
    for processes in sorted({1, 2, os.cpu_count() or 1}):
        start = time.perf_counter()
        evaluate_folder(*folders, DATASET, num_processes=processes)
        seconds = time.perf_counter() - start
        print(f"| {processes} | {seconds:.1f} | {options.folder_cases / seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
