"""A viewer of complete cases inside a page: three planes, all channels, reference and predictions.

Each case is an element with JSON, read when the case is opened. Volumes are cropped, 8 bits deep, coded as differences
of neighbours, deflated and in base64; the browser unpacks them with its own DecompressionStream.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from factorizer_nnunet.imaging.display_grid import display_grid, largest_slices, to_uint8
from factorizer_nnunet.imaging.grid import Grid
from factorizer_nnunet.imaging.planes import PLANES, slice_position
from factorizer_nnunet.imaging.window import Window, ct_window
from factorizer_nnunet.pages.markup import embedded_json, note, text_of
from factorizer_nnunet.pages.palette import AGREEMENT, COLOURS, DASHES, FALSE_NEGATIVE, FALSE_POSITIVE, FILL

_LARGEST_SIDE = 128  # voxels: a brain at 1.4 mm
_BRIGHTER = 1.5  # of other images than CT, values up to this multiple of the window are stored


@dataclass(frozen=True)
class ShownImage:
    """A channel of a case."""

    name: str
    values: np.ndarray  # (x, y, z)
    window: Window


@dataclass(frozen=True)
class ShownCase:
    """A case to look at: all volumes are on its grid."""

    number: int  # in the page's list of all cases
    name: str
    grid: Grid
    images: Sequence[ShownImage]
    start: int  # the image shown first
    segmentations: Mapping[str, np.ndarray]  # by title, the reference first; values from 0 to 255
    oriented: bool = True  # False: the files do not say where the patient's sides are


def viewer(cases: Iterable[ShownCase], regions: Mapping[str, Sequence[int]], count: int, limit_mb: float) -> str:
    """The viewer as HTML, with as many of the cases as `limit_mb` MB allow.

    Args:
        cases: in the order of their importance; they are read one after the other.
        regions: label values by name.
        count: of all cases on the page, of which those not stored are mentioned.
        limit_mb: limit of all volumes together; cases that do not fit are left out.
    """
    elements: list[str] = []
    left = int(limit_mb * 1e6)
    for case in cases:
        element = f'<script type="application/json" id="volumes-{case.number}">{embedded_json(_packed(case))}</script>'
        if len(element) > left:
            break
        left -= len(element)
        elements.append(element)
    settings = {
        "sides": {plane.across: plane.sides for plane in PLANES.values()},
        "planes": {plane.across: name for name, plane in PLANES.items()},
        "regions": [
            {"name": name, "values": list(values), "colour": COLOURS[n % len(COLOURS)], "dash": DASHES[n % len(DASHES)]}
            for n, (name, values) in enumerate(regions.items())
        ],
        "errors": {"positive": FALSE_POSITIVE, "negative": FALSE_NEGATIVE, "agreement": AGREEMENT},
        "fill": FILL,
    }
    stored = f"The viewer has the volumes of {len(elements)} of {count} cases"
    why = "" if len(elements) == count else "; more with --viewer-cases and --viewer-mb"
    return (
        f"{note(text_of(stored + why + '.'))}{_DIALOG}"
        f'<script type="application/json" id="viewer-settings">{embedded_json(settings)}</script>{"".join(elements)}'
    )


_DIALOG = """<dialog id="viewer" tabindex="-1" aria-labelledby="viewer-title"><form method="dialog">
<h3 id="viewer-title"></h3><button type="button" data-go="-1">← previous</button>
<button type="button" data-go="1">next →</button><button>close</button></form>
<div class="viewer-controls"><label>channel <select id="viewer-channel"></select></label>
<label>show <select id="viewer-show"></select></label>
<label>errors in <select id="viewer-region"></select></label>
<label>window <select id="viewer-window"></select></label>
<label>level <input id="viewer-level" type="number" step="any"></label>
<label>width <input id="viewer-width" type="number" step="any" min="0"></label></div>
<div id="viewer-planes"></div><p id="viewer-legend" class="legend"></p>
<p class="soft">Wheel or ↑ ↓: slice; Page Up and Down: ten slices; click: the other planes go there; 1 2 3: plane;
c: channel; v: what is shown; n, p: next and previous case; Esc: close.</p></dialog>"""


def _packed(case: ShownCase) -> dict[str, Any]:
    grid = display_grid(case.grid, _LARGEST_SIDE)
    labels = {title: grid.resample(values).astype(np.uint8) for title, values in case.segmentations.items()}
    filled = np.logical_or.reduce([values != 0 for values in labels.values()])
    positions = {
        axis: [slice_position(plane, case.grid, float(n)) if case.oriented else "" for n in grid.indices[axis]]
        for axis, plane in ((plane.across, plane) for plane in PLANES.values())
    }
    return {
        "size": grid.size,
        "cut": largest_slices(filled),
        "positions": positions,
        "oriented": case.oriented,
        "start": case.start,
        "images": [_image(one, grid.resample(one.values)) for one in case.images],
        "labels": [{"name": title, "data": _deflated(values)} for title, values in labels.items()],
    }


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
