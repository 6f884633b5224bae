"""The report of a conversion: facts for to-challenge, and a complete, safe and small page."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_example import SOURCE, brats, grid, isles, with_case, with_everything
from scipy.ndimage import binary_erosion

from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.wording import short
from factorizer_nnunet.dataset_conversion.report import PAGE_FILE, REPORT_FILE, Conversion, report_facts, write_report
from factorizer_nnunet.dataset_conversion.report.histogram import counts_of, decades_of, histogram_svg
from factorizer_nnunet.pages.palette import COLOURS
from factorizer_nnunet.pages.pictures import draw, outline, side_for

VOID = {"meta", "img", "br", "wbr", "line", "rect", "input"}  # elements without an end


class Page(HTMLParser):
    """A parsed page; asserts that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        found = [given for name, given in self.elements if name == tag]
        return [given for given in found if all(given.get(key) == value for key, value in attributes.items())]

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def written(folder: Path, conversion: Conversion) -> tuple[dict, Page, str]:
    """Facts and page from the written files, and the page's source."""
    write_report(folder, conversion)
    assert sorted(path.name for path in folder.iterdir()) == [PAGE_FILE, REPORT_FILE]
    text = (folder / PAGE_FILE).read_text(encoding="utf-8")
    return load_json_object(folder / REPORT_FILE, ""), Page(text), text


def odd_tiles(page: Page) -> list[str]:
    return [str(tile["title"]).splitlines()[0] for tile in page.all("div", **{"class": "tile odd"})]


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))))


def test_facts_contain_what_to_challenge_needs(tmp_path: Path) -> None:
    conversion = brats(6)
    facts, _, _ = written(tmp_path, conversion)
    assert facts["release"] == "brats2021"
    assert facts["label_map"] == {"0": 0, "1": 2, "2": 1, "4": 3}
    assert facts["label_map_back"] == {"0": 0, "1": 2, "2": 1, "3": 4}
    assert list(facts["cases"]) == [f"BraTS2021_{number:05d}" for number in range(8)]
    case = facts["cases"]["BraTS2021_00002"]
    assert case["fields"] == {"case": "BraTS2021_00002"}
    assert case["grid_channel"] == 0
    assert case["images"][1] == {
        "channel": "T1ce",
        "source": str(SOURCE / "BraTS2021_00002" / "BraTS2021_00002_t1ce.nii.gz"),
        "file": "imagesTr/BraTS2021_00002_0001.nii.gz",
        "treatment": "copy",
        "size": [240, 240, 155],
        "spacing_mm": [1, 1, 1],
        "intensity_range": [12, conversion.survey.kept[2].images[1].high],
    }
    assert facts["cases"]["BraTS2021_00007"]["label"] is None
    assert facts["cases"]["BraTS2021_00007"]["images"][0]["file"] == "imagesTs/BraTS2021_00007_0000.nii.gz"


def test_volumes_of_regions_are_those_of_their_values(tmp_path: Path) -> None:
    """Raw values 1 core, 2 edema, 4 enhancing: with invented counts of voxels of 2 mm³."""
    conversion = brats(6)
    label = replace(conversion.survey.kept[0].label, counts={1: 10, 2: 500, 4: 90}, grid=grid(spacing=(1.0, 1.0, 2.0)))
    facts, _, _ = written(tmp_path, with_case(conversion, "BraTS2021_00000", label=label))
    assert facts["cases"]["BraTS2021_00000"]["label"] == {
        "source": str(SOURCE / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz"),
        "file": "labelsTr/BraTS2021_00000.nii.gz",
        "voxels": {"1": 10, "2": 500, "4": 90},
        "voxel_mm3": 2,
        "volume": {"mm3": 1200, "ml": 1.2},
        "regions": {
            "whole tumor": {"mm3": 1200, "ml": 1.2},
            "tumor core": {"mm3": 200, "ml": 0.2},
            "enhancing tumor": {"mm3": 180, "ml": 0.18},
        },
    }


def test_folds_in_the_facts_are_those_of_the_file(tmp_path: Path) -> None:
    conversion = brats(23)
    facts, page, _ = written(tmp_path, conversion)
    for number, fold in enumerate(conversion.folds):
        assert [name for name, case in facts["cases"].items() if case["fold"] == number] == fold["val"]
        assert facts["folds"][number]["cases"] == len(fold["val"])
        volumes = [facts["cases"][case]["label"]["volume"]["ml"] for case in fold["val"]]
        assert facts["folds"][number]["median_ml"] == pytest.approx(np.median(volumes))
        low, high = facts["folds"][number]["middle_80_percent_ml"]
        np.testing.assert_allclose([low, high], np.percentile(volumes, [10, 90]))
    assert sum(fold["strata"]["LGG"] for fold in facts["folds"]) == 6
    assert {"HGG", "LGG"} <= set(page.texts)


def test_all_findings_are_on_the_page(tmp_path: Path) -> None:
    facts, page, _ = written(tmp_path, with_everything(brats(30)))
    counts = {"training": 30, "unlabelled": 2, "patients": 32, "left_out": 1, "incomplete": 0, "outliers": 2}
    assert facts["counts"] == counts
    assert facts["cases"]["BraTS2021_00003"]["notes"] == [
        "BraTS2021_00003_seg.nii.gz: empty label: every voxel is background"
    ]
    for words in (
        "modality T1ce is missing: no BraTS2021_00999_t1ce.nii.gz or .nii",
        "is cut short: 1024 of 8912 bytes",
        "case names do not identify patients: give --patients",
        "empty label: every voxel is background",
        "3 files are not of this release",
        "cannot be read: Permission denied",
        "size 240 × 240 × 40, usually 240 × 240 × 155",
        "T1: header or voxels repaired",
        "2 as 1",
    ):
        assert words in page.text
    assert odd_tiles(page) == ["BraTS2021_00002", "BraTS2021_00004"]
    assert [row["id"] for row in page.all("tr", **{"class": "odd"})] == ["case-2", "case-4"]


def test_every_case_has_a_picture_that_opens_it_and_leads_to_its_row(tmp_path: Path) -> None:
    facts, page, _ = written(tmp_path, brats(12))
    tiles = [tile for tile in page.all("div") if tile.get("title")]
    rows = [row["id"] for row in page.all("tr") if row.get("id")]
    assert [tile["title"].split("\n")[0] for tile in tiles] == list(facts["cases"])
    assert page.texts.count("no label") == 2 * 2  # below the picture and in the table
    links = [str(link["href"]) for link in page.all("a") if str(link["href"]).startswith("#case-")]
    assert links == [f"#{row}" for row in rows]
    opened = [button["data-view"] for button in page.all("button", **{"class": "picture"})]
    assert opened == [str(number) for number in range(len(rows))]
    assert len(page.all("img")) == len(facts["cases"])


def test_small_sets_explain_what_is_missing(tmp_path: Path) -> None:
    facts, page, _ = written(tmp_path, brats(3, unlabelled=0))
    assert facts["outliers_sought"] is False
    assert facts["folds"] == []
    assert "fewer than 8 cases" in page.text
    assert "fewer than five patients" in page.text


def test_failed_registrations_come_first(tmp_path: Path) -> None:
    conversion = isles(9)
    facts, page, text = written(tmp_path, conversion)
    assert facts["cases"]["sub-strokecase0001_ses-0001"]["registrations"] == [
        {
            "channel": "FLAIR",
            "ok": False,
            "metric_before": -0.31,
            "metric_after": -0.02,
            "translation_mm": 0,
            "rotation_deg": 0,
            "text": conversion.registered[1].registration.text,
        }
    ]
    rows = re.findall(r"<tr[^>]*><td>(sub-[^<]*)</td><td>FLAIR</td>", text)
    assert rows == [f"sub-strokecase{number:04d}_ses-0001" for number in (1, 0, 2, 3, 4, 5, 6, 7, 8)]
    figures = re.findall(r'<figure class="pair( odd)?">.*?<figcaption><b>(.*?)</b>', text)
    assert figures[0] == (" odd", "sub-strokecase0001_ses-0001")
    assert [odd for odd, _ in figures[1:]] == [""] * 8
    assert "1 of 9" in page.texts
    assert len(page.all("img")) == 9 + 3 * 9


def test_metrics_that_could_not_be_computed_are_null(tmp_path: Path) -> None:
    conversion = isles(5)
    one = conversion.registered[0]
    failed = replace(one.registration, metric_before=math.nan, metric_after=math.nan, ok=False)
    broken = replace(one, registration=failed)
    facts, _, _ = written(tmp_path, replace(conversion, registered=(broken, *conversion.registered[1:])))
    assert facts["cases"][one.case]["registrations"][0]["metric_after"] is None


def test_page_loads_nothing(tmp_path: Path) -> None:
    _, page, text = written(tmp_path, isles(8))
    for _, attributes in page.elements:
        for key in ("src", "href", "action", "data", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/jpeg;base64,"))
    assert "url(" not in text
    assert "@import" not in text
    assert page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"].startswith("default-src 'none'")


def test_names_are_escaped(tmp_path: Path) -> None:
    """Names, paths, messages and regions that look like HTML, and a path that is not valid UTF-8."""
    evil = "</title><script>alert('1')</script>\"'&amp;"
    conversion = with_everything(brats(9))
    survey = conversion.survey
    case = survey.kept[0].case
    files = (Path(os.fsdecode(b"/data/\xff.nii.gz")), *case.images[1:])
    kept = (
        replace(
            survey.kept[0], case=replace(case, name=evil, patient=evil, stratum=evil, fields={"x": evil}, images=files)
        ),
        *survey.kept[1:],
    )
    note = replace(survey.problems[0], case=evil, path=files[0], text=evil)
    channels = (replace(survey.channels[0], name=evil), *survey.channels[1:])
    regions = {evil if name == "tumor core" else name: values for name, values in survey.scheme.regions.items()}
    survey = replace(
        survey,
        release=replace(survey.release, title=evil, licence=evil, reference=evil),
        channels=channels,
        scheme=replace(survey.scheme, regions=regions),
        kept=kept,
        problems=(note,),
        notes=(note,),
        warnings=(evil,),
    )
    folds = [
        {part: [evil if c == case.name else c for c in cases] for part, cases in f.items()} for f in conversion.folds
    ]
    conversion = replace(conversion, name=evil, survey=survey, folds=folds, sources=(files[0],))
    facts, page, _ = written(tmp_path, conversion)
    assert [script for script in page.all("script") if script.get("type") != "application/json"] == [{}]
    assert page.text.count(evil) >= 8
    assert facts["cases"][evil]["images"][0]["source"] == str(files[0])  # given back as it was, byte for byte


def test_page_of_a_large_set_is_small(tmp_path: Path) -> None:
    """As many cases as in BraTS 2021, with noise, which JPEG compresses badly."""
    write_report(tmp_path, brats(1251, unlabelled=219))
    assert (tmp_path / PAGE_FILE).stat().st_size < 10e6


def test_facts_are_the_same_in_any_order_of_written_cases() -> None:
    conversion = isles(6)
    turned = replace(conversion, registered=conversion.registered[::-1])
    assert json.dumps(report_facts(turned)) == json.dumps(report_facts(conversion))


def test_outline_is_the_mask_without_its_inside() -> None:
    mask = np.random.default_rng(0).random((40, 50)) > 0.2
    np.testing.assert_array_equal(outline(mask), mask & ~binary_erosion(mask))


def test_outlines_are_drawn_where_the_label_ends() -> None:
    """A square in a grey picture, enlarged twice: only its border is coloured."""
    mask = np.zeros((40, 30), bool)
    mask[10:20, 5:15] = True
    pixels = np.asarray(Image.open(io.BytesIO(draw(np.full((40, 30), 90, np.uint8), [mask], 80)))).astype(int)
    assert pixels.shape == (80, 60, 3)
    blue = [int(COLOURS[0][start : start + 2], 16) for start in (1, 3, 5)]
    coloured = abs(pixels - blue).sum(axis=2) < abs(pixels - 90).sum(axis=2)
    expected = np.zeros((80, 60), bool)
    expected[20:40, 10:30] = True
    expected[21:39, 11:29] = False
    np.testing.assert_array_equal(coloured, expected)


def test_regions_of_a_case_have_their_colours(tmp_path: Path) -> None:
    """A label with edema only is outlined only in the colour of the whole tumor."""
    conversion = brats(6)
    thumbnail = conversion.survey.kept[0].thumbnail
    edema = np.where(thumbnail.label > 0, 2, 0).astype(np.uint8)
    grey = np.full_like(thumbnail.image, 90)
    conversion = with_case(conversion, "BraTS2021_00000", thumbnail=replace(thumbnail, image=grey, label=edema))
    _, page, _ = written(tmp_path, conversion)
    pixels = picture(str(page.all("img")[0]["src"])).astype(int)
    odd = pixels[np.ptp(pixels, axis=2) > 60]
    assert len(odd) > 20
    assert (odd[:, 0] > odd[:, 2]).mean() > 0.95  # yellow, neither green nor lilac, but for ringing of JPEG


@pytest.mark.parametrize(("pictures", "side"), [(0, 240), (10, 240), (1251, 97), (10**6, 48)])
def test_more_pictures_are_smaller(pictures: int, side: int) -> None:
    assert side_for(pictures) == side


def test_histogram_counts_each_volume_once() -> None:
    volumes = [0.0, 0.5, 1.0, 1.5, 9.99, 10.0, 99.0]
    assert decades_of(volumes) == (-1, 2)
    counts = counts_of(volumes, (-1, 2))
    assert counts == [0, 0, 0, 1, 0, 2, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert histogram_svg(volumes, (-1, 2), "#123456").count("<rect") == 5
    assert decades_of([0.0]) == (0, 1)
    assert "<rect" not in histogram_svg([0.0], (0, 1), "#123456")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.01234, "0.0123"), (1.25, "1.25"), (57.31, "57.3"), (99.96, "100"), (90_000, "90000")],
)
def test_numbers_are_short_and_have_no_exponent(value: float | None, text: str) -> None:
    assert short(value) == text
