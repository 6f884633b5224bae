"""A viewer of complete cases inside a page: three planes, all channels, labels, and maps over the image.

Each case is an element with JSON, read when the case is opened. Volumes are cropped, 8 bits deep, coded as differences
of neighbours, deflated and in base64; the browser unpacks them with its own DecompressionStream. A click on any element
of the page with ``data-view="NUMBER"`` opens that case; ``data-map="NAME"`` chooses the map that is shown first.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from factorizer_nnunet.imaging.display_grid import display_grid, largest_slices, to_uint8
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.planes import PLANES, slice_position
from factorizer_nnunet.imaging.window import Window, ct_window
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.pages.markup import embedded_json, note, text_of
from factorizer_nnunet.pages.palette import AGREEMENT, FALSE_NEGATIVE, FALSE_POSITIVE, FILL, line_of

_LARGEST_SIDE = 128  # voxels: a brain at 1.4 mm
_BRIGHTER = 1.5  # of other images than CT, values up to this multiple of the window are stored


@dataclass(frozen=True)
class ShownImage:
    """A channel of a case."""

    name: str
    values: np.ndarray  # (x, y, z)
    window: Window


@dataclass(frozen=True)
class ShownMap:
    """Values to colour an image with, from 0."""

    name: str
    volume: np.ndarray  # uint8 (left, back, up), on a display grid of the case's grid, however coarse
    high: str  # what 255 stands for, with its unit


@dataclass(frozen=True)
class ShownCase:
    """A case to look at: all volumes are on its grid."""

    number: int  # in the page's list of all cases
    grid: Grid
    images: Sequence[ShownImage]
    start: int  # the image shown first
    segmentations: Mapping[str, np.ndarray]  # by title, the reference first; values from 0 to 255
    oriented: bool = True  # False: the files do not say where the patient's sides are
    maps: Sequence[ShownMap] = ()
    first: tuple[int, ...] = (0, 0, 0)  # voxel of the image file that is the first one of the grid
    file_size: tuple[int, ...] | None = None  # of the image file, (x, y, z); None is that of the grid


def stored_case(case: ShownCase) -> str:
    """The element of a page that stores a case."""
    return f'<script type="application/json" id="volumes-{case.number}">{embedded_json(_packed(case))}</script>'


def viewer(
    stored: Iterable[str],
    regions: Mapping[str, Sequence[int]],
    names: Sequence[str],
    limits: ViewerLimits,
    map_colours: Sequence[Sequence[int]] = (),
) -> str:
    """The viewer as HTML, with as many of the cases as `limits` allow; it needs `viewer_script` in the page.

    Args:
        stored: from `stored_case`, in the order of their importance; made one after the other.
        regions: label values by name.
        names: of all cases on the page, in the order of their numbers; those not stored are mentioned.
        limits: of the volumes; cases that do not fit are left out.
        map_colours: of maps, red, green and blue for each of their 256 values.
    """
    elements: list[str] = []
    left = int(limits.mb * 1e6)
    for element in islice(stored, limits.cases):
        if len(element) > left:
            break
        left -= len(element)
        elements.append(element)
    settings = {
        "sides": {plane.across: plane.sides for plane in PLANES.values()},
        "planes": {plane.across: plane.name for plane in PLANES.values()},
        "regions": [
            {"name": name, "values": list(values), "colour": line_of(n).colour, "dash": line_of(n).dash}
            for n, (name, values) in enumerate(regions.items())
        ],
        "errors": {"positive": FALSE_POSITIVE, "negative": FALSE_NEGATIVE, "agreement": AGREEMENT},
        "fill": FILL,
        "mapColours": map_colours,
    }
    sentence = f"The viewer has the volumes of {len(elements)} of {len(names)} cases"
    lead = note(text_of(f"{sentence}; more with --viewer-cases and --viewer-mb."))
    return (
        f"{lead if len(elements) < len(names) else ''}{_DIALOG}"
        f'<script type="application/json" id="viewer-names">{embedded_json(list(names))}</script>'
        f'<script type="application/json" id="viewer-settings">{embedded_json(settings)}</script>{"".join(elements)}'
    )


_DIALOG = """<dialog id="viewer" tabindex="-1" aria-labelledby="viewer-title"><form method="dialog">
<h2 id="viewer-title"></h2><button type="button" data-go="-1">← previous</button>
<button type="button" data-go="1">next →</button><button>close</button></form>
<div class="viewer-controls"><label>channel <select id="viewer-channel"></select></label>
<label>show <select id="viewer-show"></select></label>
<label>errors in <select id="viewer-region"></select></label>
<label>map <select id="viewer-map"></select></label>
<label>map opacity <input id="viewer-opacity" type="range" min="0" max="100" value="70"></label>
<label>window <select id="viewer-window"></select></label>
<label>level <input id="viewer-level" type="number" step="any"></label>
<label>width <input id="viewer-width" type="number" step="any" min="0"></label></div>
<div id="viewer-planes"></div><p id="viewer-legend" class="legend"></p>
<p class="soft">Wheel or ↑ ↓: slice; Page Up and Down: ten slices; click: the other planes go there; 1 2 3: plane;
c: channel; v: what is shown; m: map, if there are any; n, p: next and previous case; Esc: close.</p></dialog>"""


def _packed(case: ShownCase) -> dict[str, Any]:
    grid = display_grid(case.grid, _LARGEST_SIDE)
    labels = {title: grid.resample(values).astype(np.uint8) for title, values in case.segmentations.items()}
    filled = np.logical_or.reduce([np.zeros(grid.size, bool), *(values != 0 for values in labels.values())])
    positions = {
        plane.across: [
            slice_position(plane, case.grid, float(n)) if case.oriented else "" for n in grid.indices[plane.across]
        ]
        for plane in PLANES.values()
    }
    return {
        "size": grid.size,
        "cut": largest_slices(filled),
        "slices": [_slices(case, axis, index) for axis, index in zip(grid.axes, grid.indices, strict=True)],
        "positions": positions,
        "oriented": case.oriented,
        "start": case.start,
        "images": [_image(one, grid.resample(one.values)) for one in case.images],
        "labels": [{"name": title, "data": _deflated(values)} for title, values in labels.items()],
        "maps": [
            {"name": one.name, "size": one.volume.shape, "high": one.high, "data": _deflated(one.volume)}
            for one in case.maps
        ],
    }


def _slices(case: ShownCase, axis: int, index: np.ndarray) -> dict[str, Any]:
    """Numbers that the shown slices have in the file, counted from 1 as in other viewers, and how many it has."""
    size = case.grid.size if case.file_size is None else case.file_size
    return {"numbers": (index + case.first[axis] + 1).tolist(), "of": size[axis]}


def _image(image: ShownImage, values: np.ndarray) -> dict[str, Any]:
    """A channel with the range of values that 0 to 255 stand for, and the windows to choose from."""
    window = image.window
    windows = [window]
    if window.organ:
        windows += [ct_window(organ) for organ in ("brain", "soft tissue") if organ != window.organ]
        low, high = min(one.low for one in windows), max(one.high for one in windows)
    else:
        low, high = window.low, window.low + _BRIGHTER * (window.high - window.low)
        windows.append(Window(low, high))
    return {
        "name": image.name,
        "low": low,
        "high": high,
        "windows": [{"low": one.low, "high": one.high, "text": one.text} for one in windows],
        "data": _deflated(to_uint8(values, low, high)),
    }


def _deflated(volume: np.ndarray) -> str:
    """A volume (left, back, up) as text: the first axis fastest, each value less the one before it."""
    flat = volume.ravel(order="F")
    differences = np.diff(flat, prepend=np.uint8(0))  # modulo 256
    return base64.b64encode(zlib.compress(differences.tobytes(), 6)).decode("ascii")
