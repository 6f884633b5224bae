"""The page of a case in a real browser, and the files next to it."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from browser import CHROMIUM, Browser
from explained import explanation
from PIL import Image

from factorizer_nnunet.explain import panels
from factorizer_nnunet.explain.outputs import COMPONENTS_FILE, write_description, write_map
from factorizer_nnunet.explain.page import write_page
from factorizer_nnunet.explain.panels import write_panels
from factorizer_nnunet.explain.ranking import Separation
from factorizer_nnunet.explain.shown import Shown, cuts_of
from factorizer_nnunet.pages.palette import line_of, rgb

NO_SEPARATION = Separation(None, None)


def test_each_map_is_stored_once_and_shown_below_every_class(tmp_path: Path) -> None:
    made = explanation(tmp_path, (10, 12, 14))
    write_page(tmp_path / "page.html", made, 1, Shown.of(made, ["T1"]))
    page = (tmp_path / "page.html").read_text()
    (stored,) = re.findall(r'id="volumes-0">(.*?)</script>', page)
    case = json.loads(stored)
    assert [one["name"] for one in case["maps"]] == [one.component.name for one in made.top_of_all(1)]
    assert [one["name"] for one in case["labels"]] == ["true label", "prediction"]
    differences = np.frombuffer(zlib.decompress(base64.b64decode(case["maps"][0]["data"])), np.uint8)
    shown = np.cumsum(differences, dtype=np.uint8).reshape(case["maps"][0]["size"], order="F")
    best = made.assessments[0]
    expected = np.rint(made.map(best.component).values / best.largest * 255)
    assert shown.shape == expected.shape and np.abs(shown - expected).max() <= 1
    assert page.count('data-map="encoder-3_head-01"') == 2 + 1 + 1  # both classes, a row of the table and its button


def test_maps_become_coarser_to_fit_the_limit(tmp_path: Path) -> None:
    made = explanation(tmp_path, (40, 40, 40), heads=6)
    sizes = []
    for limit in (30.0, 0.2, 0.0):
        write_page(tmp_path / "page.html", made, 3, Shown.of(made, ["T1"]), limit_mb=limit)
        page = (tmp_path / "page.html").read_text()
        stored = re.findall(r'id="volumes-0">(.*?)</script>', page)
        sizes += [json.loads(one)["maps"][0]["size"] for one in stored]
    assert sizes[0] == [40, 40, 40] and sizes[1][0] < 30
    assert len(sizes) == 2 and "volumes of 0 of 1 cases; more with" in page


def test_photographs_have_no_side_letters(tmp_path: Path) -> None:
    made = explanation(tmp_path, (10, 12, 14))
    made = replace(made, geometry=replace(made.geometry, oriented=False))
    (cut, *_) = cuts_of(made, Shown.of(made), made.prediction > 0)
    assert (cut.name, cut.position, cut.known_plane) == ("", "", None)


def test_a_written_map_has_the_grid_of_the_image(tmp_path: Path) -> None:
    made = explanation(tmp_path, (10, 12, 14))
    volume = made.map(made.assessments[0].component)
    write_map(tmp_path / "map.nii.gz", volume)
    read = SimpleITK.ReadImage(str(tmp_path / "map.nii.gz"))
    assert (read.GetSize(), read.GetSpacing(), read.GetOrigin()) == ((14, 12, 10), (1, 1, 1), (0, 0, 0))
    np.testing.assert_allclose(read.GetDirection(), np.eye(3).ravel())
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(read).T, volume.values, atol=volume.values.max() / 60_000)


def test_description_and_panels(tmp_path: Path) -> None:
    made = explanation(tmp_path, (10, 12, 14))
    write_description(tmp_path, made, with_maps=True, with_loadings=False)
    written = json.loads((tmp_path / COMPONENTS_FILE).read_text())
    assert written["best_first"]["core"]["encoder-3"][0] == "encoder-3_head-01"
    assert written["components"][0]["map"] == "encoder-3_head-01.nii.gz"
    shown = Shown.of(made)
    write_panels(tmp_path, made, 1, shown)
    one = {name: Image.open(tmp_path / f"panel_{name}.png").size for name in ("lesion-script-", "core")}
    write_panels(tmp_path, made, 2, shown)
    for name, (width, height) in one.items():
        wider, higher = Image.open(tmp_path / f"panel_{name}.png").size
        assert wider == width > 500 and 1.4 < higher / height < 1.6, "expected three rows instead of two"


def test_panels_show_slices_upright_with_the_classes_outlined(tmp_path: Path) -> None:
    made = explanation(tmp_path, (10, 12, 14))
    figure = panels._panel(made, "core", 1, Shown.of(made))
    (axes,) = figure.axes
    assert len(axes.images) == 2 * (3 + 1)  # three planes and a bar in each row
    pictures = [image.get_array() for image in axes.images if image.get_array().shape[1] > 1]
    lesion, core = (np.array(rgb(line_of(number).colour)) for number in (0, 1))
    for place, picture in enumerate(pictures):
        drawn = [np.argwhere(np.abs(picture - colour).max(axis=-1) < 3) for colour in (lesion, core)]
        assert len(drawn[1]) > 20 and (len(drawn[0]) > 20) is (place < 3)  # maps have the outline of the class alone
        middle = np.array(picture.shape[:2]) / 2  # of the balls
        assert np.abs((drawn[1].min(axis=0) + drawn[1].max(axis=0)) / 2 - middle).max() < 20  # a voxel
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["axial\nS 4 mm", "coronal\nP 5 mm", "sagittal\nL 6 mm"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lesion </script>", "core"]


def test_classes_that_are_not_predicted_or_have_the_same_file_name(tmp_path: Path) -> None:
    made = explanation(tmp_path, (10, 12, 14))
    classes = {"a b": (1,), "a-b": (2,), "nowhere": (9,)}
    assessments = [
        replace(
            one,
            predicted=dict(zip(classes, (*one.predicted.values(), NO_SEPARATION), strict=True)),
            true=None,
            deletion=None,
        )
        for one in made.assessments
    ]
    made = replace(made, classes=classes, assessments=assessments, truth=None)
    assert made.top("encoder-3", "nowhere", 3) == []
    assert {one.component.head for one in made.top_of_all(3)} == {1, 2}
    write_panels(tmp_path, made, 1, Shown.of(made))
    assert {file.name for file in tmp_path.glob("*.png")} == {
        "panel_a-b-1.png", "panel_a-b-2.png", "panel_nowhere.png",
    }  # fmt: skip
    write_page(tmp_path / "page.html", made, 1, Shown.of(made))
    assert (tmp_path / "page.html").read_text().count("no map can separate it") == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
def test_the_page_of_a_brats_case_is_small_and_opens(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    made = explanation(tmp_path, (155, 240, 240), heads=24)
    write_page(page, made, 12, Shown.of(made, ["T1"]))
    assert page.stat().st_size < 25e6
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page)
        browser.evaluate('document.querySelector("main img").click()')
        browser.wait(lambda: browser.evaluate('document.getElementById("viewer").dataset.ready') == "0")
        assert browser.problems == []
    finally:
        browser.close()
