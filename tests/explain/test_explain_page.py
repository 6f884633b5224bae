"""The page of a case in a real browser, and the files next to it."""

from __future__ import annotations

import base64
import io
import json
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
from factorizer_nnunet.explain.page_data import page_data
from factorizer_nnunet.explain.panels import write_panels
from factorizer_nnunet.explain.ranking import Separation
from factorizer_nnunet.imaging.display_grid import display_grid
from factorizer_nnunet.imaging.planes import PLANES

NO_SEPARATION = Separation(None, None)
STATE = """({
  drawn: Number(document.body.dataset.drawn || 0), text: document.body.innerText,
  views: document.querySelectorAll("canvas").length,
  colours: [...document.querySelectorAll("canvas")].map(canvas => new Set(
    canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size),
})"""
READY = """new Promise(done => { const look = () => document.body.dataset.drawn ? done(performance.now())
  : setTimeout(look, 20); look(); })"""
SLIDE = """new Promise(done => { const slider = document.getElementById("slice-2");
  slider.value = 1; slider.dispatchEvent(new Event("input"));
  const look = () => document.body.dataset.drawn > 1 ? done(cut[2]) : setTimeout(look, 20); look(); })"""


def test_mosaics_contain_the_volumes(tmp_path: Path) -> None:
    made = explanation(tmp_path, (10, 12, 14))
    data = page_data(made, 1, ["T1"])
    source = data["labels"]["prediction"]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(source["src"].split(",")[1]))))
    shown = display_grid(made.geometry.grid).resample(made.prediction)
    for k in range(data["size"][2]):
        row, column = divmod(k, source["columns"])
        tile = sheet[row * 12 : (row + 1) * 12, column * 14 : (column + 1) * 14]
        np.testing.assert_array_equal(tile, shown[:, :, k].T)
    assert [one["map"] for one in data["best"]["core"]["encoder-3"]] == ["encoder-3_head-01"]


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
    write_panels(tmp_path, made, 1)
    one = {name: Image.open(tmp_path / f"panel_{name}.png").size for name in ("lesion-script-", "core")}
    write_panels(tmp_path, made, 2)
    for name, (width, height) in one.items():
        wider, higher = Image.open(tmp_path / f"panel_{name}.png").size
        assert wider == width > 500 and 1.4 < higher / height < 1.6, "expected three rows instead of two"


def test_panels_show_slices_upright_with_the_class_outlined(tmp_path: Path) -> None:
    made = explanation(tmp_path, (10, 12, 14))
    shown = np.arange(14 * 12 * 10).reshape(14, 12, 10)  # to the left, back, and up
    axial, coronal, sagittal = (panels._slice(shown, plane, (3, 4, 5)) for plane in PLANES.values())
    np.testing.assert_array_equal(axial, shown[:, :, 5].T)  # the patient's left on the right, back below
    np.testing.assert_array_equal(coronal, shown[:, 4, ::-1].T)  # up is up
    np.testing.assert_array_equal(sagittal, shown[3, :, ::-1].T)
    figure = panels._panel(made, "core", 1, panels._Background.of(made, (), None))
    (axes,) = figure.axes
    assert len(axes.images) == 2 * (3 + 1)  # three planes and a bar in each row
    (lines,) = axes.collections
    outlines = [path.vertices for path in lines.get_paths()]
    assert len(outlines) == 2 * 3
    for picture, outline in zip([p for p in axes.images if p.get_array().shape[1] > 1], outlines, strict=True):
        left, right, lower, upper = picture.get_extent()
        middle = np.array([(left + right) / 2, (lower + upper) / 2])  # of the ball
        assert np.abs(outline.mean(0) - middle).max() < 0.15
        assert (outline >= (left, upper)).all() and (outline <= (right, lower)).all()


def test_classes_that_are_not_predicted_or_have_the_same_file_name(tmp_path: Path) -> None:
    made = explanation(tmp_path, (10, 12, 14))
    classes = {"a b": (1,), "a-b": (2,), "nowhere": (9,)}
    assessments = [
        replace(one, predicted=dict(zip(classes, (*one.predicted.values(), NO_SEPARATION), strict=True)))
        for one in made.assessments
    ]
    made = replace(made, classes=classes, assessments=assessments)
    assert made.top("encoder-3", "nowhere", 3) == []
    assert {one.component.head for one in made.top_of_all(3)} == {1, 2}
    write_panels(tmp_path, made, 1)
    assert {file.name for file in tmp_path.glob("*.png")} == {
        "panel_a-b-1.png", "panel_a-b-2.png", "panel_nowhere.png",
    }  # fmt: skip
    data = page_data(made, 1, ["T1"])
    assert data["best"]["nowhere"] == {"encoder-3": []} and data["best"]["a b"]["encoder-3"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
def test_the_page_draws_reacts_to_sliders_and_works_offline(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_page(page, explanation(tmp_path, (16, 20, 24)), 2, ["T1 & T2"])
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page)
        browser.evaluate(READY)
        state = browser.evaluate(STATE)
        assert state["views"] == 9 and min(state["colours"]) > 10
        assert "lesion </script>" in state["text"] and "encoder-3_head-01" in state["text"]
        assert browser.evaluate(SLIDE) == 1
        asked = [
            event["params"]["request"]["url"] for event in browser.events if "requestWillBeSent" in event["method"]
        ]
        assert all(url.startswith(("file:", "data:")) for url in asked)
        assert not [
            event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]
    finally:
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
def test_the_page_of_a_brats_case_is_small_and_opens(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_page(page, explanation(tmp_path, (155, 240, 240), heads=24), 12, ["T1"])
    assert page.stat().st_size < 25e6
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page)
        browser.evaluate(READY)
    finally:
        browser.close()
