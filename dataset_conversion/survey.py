"""All that is known of a release on disk before anything is written: what would be converted, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.dataset_conversion.cases import Case, Problem
from factorizer_nnunet.dataset_conversion.check import Examined, examine
from factorizer_nnunet.dataset_conversion.discover import Listing, find_cases
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.spec import Channel, Release, Scheme

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
    hints: tuple[str, ...]  # what may mend the problems
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
    examined = sorted(map_unordered(reading, cases, options.jobs, "checking"), key=lambda e: e.case.name)
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
        tuple(_hints(release, scheme, examined)),
        tuple(_warnings(release, examined, kept, options)),
    )


def refuse_problems(survey: Survey, listing: Listing, options: Options) -> None:
    """Raise what keeps the set from being written.

    Raises:
        UserError: problems, unless they are to be skipped, or no case.
    """
    release, where = survey.release, ", ".join(map(str, listing.sources))
    problems = "\n".join([*(f"  {problem}" for problem in survey.problems), *survey.hints])
    count = count_of(len(survey.problems), "problem")
    if survey.problems and not options.skip_invalid:
        raise UserError(f"{count} in {where}, nothing was written (--skip-invalid leaves these cases out):\n{problems}")
    if not survey.kept:
        if survey.problems:
            raise UserError(f"no case of {release.title} in {where} is whole, {count}:\n{problems}")
        raise UserError(f"no case of {release.title} below {where}: expected files like {release.example}")


def _examine(release: Release, channels: Sequence[Channel], options: Options, case: Case) -> Examined:
    return examine(release, channels, case, options.remap_of(case.name))


def _with_patient(case: Case, options: Options) -> Case:
    return replace(case, patient=options.patient_of(case.name) or case.patient)


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
    text = f"unexpected label values {values}; {release.title} has {sorted(scheme.labels.to_nnunet)}"
    return [Problem(examined.case.name, examined.case.label, text)]


def _hints(release: Release, scheme: Scheme, examined: Sequence[Examined]) -> Iterator[str]:
    """What may be behind unexpected label values: another release where most cases have them, mistakes otherwise."""
    labels = [set(e.label.counts) for e in examined if e.label is not None]
    known = {*scheme.labels.to_nnunet}
    odd = [values for values in labels if values - known]
    if not odd:
        return
    if release.values_hint:
        yield release.values_hint
    elif 2 * len(odd) > len(labels):
        yield f"Most labels have values that {release.title} does not know: is it another release?"
    else:
        yield "Label values that are known to be mistakes are replaced with --remap CASE:OLD=NEW"


def _warnings(
    release: Release, examined: Sequence[Examined], kept: Sequence[Examined], options: Options
) -> Iterator[str]:
    labels = [e.label for e in kept if e.label is not None]
    if release.telltale is not None and len(labels) >= _MIN_CASES_FOR_TELLTALE:
        value, why = release.telltale
        if not any(label.counts.get(value) for label in labels):
            yield f"no label has the value {value}: {why}"
    if kept and not labels:
        yield "no case has a label: the images can be predicted, but nothing can be planned or trained with this set"
    if release.patients_hidden and options.patients is None and labels:
        yield release.patients_hidden
    if options.patients is not None:
        missing = [e.case.name for e in kept if e.label is not None and options.patient_of(e.case.name) is None]
        if missing:
            count = count_of(len(missing), "case")
            yield f"{count} not in the list of patients, each taken as a patient: {first_few(missing)}"
    yield from options.unknown_cases(e.case.name for e in examined)
