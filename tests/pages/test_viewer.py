"""What the viewer of cases stores."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factorizer_nnunet import cli
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.window import Window, ct_window
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.pages.viewer import ShownCase, ShownImage, ShownMap, stored_case, viewer

SIZE = (9, 8, 7)
GRID = Grid(SIZE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))  # to the right and front
RNG = np.random.default_rng(0)


def _case(number: int, window: Window) -> ShownCase:
    labels = np.zeros(SIZE, np.uint8)
    labels[0, 1, 2] = 3
    images = [ShownImage("T2", RNG.uniform(0, 100, SIZE), window)]
    maps = [ShownMap("head </script> 1", RNG.integers(0, 256, (5, 4, 3), np.uint8), "2 feature norm")]
    return ShownCase(number, GRID, images, 0, {"reference": labels}, maps=maps)


def _viewer(*cases: ShownCase, regions: dict[str, tuple[int, ...]] | None = None) -> str:
    names = [f"case </script> {number}" for number in range(5)]
    return viewer(map(stored_case, cases), regions or {}, names, ViewerLimits())


def _stored(html: str, number: int) -> dict[str, object]:
    found = re.search(rf'id="volumes-{number}">(.*?)</script>', html)
    assert found is not None
    return json.loads(found[1])


def _volume(text: str, size: tuple[int, ...]) -> np.ndarray:
    """As the browser unpacks it: (left, back, up)."""
    differences = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.cumsum(differences, dtype=np.uint8).reshape(size, order="F")


def test_volumes_are_stored_to_the_left_back_and_up() -> None:
    case = _case(4, Window(0, 100))
    stored = _stored(_viewer(case, regions={"lesion": (3,)}), 4)
    assert tuple(stored["size"]) == SIZE
    labels = _volume(stored["labels"][0]["data"], SIZE)
    np.testing.assert_array_equal(labels, case.segmentations["reference"][::-1, ::-1])
    assert stored["cut"] == [8, 6, 2]
    image = _volume(stored["images"][0]["data"], SIZE)
    values = image / 255 * (stored["images"][0]["high"] - stored["images"][0]["low"])
    np.testing.assert_allclose(values, case.images[0].values[::-1, ::-1], atol=0.4)
    (shown,) = stored["maps"]
    np.testing.assert_array_equal(_volume(shown["data"], tuple(shown["size"])), case.maps[0].volume)


def test_slices_have_the_numbers_of_the_file() -> None:
    thick = replace(GRID, spacing=(1.0, 1.0, 3.0))  # its first axis runs to the right, so that numbers fall
    case = replace(_case(0, Window(0, 100)), grid=thick, first=(4, 0, 2), file_size=(20, 8, 30))
    left, back, up = _stored(_viewer(case), 0)["slices"]
    assert left == {"numbers": list(range(13, 4, -1)), "of": 20} and back["of"] == 8
    assert up == {"numbers": [number for number in range(3, 10) for _ in range(3)], "of": 30}


def test_a_case_without_labels_and_names_like_html_can_be_stored() -> None:
    case = ShownCase(0, GRID, _case(0, Window(0, 100)).images, 0, {})
    html = _viewer(case)
    assert _stored(html, 0)["labels"] == [] and _stored(html, 0)["cut"] == [4, 4, 3]
    assert len(re.findall("</script>", html)) == html.count("<script")


def test_ct_keeps_the_usual_windows() -> None:
    (image,) = _stored(_viewer(_case(0, ct_window("brain"))), 0)["images"]
    assert (image["low"], image["high"]) == (-160, 240)
    assert [one["text"] for one in image["windows"]] == [
        "level 40, width 80 HU (brain)", "level 40, width 400 HU (soft tissue)"
    ]  # fmt: skip


def test_the_limit_leaves_cases_out_and_says_so() -> None:
    read: list[int] = []

    def cases():
        for number in range(50):
            read.append(number)
            yield stored_case(_case(number, Window(0, 100)))

    html = viewer(cases(), {}, [str(number) for number in range(60)], ViewerLimits(50, 0.005))
    count = html.count('id="volumes-')
    assert 0 < count < 5 and len(read) == count + 1  # the rest was not even read
    assert f"volumes of {count} of 60 cases; more with --viewer-cases and --viewer-mb" in html


@pytest.mark.parametrize("limit", [["--viewer-mb", "nan"], ["--viewer-mb", "-3"], ["--viewer-cases", "-1"]])
def test_impossible_limits_are_refused_before_anything_is_read(
    limit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [
        ["convert", "brats2021", str(tmp_path), "-d", "7"],
        ["report", str(tmp_path), "-o", str(tmp_path / "r.html")],
    ]
    commands += [["explain", "-i", str(tmp_path), "-m", str(tmp_path), "-o", str(tmp_path / "out"), "--device", "cpu"]]
    for command in commands[: 3 if limit[0] == "--viewer-mb" else 2]:
        assert cli.main([*command, *limit]) == 2
        assert "invalid limits of the viewer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
