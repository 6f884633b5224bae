"""Everything found out about a release on disk before writing: the cases to convert, and the problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.core.worker_pool import map_unordered
from factorizer_nnunet.dataset_conversion.cases import Problem
from factorizer_nnunet.dataset_conversion.check import Examined, examine
from factorizer_nnunet.dataset_conversion.discover import SourceListing, find_cases
from factorizer_nnunet.dataset_conversion.options import Options
from factorizer_nnunet.dataset_conversion.spec import Channel, LabelScheme, Release
from factorizer_nnunet.imaging.checks import unexpected_labels_problem
from factorizer_nnunet.nnunet.names import CHANNEL_DROP, TRAINER

_MIN_CASES_FOR_TELLTALE = 5


@dataclass(frozen=True)
class Survey:
    """What a conversion would write, and the problems of the other cases."""

    release: Release
    channels: tuple[Channel, ...]
    scheme: LabelScheme
    kept: tuple[Examined, ...]
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    hints: tuple[str, ...]  # how the problems might be fixed
    warnings: tuple[str, ...]  # about the complete set

    @property
    def training(self) -> list[Examined]:
        """The labelled cases."""
        return [examined for examined in self.kept if examined.case.label is not None]


def survey_release(release: Release, listing: SourceListing, options: Options) -> Survey:
    """Find and read all cases of ``release`` among the listed files, and choose how labels are written.

    Raises:
        UserError: invalid options.
    """
    channels = release.chosen_channels(options.channels)
    if all(channel.own_grid for channel in channels):
        others = ", ".join(channel.name for channel in release.channels if not channel.own_grid)
        raise UserError(f"--channels {' '.join(c.name for c in channels)} defines no grid: add one of {others}")
    found = find_cases(release, listing, channels, options.allow_missing)
    cases = [replace(case, patient=options.patient_of(case.name) or case.patient) for case in found.cases]
    reading = partial(examine, release, channels, options)
    examined = sorted(map_unordered(reading, cases, options.jobs, "checking"), key=lambda e: e.case.name)
    scheme = _scheme(release, examined)
    problems = [*found.problems, *(p for e in examined for p in e.problems)]
    for e in examined:
        if e.label is not None and e.case.label is not None:
            text = unexpected_labels_problem(e.label.counts, scheme.labels.to_nnunet.keys(), release.title)
            problems += [Problem(e.case.name, e.case.label, text)] if text else []
    bad = {problem.case for problem in problems}
    kept = tuple(e for e in examined if e.case.name not in bad)
    return Survey(
        release,
        channels,
        scheme,
        kept,
        tuple(problems),
        (*found.notes, *(note for e in kept for note in e.notes)),
        tuple(_hints(release, scheme, examined, found.lacking)),
        tuple(_warnings(release, examined, kept, options)),
    )


def refuse_problems(survey: Survey, listing: SourceListing, options: Options) -> None:
    """Raise if the set must not be written.

    Raises:
        UserError: there are problems that are not to be skipped, or no cases.
    """
    release, where = survey.release, ", ".join(map(str, listing.sources))
    problems = "\n".join([*survey.hints, *(f"  {problem}" for problem in survey.problems)])
    count = count_of(len(survey.problems), "problem")
    if survey.problems and not options.skip_invalid:
        # Where no labelled case is left, the problem is not that of some cases.
        skip = " (--skip-invalid leaves these cases out)" if survey.training else ""
        raise UserError(f"{count} in {where}, nothing was written{skip}:\n{problems}")
    if not survey.kept:
        if survey.problems:
            raise UserError(f"no case of {release.title} in {where} is valid, {count}:\n{problems}")
        raise UserError(f"no case of {release.title} below {where}: expected files like {release.example}")
    labelled = [examined.case.name for examined in survey.training]
    if labelled and options.patients is not None and not any(map(options.patient_of, labelled)):
        raise UserError(
            f"the list of --patients has none of the {count_of(len(labelled), 'labelled case')}: it names "
            f"{first_few(list(options.patients))}, the cases are {first_few(labelled)}. Correct its column case"
        )
    cases = [examined.case for examined in survey.training or survey.kept]
    useless = [number for number in cases[0].absent if all(number in case.absent for case in cases)]
    if useless:
        kept = " ".join(channel.name for number, channel in enumerate(survey.channels) if number not in useless)
        name = survey.channels[useless[0]].name
        raise UserError(f"{name} is missing in every case in {where}: leave it out with --channels {kept}")


def _scheme(release: Release, examined: Sequence[Examined]) -> LabelScheme:
    """The scheme that leaves the fewest cases with unknown values; the first in case of a tie."""

    def misfits(scheme: LabelScheme) -> int:
        labels = [e.label for e in examined if e.label is not None]
        return sum(any(value not in scheme.labels.to_nnunet for value in label.counts) for label in labels)

    return min(release.schemes, key=misfits)


def _hints(release: Release, scheme: LabelScheme, examined: Sequence[Examined], lacking: int) -> Iterator[str]:
    """What may help with missing images and unexpected label values.

    Such values come from another release if most cases have them, otherwise from mistakes.
    """
    if lacking:
        yield f"--allow-missing keeps cases that lack channels, for trainers such as {TRAINER}{CHANNEL_DROP}"
    labels = [set(e.label.counts) for e in examined if e.label is not None]
    unexpected = [values for values in labels if values - {*scheme.labels.to_nnunet}]
    if not unexpected:
        return
    if release.values_hint:
        yield release.values_hint
    elif 2 * len(unexpected) > len(labels):
        yield f"Most labels have values that {release.title} does not have: is it another release?"
    else:
        yield "Replace label values that are known mistakes with --remap CASE:OLD=NEW"


def _warnings(
    release: Release, examined: Sequence[Examined], kept: Sequence[Examined], options: Options
) -> Iterator[str]:
    labels = [e.label for e in kept if e.label is not None]
    if release.telltale is not None and len(labels) >= _MIN_CASES_FOR_TELLTALE:
        value, why = release.telltale
        if not any(label.counts.get(value) for label in labels):
            yield f"no label has the value {value}: {why}"
    if kept and not any(e.label is not None for e in examined):
        yield "no case has a label: this set can be used for prediction, but not for planning or training"
    if release.patients_hidden and options.patients is None and labels:
        yield release.patients_hidden
    if options.patients is not None:
        missing = [e.case.name for e in kept if e.label is not None and options.patient_of(e.case.name) is None]
        if missing:
            count = count_of(len(missing), "case")
            yield f"{count} not in the list of patients, each treated as a separate patient: {first_few(missing)}"
    yield from options.unknown_cases(e.case.name for e in examined)
