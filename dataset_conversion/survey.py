"""All that is known of a release on disk before anything is written: what would be converted, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from factorizer_nnunet.dataset_conversion.cases import Case, Problem
from factorizer_nnunet.dataset_conversion.check import Examined, examine
from factorizer_nnunet.dataset_conversion.discover import Listing, find_cases
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.pool import in_processes
from factorizer_nnunet.dataset_conversion.spec import Channel, Release, Scheme
from factorizer_nnunet.errors import UserError

_MIN_CASES_FOR_TELLTALE = 5


@dataclass(frozen=True)
class Survey:
    """What a conversion would write, and what is wrong with the rest; nothing has been written."""

    release: Release
    channels: tuple[Channel, ...]
    scheme: Scheme
    kept: tuple[Examined, ...]
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    warnings: tuple[str, ...]  # about the whole set

    @property
    def training(self) -> list[Examined]:
        """The cases with label."""
        return [examined for examined in self.kept if examined.case.label is not None]


def survey_release(release: Release, listing: Listing, options: Options) -> Survey:
    """Find and read everything of ``release`` among the listed files, and decide how labels are written.

    Raises:
        UserError: bad options.
    """
    channels = release.chosen_channels(options.channels)
    if all(channel.own_grid for channel in channels):
        others = ", ".join(channel.name for channel in release.channels if not channel.own_grid)
        raise UserError(f"--channels {' '.join(c.name for c in channels)} gives no grid: add one of {others}")
    found = find_cases(release, listing, channels)
    cases = [_with_patient(case, options) for case in found.cases]
    reading = partial(_examine, release, channels, options)
    examined = sorted(in_processes(reading, cases, options.jobs, "checking"), key=lambda e: e.case.name)
    scheme = _scheme(release, examined)
    unknown = [problem for e in examined for problem in _unexpected_values(release, scheme, e)]
    problems = [*found.problems, *(p for e in examined for p in e.problems), *unknown]
    bad = {problem.case for problem in problems}
    kept = tuple(e for e in examined if e.case.name not in bad)
    return Survey(
        release,
        channels,
        scheme,
        kept,
        tuple(problems),
        (*found.notes, *(note for e in kept for note in e.notes)),
        tuple(_warnings(release, kept, options)),
    )


def refuse_problems(survey: Survey, listing: Listing, options: Options) -> None:
    """Raise what keeps the set from being written.

    Raises:
        UserError: problems, unless they are to be skipped, or no labelled case.
    """
    release, where = survey.release, ", ".join(map(str, listing.sources))
    if survey.problems and not options.skip_invalid:
        lines = "\n".join(f"  {problem}" for problem in survey.problems)
        raise UserError(
            f"{len(survey.problems)} problems in {where}, nothing was written (--skip-invalid leaves these cases "
            f"out):\n{lines}"
        )
    if not survey.training:
        raise UserError(f"no labelled case of {release.title} below {where}: expected files like {release.example}")


def _examine(release: Release, channels: Sequence[Channel], options: Options, case: Case) -> Examined:
    return examine(release, channels, case, options.remap_of(case.name))


def _with_patient(case: Case, options: Options) -> Case:
    if options.patients is None:
        return case
    return replace(case, patient=options.patients.get(case.name, case.patient))


def _scheme(release: Release, examined: Sequence[Examined]) -> Scheme:
    """The scheme that leaves the fewest cases with values it does not know; the first of equals."""

    def misfits(scheme: Scheme) -> int:
        labels = [e.label for e in examined if e.label is not None]
        return sum(any(value not in scheme.labels.to_nnunet for value in label.counts) for label in labels)

    return min(release.schemes, key=misfits)


def _unexpected_values(release: Release, scheme: Scheme, examined: Examined) -> list[Problem]:
    if examined.label is None or examined.case.label is None:
        return []
    unknown = {v: n for v, n in examined.label.counts.items() if v not in scheme.labels.to_nnunet}
    if not unknown:
        return []
    values = ", ".join(f"{value} ({count} voxels)" for value, count in sorted(unknown.items()))
    text = (
        f"unexpected label values {values}; {release.title} has {sorted(scheme.labels.to_nnunet)}. Is it another "
        f"release? If the values are known to be mistakes: --remap {examined.case.name}:{min(unknown)}=0"
    )
    return [Problem(examined.case.name, examined.case.label, text)]


def _warnings(release: Release, kept: Sequence[Examined], options: Options) -> Iterator[str]:
    labels = [e.label for e in kept if e.label is not None]
    if release.telltale is not None and len(labels) >= _MIN_CASES_FOR_TELLTALE:
        value, why = release.telltale
        if not any(label.counts.get(value) for label in labels):
            yield f"no label has the value {value}: {why}"
    if release.patients_hidden and options.patients is None:
        yield release.patients_hidden
    if options.patients is not None:
        missing = [e.case.name for e in kept if e.case.label is not None and e.case.name not in options.patients]
        if missing:
            yield f"{len(missing)} cases are not in the list of patients and count as patients of their own: " + (
                ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            )
    repeated = [name for name, count in Counter(e.case.patient for e in kept).items() if count > 1]
    if repeated:
        yield f"{len(repeated)} patients have several cases; each patient's cases are in one fold"
