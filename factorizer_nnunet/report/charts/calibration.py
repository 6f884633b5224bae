"""Reliability diagrams (DeGroot and Fienberg, 1983), and estimated against true Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from factorizer_nnunet.calibration.calibration_file import CalibrationCase, OutputCalibration
from factorizer_nnunet.calibration.logit_scaling import Reliability
from factorizer_nnunet.report.charts.axes import Figure, Scale, mark, model_class

_AFTER, _BEFORE = 0, 1  # colours


def reliability_svg(name: str, found: OutputCalibration) -> str:
    """Frequency against probability, before and after calibration."""
    figure, x, y = _square("probability", "frequency")
    for place, what, one in ((_BEFORE, "before", found.before), (_AFTER, "after", found.after)):
        points = list(_points(one))
        line = " ".join(f"{x(p):.1f},{y(share):.1f}" for p, share, _ in points)
        figure.add(f'<polyline class="mean {model_class(place)}" points="{line}"/>')
        for p, share, count in points:
            tip = f"{what}: probability {p:.2f}, frequency {share:.2f}, {count:.0f} voxels"
            figure.add(mark(x(p), y(share), place, None, tip, kind="p", radius=3.5))
    return figure.svg(
        f"Reliability of {name}: expected calibration error {found.before.ece:.3f} before and {found.after.ece:.3f} "
        "after calibration."
    )


def estimates_svg(region: str, cases: Sequence[CalibrationCase], case_numbers: Mapping[str, int]) -> str:
    """True against estimated Dice of out-of-fold cases."""
    figure, x, y = _square("estimated Dice", "Dice")
    for one in cases:
        tip = f"{region}: estimated {one.estimate:.2f}, true {one.dice:.2f}, fold {one.fold}"
        figure.add(mark(x(one.estimate), y(one.dice), _AFTER, case_numbers.get(one.case), tip))
    return figure.svg(f"Estimated and true Dice of {region} in {len(cases)} out-of-fold cases.")


def _square(x_title: str, y_title: str) -> tuple[Figure, Scale, Scale]:
    """Axes from 0 to 1 with the line on which both are equal."""
    figure = Figure(width=330, height=310, top=24)
    x, y = Scale(0, 1, figure.left, figure.edge), Scale(0, 1, figure.base, figure.top)
    figure.y_axis(y, y_title)
    figure.x_axis(x, x_title)
    figure.line(x(0), y(0), x(1), y(1), "zero")
    return figure, x, y


def _points(one: Reliability) -> list[tuple[float, float, float]]:
    bins = zip(one.probabilities, one.frequencies, one.counts, strict=True)
    return [(p, share, count) for p, share, count in bins if count]
