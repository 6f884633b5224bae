"""The worklist of ``predict --quality`` in a real browser: sorted by doubt, every case a click or a key away."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import worklist_example
from browser import CHROMIUM, Browser
from page_scripts import CLOSE, LEVELS, OUTSIDE, READY, UNEXPLAINED, WIDE, opened

from factorizer_nnunet.core.wording import today
from factorizer_nnunet.quality.write import write_quality

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

BY_DOUBT = ["blob_001", "blob_003", "blob_002", "blob_000"]
ROWS = """[...document.querySelectorAll("main tbody tr")].map(row =>
  [...row.cells].map(cell => cell.textContent.trim()))"""
HEADS = '[...document.querySelectorAll("main thead th")].map(head => head.textContent)'
MARKED = '[...document.querySelectorAll("tr[aria-current=true] th")].map(head => head.textContent)'
TITLE = 'document.getElementById("viewer-title").textContent'
REASONS = '[...document.querySelectorAll("main td abbr")].map(one => one.title)'
CHANNELS = '[...document.getElementById("viewer-channel").options].map(one => one.text)'
MAPS = """(select => [!select.parentNode.hidden, [...select.options].map(one => one.text)])
  (document.getElementById("viewer-map"))"""
COLOURS = """["tr[aria-current]", "tr:not([aria-current])"].map(rows =>
  getComputedStyle(document.querySelector(`main tbody ${rows} td`)).backgroundColor)"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A calibrated model with maps, and one without either."""
    folders = {
        made.__name__: made(tmp_path_factory.mktemp(made.__name__))
        for made in (worklist_example.calibrated, worklist_example.uncalibrated)
    }
    return {name: write_quality(folder).page for name, folder in folders.items()}


@pytest.fixture
def calibrated(started: Browser, pages: dict[str, Path]) -> Iterator[Browser]:
    yield from _shown(started, pages["calibrated"])


@pytest.fixture
def uncalibrated(started: Browser, pages: dict[str, Path]) -> Iterator[Browser]:
    yield from _shown(started, pages["uncalibrated"])


def _shown(browser: Browser, page: Path) -> Iterator[Browser]:
    """With a page, which must not cause errors."""
    browser.resize(1400, "light")
    browser.open(page)
    yield browser
    assert browser.problems == []


def test_the_most_doubtful_case_is_first_and_its_doubt_is_shown(calibrated: Browser) -> None:
    assert calibrated.evaluate(HEADS)[:5] == ["rank", "case", "doubt", "region", "why to look at it"]
    rows = calibrated.evaluate(ROWS)
    assert [row[1] for row in rows[::2]] == [row[1] for row in rows[1::2]] == BY_DOUBT
    assert [row[0] for row in rows] == ["1", "1", "2", "2", "3", "3", "4", "4"]
    doubts = [float(row[2]) for row in rows]
    assert doubts == sorted(doubts, reverse=True) and doubts[0] == round(1 - 0.9 * 0.41, 2)
    assert rows[0][11:13] == ["1.25 to 1.75", "2"]


def test_the_header_says_what_when_and_by_which_models(calibrated: Browser) -> None:
    title, heading, text = calibrated.evaluate("[document.title, document.querySelector('h1').textContent, "
                                               "document.querySelector('header').textContent]")  # fmt: skip
    assert title == f"{heading}: worklist of {today()}" and heading == "out" and today() in text
    assert "Dataset321_Blobs: Factorizer, nnUNetPlans, 3d_fullres, folds 0, 1, calibrated on 24 out-of" in text
    levels = calibrated.evaluate(LEVELS)
    assert levels[0] == 1 and all(later <= earlier + 1 for earlier, later in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("column", range(1, 14))
def test_a_click_anywhere_on_a_row_opens_its_case_and_marks_it(calibrated: Browser, column: int) -> None:
    labels, captions = opened(calibrated, f"tr[data-view='1'] > :nth-child({column})")
    assert calibrated.evaluate(TITLE) == f"{BY_DOUBT[1]} (2 of 4)"
    for label, plane in zip(labels, ("axial", "coronal", "sagittal"), strict=True):
        assert re.search(rf"{BY_DOUBT[1]}, T2: {plane}, slice \d+ of \d+, [RLAPSI] [\d.]+ mm", label)
    assert all(re.search(r"^T2, .+ mm, level [-\d.]+, width [\d.]+$", caption) for caption in captions)
    assert calibrated.evaluate(MARKED) == [BY_DOUBT[1]] * 2
    calibrated.evaluate(CLOSE)
    assert calibrated.evaluate(MARKED) == [BY_DOUBT[1]] * 2, "where one was in the list stays visible"


@pytest.mark.parametrize("key", ["Enter", " "])
def test_the_button_of_a_row_opens_its_case_by_keyboard(calibrated: Browser, key: str) -> None:
    calibrated.evaluate("document.querySelector('tr[data-view=\"2\"] button').focus()")
    calibrated.key(key)
    assert calibrated.evaluate(READY)[:2] == [True, "2"]
    assert calibrated.evaluate(TITLE) == f"{BY_DOUBT[2]} (3 of 4)"


def test_keys_go_through_the_cases_by_doubt(calibrated: Browser) -> None:
    opened(calibrated, "tr[data-view]")
    for key, place in (("n", 1), ("n", 2), ("p", 1)):
        calibrated.key(key)
        calibrated.wait(lambda place=place: calibrated.evaluate(READY)[1] == str(place))
        assert calibrated.evaluate(TITLE).startswith(BY_DOUBT[place])
        assert calibrated.evaluate(MARKED) == [BY_DOUBT[place]] * 2


def test_channels_keep_their_names_in_a_case_that_lacks_one(calibrated: Browser) -> None:
    opened(calibrated, "tr[data-view='0']")
    assert calibrated.evaluate(CHANNELS) == ["T2", "T1 </script>"]
    lacking = f"blob_{worklist_example.LACKING:03d}"
    opened(calibrated, f"tr[data-view='{BY_DOUBT.index(lacking)}']")
    assert calibrated.evaluate(CHANNELS) == ["T1 </script>"]
    assert "not those that were predicted from" not in calibrated.evaluate("document.body.textContent")


def test_maps_can_be_laid_over_the_image_where_there_are_any(calibrated: Browser) -> None:
    opened(calibrated, "tr[data-view]")
    assert calibrated.evaluate(MAPS) == [True, ["none", "entropy", "disagreement"]]
    calibrated.key("m")
    assert "entropy, 0 to 1" in calibrated.evaluate('document.getElementById("viewer-legend").textContent')


def test_without_maps_none_can_be_chosen(uncalibrated: Browser) -> None:
    opened(uncalibrated, "tr[data-view]")
    assert uncalibrated.evaluate(MAPS)[0] is False


def test_what_a_model_without_calibration_cannot_say_has_its_reason(uncalibrated: Browser) -> None:
    rows, text = uncalibrated.evaluate(ROWS), uncalibrated.evaluate("document.querySelector('header').textContent")
    assert "nnU-Net, nnUNetPlans, 3d_fullres, fold 0, not calibrated" in text
    assert "run factorizer-nnunet calibrate -m" in text and "predicted each case once" in text
    assert all(row[5:9] == ["–"] * 4 and row[10] == "–" for row in rows)
    assert [row[1:3] for row in rows[:2]] == [["blob_000", "–"]] * 2, "nothing was found, so nothing is known"
    assert [row[9] for row in rows] == ["–"] * 2 + ["0.80"] * 4
    assert uncalibrated.evaluate(UNEXPLAINED) == []
    reasons = uncalibrated.evaluate(REASONS)
    expected = ("not calibrated", "one pass of each fold", "one fold", "no pass finds the region", "nothing was found")
    assert [known for known in expected if not any(known in reason for reason in reasons)] == []


def test_the_table_can_be_saved(calibrated: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    calibrated.save_to(tmp_path)
    calibrated.evaluate('document.querySelector("button[data-csv]").click()')
    calibrated.wait(lambda: [*tmp_path.glob("*.csv")])
    files = (tmp_path / "quality.csv", pages["calibrated"].with_name("quality.csv"))
    saved, written = ([*csv.reader(file.read_text("utf-8-sig").splitlines())] for file in files)
    assert saved[0] == calibrated.evaluate(HEADS) and len(saved) == len(written) == 1 + 2 * len(BY_DOUBT)
    numbers = [0, 2, 4, 5, 6, 7, 8, 9]  # rank, doubt, Dice with its interval, agreement, confidence, folds
    on_page = [0, 2, 5, 6, 7, 8, 9, 10]
    for ours, theirs in zip(saved[1:], written[1:], strict=True):
        assert [ours[1], ours[3]] == [theirs[1], theirs[3]]
        assert [float(ours[n]) for n in on_page] == pytest.approx([float(theirs[n]) for n in numbers], abs=1e-4)
    assert saved[1][11] == "1.25 to 1.75", "both ends of a range are saved"


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["calibrated", "uncalibrated"])
def test_nothing_scrolls_sideways(page: str, width: int, scheme: str, request: pytest.FixtureRequest) -> None:
    browser: Browser = request.getfixturevalue(page)
    browser.resize(width, scheme)
    assert browser.evaluate(WIDE) <= width, browser.evaluate(OUTSIDE)
    opened(browser, "tr[data-view]")
    assert browser.evaluate(WIDE) <= width, browser.evaluate(OUTSIDE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_row_that_was_opened_has_another_colour(calibrated: Browser, scheme: str) -> None:
    calibrated.resize(1400, scheme)
    opened(calibrated, "tr[data-view='1']")
    marked, others = calibrated.evaluate(COLOURS)
    assert marked != others
