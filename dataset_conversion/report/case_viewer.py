"""The converted cases that can be opened from the report's pictures and its table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.dataset_conversion.cases import SourceCase
from factorizer_nnunet.dataset_conversion.check import display_channel
from factorizer_nnunet.dataset_conversion.report.facts import Conversion, Facts
from factorizer_nnunet.dataset_conversion.spec import Channel, Release
from factorizer_nnunet.imaging.content import content_box
from factorizer_nnunet.imaging.grid import cropped
from factorizer_nnunet.imaging.volume import read_volume
from factorizer_nnunet.imaging.window import window_of
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.pages.viewer import ShownCase, ShownImage, stored_case, viewer


def case_viewer(folder: Path, conversion: Conversion, facts: Facts) -> str:
    """The viewer as HTML, with the outliers first, then the other cases in order; reads the files just written."""
    options, survey = conversion.options, conversion.survey
    limits = ViewerLimits(options.viewer_cases, options.viewer_mb)
    names = list(facts["cases"])
    by_importance = sorted(names, key=lambda name: not facts["cases"][name]["outliers"])
    sources = {e.case.name: e.case for e in survey.kept}
    chosen = [(names.index(name), sources[name]) for name in by_importance[: limits.cases]]
    storing = partial(_stored, folder, survey.release, survey.channels)
    regions = {region: list(values) for region, values in survey.scheme.regions.items()}
    return viewer(_in_order(storing, chosen, options.jobs), regions, names, limits)


def _in_order(storing: partial[tuple[int, str]], chosen: Sequence[tuple[int, SourceCase]], jobs: int) -> Iterator[str]:
    made = dict(map_unordered(storing, chosen, jobs, "images of the report"))
    return (made[number] for number, _ in chosen)


def _stored(
    folder: Path, release: Release, channels: Sequence[Channel], numbered: tuple[int, SourceCase]
) -> tuple[int, str]:
    """Number and element of a case, with the channels that it has; runs in worker processes."""
    number, case = numbered
    present = [place for place in range(len(channels)) if place not in case.absent]
    images = {place: read_volume(folder / case.image_file(place)) for place in present}
    labels = {} if case.label is None else {"label": read_volume(folder / case.label_file).values}
    box = content_box([image.values for image in images.values()], list(labels.values()))
    labelled = labels["label"] > 0 if labels else None
    return number, stored_case(
        ShownCase(
            number,
            cropped(images[present[0]].grid, box),
            [
                ShownImage(
                    channels[place].name,
                    image.values[box],
                    window_of(image.values, channels[place].written_name, labelled),
                )
                for place, image in images.items()
            ],
            present.index(display_channel(release, channels, case.absent)),
            {title: values[box] for title, values in labels.items()},
            first=tuple(part.start for part in box),
            file_size=images[present[0]].grid.size,
        )
    )
