"""Invented cases of a conversion with pictures of heads, for tests of its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from factorizer_nnunet.dataset_conversion.cases import Problem, SourceCase
from factorizer_nnunet.dataset_conversion.check import Examined, ImageFacts, LabelFacts, Thumbnail
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.registration import Registration
from factorizer_nnunet.dataset_conversion.releases import RELEASES
from factorizer_nnunet.dataset_conversion.report import Conversion
from factorizer_nnunet.dataset_conversion.splits import five_folds
from factorizer_nnunet.dataset_conversion.survey import Survey
from factorizer_nnunet.dataset_conversion.write import Registered
from factorizer_nnunet.imaging.grid import Grid

SOURCE = Path("/data/challenge")
OPTIONS = Options(dataset_id=7, viewer_cases=0)  # the cases have no files


def grid(size: tuple[int, ...] = (240, 240, 155), spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Grid:
    return Grid(size, spacing, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def with_case(conversion: Conversion, name: str, **changes: Any) -> Conversion:
    """The conversion with other values in one examined case."""
    survey = conversion.survey
    kept = tuple(replace(e, **changes) if e.case.name == name else e for e in survey.kept)
    return replace(conversion, survey=replace(survey, kept=kept))


def head(rng: np.random.Generator, rows: int = 144, columns: int = 120, shift: float = 0) -> np.ndarray:
    """A bright ellipse with dark ventricles and some noise, uint8 (rows, columns)."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    y, x = y + shift, x + shift
    image = 110.0 * (x**2 / 0.62 + y**2 / 0.72 < 1) + 60 * (abs(x**2 / 0.62 + y**2 / 0.72 - 0.97) < 0.06)
    image -= 70 * ((abs(x) - 0.13) ** 2 / 0.006 + y**2 / 0.08 < 1)
    return np.clip(image + 9 * rng.standard_normal(image.shape) * (image > 0), 0, 255).astype(np.uint8)


def inverted(image: np.ndarray) -> np.ndarray:
    """The same head with inverted contrast."""
    return np.where(image > 0, 220 - np.minimum(image, 210), 0).astype(np.uint8)


def lesion(rng: np.random.Generator, volume_mm3: float, shape: tuple[int, int] = (144, 120)) -> np.ndarray:
    """Nested blobs of BraTS 2021's values: 2 edema, 1 core, 4 enhancing; uint8 of that shape."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    middle = rng.uniform(0.38, 0.62, 2) * shape
    angle = np.arctan2(y - middle[0], x - middle[1])
    wobble = 1 + 0.18 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.1 * np.sin(7 * angle + rng.uniform(0, 6))
    radius = np.hypot(y - middle[0], x - middle[1]) / wobble / (volume_mm3 ** (1 / 3) / 2.6)
    label = np.zeros(shape, np.uint8)
    for value, limit in ((2, 1.0), (4, 0.65), (1, 0.4)):
        label[radius < limit] = value
    return label


def brats(cases: int, seed: int = 0, unlabelled: int = 2) -> Conversion:
    """BraTS 2021 with the given numbers of cases; every fourth has grade LGG."""
    release = RELEASES["brats2021"]
    rng = np.random.default_rng(seed)
    kept = []
    for number in range(cases + unlabelled):
        name = f"BraTS2021_{number:05d}"
        volume = float(rng.lognormal(10.8, 0.6))
        blobs = lesion(rng, volume) if number < cases else np.zeros((144, 120), np.uint8)
        picture = head(rng)
        picture[blobs > 0] = np.clip(picture[blobs > 0] + 50.0, 0, 255)
        label = LabelFacts({1: round(volume * 0.15), 2: round(volume * 0.6), 4: round(volume * 0.25)}, grid())
        case = SourceCase(
            name,
            tuple(SOURCE / name / f"{name}_{kind}.nii.gz" for kind in ("t1", "t1ce", "t2", "flair")),
            SOURCE / name / f"{name}_seg.nii.gz" if number < cases else None,
            name,
            "LGG" if number % 4 == 0 else "HGG",
            {"case": name},
        )
        images = tuple(
            ImageFacts(grid(), 12.0, float(rng.normal(top, top / 12)), "copy") for top in (900, 1400, 800, 700)
        )
        kept.append(
            Examined(case, (), (), images, label if number < cases else None, Thumbnail(picture, blobs)),
        )
    survey = Survey(release, release.channels, release.schemes[0], tuple(kept), (), (), (), ())
    return folded("Dataset007_BraTS2021", survey, ())


def isles(cases: int, seed: int = 0) -> Conversion:
    """ISLES 2022 with FLAIR registered to DWI; the registration of the second case failed."""
    release = RELEASES["isles2022"]
    rng = np.random.default_rng(seed)
    kept, written = [], []
    dwi_grid = grid((112, 112, 73), (2.0, 2.0, 2.0))
    for number in range(cases):
        patient = f"sub-strokecase{number:04d}"
        name = f"{patient}_ses-0001"
        volume = float(rng.lognormal(8.5, 1.6))
        blobs = (lesion(rng, volume, (144, 120)) > 0).astype(np.uint8)
        dwi = head(rng)
        dwi[blobs > 0] = 230
        images = (
            ImageFacts(dwi_grid, 5.0, 900.0, "copy"),
            ImageFacts(dwi_grid, 100.0, 3000.0, "compress"),
            ImageFacts(grid((512, 512, 29), (0.45, 0.45, 6.0)), 5.0, 400.0, "resample"),
        )
        files = tuple(SOURCE / name / f"{name}_{kind}.nii.gz" for kind in ("dwi", "adc", "FLAIR"))
        case = SourceCase(name, files, SOURCE / name / f"{name}_msk.nii.gz", patient, "", {"case": name})
        kept.append(Examined(case, (), (), images, LabelFacts({1: round(volume / 8)}, dwi_grid), Thumbnail(dwi, blobs)))
        failed = number == 1
        registration = Registration(
            -0.31, -0.02 if failed else -0.46, 0.0 if failed else 3.2, 0.0 if failed else 1.4, not failed,
            "registration failed, aligned by headers only: it would move the image by 41.0 mm and 9.0°, which is "
            "implausible" if failed else "moved by 3.2 mm and 1.4°",
        )  # fmt: skip
        before, after = (inverted(head(rng, shift=shift)) for shift in (0.09, 0.09 if failed else 0.0))
        written.append(Registered(name, "FLAIR", registration, dwi, before, after))
    survey = Survey(release, release.channels, release.schemes[0], tuple(kept), (), (), (), ())
    return folded("Dataset022_ISLES2022", survey, tuple(written))


def folded(name: str, survey: Survey, written: tuple[Registered, ...]) -> Conversion:
    """The conversion with folds of its cases."""
    training = survey.training
    folds = five_folds(
        {e.case.name: e.case.patient for e in training},
        {e.case.name: e.label.grid.voxel_mm3 * sum(e.label.counts.values()) for e in training if e.label},
        {e.case.name: e.case.stratum for e in training},
        seed=7,
    )
    return Conversion(name, survey, written, folds, (SOURCE,), OPTIONS)


def with_everything(conversion: Conversion) -> Conversion:
    """The conversion with problems, notes, warnings, an empty label and a case with unusual intensities."""
    survey = conversion.survey
    third, fourth, fifth = survey.kept[2:5]
    assert fourth.case.label is not None
    wide = replace(third.images[0], grid=grid((240, 240, 40)), high=90_000.0, treatment="rewrite")
    note = Problem(fourth.case.name, fourth.case.label, "empty label: every voxel is background")
    conversion = with_case(conversion, third.case.name, images=(wide, *third.images[1:]))
    conversion = with_case(
        conversion,
        fourth.case.name,
        label=replace(fourth.label, counts={}),
        thumbnail=replace(fourth.thumbnail, label=np.zeros_like(fourth.thumbnail.label)),
        notes=(note,),
    )
    huge = {value: number * 30 for value, number in fifth.label.counts.items()}
    conversion = with_case(conversion, fifth.case.name, label=replace(fifth.label, counts=huge))
    lost = SOURCE / "BraTS2021_00999" / "BraTS2021_00999_t1.nii.gz"
    survey = replace(
        conversion.survey,
        problems=(
            Problem("BraTS2021_00999", lost, "modality T1ce is missing: no BraTS2021_00999_t1ce.nii.gz or .nii"),
            Problem("BraTS2021_00999", lost, "is cut short: 1024 of 8912 bytes"),
            Problem("", SOURCE / "locked", "cannot be read: Permission denied"),
        ),
        notes=(note, Problem("", SOURCE, "3 files are not of this release")),
        warnings=("case names do not identify patients: give --patients",),
    )
    return replace(conversion, survey=survey)
