"""The viewer of cases in a real browser, driven by mouse and keys, in both themes, narrow and wide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from results_example import add_model, random_scores, write_study

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.report import Sources, write

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

READY = """(async number => {
  const dialog = document.getElementById("viewer");
  for (let n = 0; n < 500 && dialog.dataset.ready !== "" + number; n++) await new Promise(done => setTimeout(done, 10));
  return dialog.open && dialog.dataset.ready === "" + number;
})"""
TITLE = 'document.getElementById("viewer-title").textContent'
CUT = 'document.getElementById("viewer").dataset.cut.split(" ").map(Number)'
COLOURS_SHOWN = """(() => {  // how many pixels of the canvases are not grey
  let count = 0;
  for (const canvas of document.querySelectorAll("#viewer-planes canvas")) {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < data.length; at += 4) count += Math.abs(data[at] - data[at + 1]) > 24;
  }
  return count;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A report of two models on six cases, of which five can be opened."""
    folder = tmp_path_factory.mktemp("viewer")
    study = write_study(folder / "study", 6)
    models = [add_model(study, trainer, wear) for trainer, wear in (("nnUNetTrainer", 0.5), ("nnUNetTrainerB", 0.3))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "score", lambda result, *_: random_scores(result, len(result.title)))
        sources = Sources(environment=study.environment)
        write.write_report(models, folder / "report.html", sources=sources, viewer_cases=5)
    assert Path(folder / "report.html").read_text().count('id="volumes-') == 5
    browser = Browser(tmp_path_factory.mktemp("profile"))
    browser.open(folder / "report.html")
    yield browser
    browser.close()


@pytest.mark.parametrize("limits", [{"viewer_cases": -1}, {"viewer_mb": float("nan")}, {"viewer_mb": -2.0}])
def test_impossible_limits_are_refused_before_anything_is_read(tmp_path: Path, limits: dict[str, float]) -> None:
    with pytest.raises(UserError, match="invalid limits of the viewer"):
        write.write_report([tmp_path], tmp_path / "report.html", **limits)


def _open(browser: Browser, number: int) -> None:
    browser.evaluate('document.getElementById("viewer").close()')
    browser.evaluate(f'document.querySelector("#case-{number} td").click()')
    assert browser.evaluate(f"{READY}({number})")


def _stored(browser: Browser) -> list[int]:
    return browser.evaluate('[...document.querySelectorAll("[id^=volumes-]")].map(one => +one.id.slice(8))')


def test_a_row_opens_its_case_in_three_planes(browser: Browser) -> None:
    number = _stored(browser)[0]
    _open(browser, number)
    assert browser.evaluate(TITLE) == f"blob_{number:03d} ({number + 1} of 6)"
    labels = browser.evaluate('[...document.querySelectorAll("#viewer canvas")].map(one => one.ariaLabel)')
    assert [text.split(": ")[1].split(",")[0] for text in labels] == ["axial", "coronal", "sagittal"]
    assert all(f"blob_{number:03d}, MRI: " in text and " mm" in text and "slice " in text for text in labels)
    assert browser.evaluate(COLOURS_SHOWN) > 100


def test_keys_and_wheel_change_slice_and_case(browser: Browser) -> None:
    number = _stored(browser)[0]
    _open(browser, number)
    browser.evaluate('document.querySelector("#viewer canvas").focus()')
    before = browser.evaluate(CUT)
    browser.key("ArrowDown")
    assert browser.evaluate(CUT) == [*before[:2], before[2] - 1]
    browser.key("3")
    browser.key("ArrowUp")
    assert browser.evaluate(CUT) == [before[0] + 1, before[1], before[2] - 1]
    x, y = browser.evaluate(
        "(box => [box.x + box.width / 2, box.y + box.height / 2])"
        '(document.querySelector("#viewer canvas").getBoundingClientRect())'
    )
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=100)
    assert browser.evaluate(CUT)[2] == before[2]
    browser.key("n")
    later = [*(one for one in sorted(_stored(browser)) if one > number), min(_stored(browser))]
    assert browser.evaluate(f"{READY}({later[0]})")
    browser.key("p")
    assert browser.evaluate(f"{READY}({number})")


def test_what_is_shown_and_the_window_can_be_changed(browser: Browser) -> None:
    _open(browser, _stored(browser)[0])
    shown = browser.evaluate('[...document.getElementById("viewer-show").options].map(one => one.text)')
    first, second = shown[2:4]
    assert shown == [f"reference and {first}", "reference", first, second, f"errors of {first}", f"errors of {second}",
                     "image alone"]  # fmt: skip
    for text, coloured in (("image alone", False), (f"errors of {first}", True)):
        place = shown.index(text)
        browser.evaluate(
            f"(one => {{ one.selectedIndex = {place}; one.dispatchEvent(new Event('input')); }})"
            '(document.getElementById("viewer-show"))'
        )
        assert (browser.evaluate(COLOURS_SHOWN) > 0) is coloured
    assert "false negative" in browser.evaluate('document.getElementById("viewer-legend").textContent')
    browser.evaluate(
        "(one => { one.value = 1e6; one.dispatchEvent(new Event('input')); })(document.getElementById('viewer-level'))"
    )
    assert "level 1000000" in browser.evaluate('document.querySelector("#viewer figcaption").textContent')


def test_a_case_without_volumes_says_why(browser: Browser) -> None:
    (missing,) = {*range(6)} - {*_stored(browser)}
    _open(browser, missing)
    assert "--viewer-cases" in browser.evaluate('document.getElementById("viewer-planes").textContent')


def test_there_were_no_errors(browser: Browser) -> None:
    """Last, so that it sees the events of all other tests."""
    assert browser.problems == []
