"""Tune the postprocessing of a model on predictions of cases that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from factorizer_nnunet import __version__
from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.file_stamps import stamp_of, stamp_of_value
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.core.set_aside import OUTDATED, set_aside
from factorizer_nnunet.core.wording import count_of, first_few
from factorizer_nnunet.evaluation.regions import regions_of
from factorizer_nnunet.evaluation.schemes import scheme_named
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL, ModelFolder
from factorizer_nnunet.nnunet.probabilities_file import PROBABILITIES_ENDING, regions_of_outputs
from factorizer_nnunet.postprocessing.rule_file import check_not_edited, write_postprocessing
from factorizer_nnunet.postprocessing.rules import Postprocessing
from factorizer_nnunet.report import Sources
from factorizer_nnunet.report.own_pages import page_file, write_page
from factorizer_nnunet.report.results import CROSS_VALIDATION, Result, read_results, references_elsewhere
from factorizer_nnunet.report.statistics import estimate
from factorizer_nnunet.tuning.candidate_rules import MAX_OUTPUTS
from factorizer_nnunet.tuning.nested_choice import MIN_GROUPS
from factorizer_nnunet.tuning.rule_case import SCORE, CaseValues, Objective, TunedCase
from factorizer_nnunet.tuning.rule_findings import MetricChange, RuleTuningOutcome
from factorizer_nnunet.tuning.rule_search import MIN_CASES, RuleSearch, column
from factorizer_nnunet.tuning.rules_page import rules_page

REPORTS = "tune_postprocessing"  # folder next to the models of a data set
PAGE, NUMBERS = "tune_postprocessing.html", "tune_postprocessing.json"


@dataclass(frozen=True, kw_only=True)
class RuleTuningRequest:
    """What to tune.

    Attributes:
        model: folder of a model with validated folds.
        folds: whose validation cases are used; None: all.
        scheme: how the challenge scores, a key of `evaluation.schemes.SCHEMES`.
        sources: where labels are; None uses nnU-Net's folders.
        partial: use the folds and cases that are validated.
        num_processes: number of cases at the same time.
        out: folder of page and numbers; None: ``tune_postprocessing/MODEL`` next to the model.
        ignore_geometry: compare files of the same shape wherever their voxels lie.
    """

    model: Path
    folds: tuple[str, ...] | None = None
    scheme: str = "none"
    sources: Sources | None = None
    partial: bool = False
    num_processes: int = 1
    out: Path | None = None
    ignore_geometry: bool = False


def reports_folder(model: Path) -> Path:
    """The folder of a model's page and numbers, unless another is named."""
    return model.absolute().parent / REPORTS / model.absolute().name


def tune_rules(request: RuleTuningRequest) -> RuleTuningOutcome:
    """Tune a model; run again after an interruption, it resumes.

    Raises:
        UserError: predictions or labels cannot be read or are not of a cross-validation, or an edited file of
            rules exists; the model is as before.
    """
    model = ModelFolder(request.model)
    check_not_edited(model.postprocessing_file)
    result = _result(request)
    cases, warnings = _cases(request, result)
    checkpoints = _checkpoints(model, cases)
    objective = Objective(
        result.dataset, regions_of(result.dataset, scheme_named(request.scheme)), request.ignore_geometry
    )
    thresholds = _has_thresholds(cases, result, warnings)
    out = request.out or reports_folder(request.model)
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / ".lock", f"another tune-postprocessing is writing {out}; wait until it ends"):
        page = page_file(out / PAGE)
        search = RuleSearch(cases, objective, thresholds, out / "scores", request.num_processes)
        findings, before, after = search.run()
        kept = {name: one.rule for name, one in findings.items() if one.kept}
        rules = Postprocessing(kept, result.dataset) if kept else None
        changes = _changes(before, after, objective)
        outcome = RuleTuningOutcome(
            regions=findings,
            changes=changes,
            num_cases=len(cases),
            num_groups=len(set(search.groups)),
            with_thresholds=thresholds,
            rules=rules,
            page=page,
            numbers=out / NUMBERS,
            written=model.postprocessing_file if rules else None,
            warnings=tuple(warnings),
        )
        content = _numbers(outcome, request, cases)
        lines = _write(model, outcome, checkpoints, content)
        outcome = replace(outcome, warnings=(*outcome.warnings, *lines))
        write_page(page, rules_page(result, outcome, objective))
        write_text_atomically(outcome.numbers, json.dumps(content, indent=4) + "\n")  # last: then all is complete
        return outcome


def _write(
    model: ModelFolder, outcome: RuleTuningOutcome, checkpoints: Mapping[str, str], content: Mapping
) -> Iterator[str]:
    """Write the rules, or set aside those of an earlier tuning; yields lines for the user."""
    file = model.postprocessing_file
    if outcome.rules is not None:
        write_postprocessing(file, outcome.rules, checkpoints, {"tuned": content["tuned"]})
    elif file.exists():
        check_not_edited(file)
        yield f"the rules of an earlier tuning are kept as {set_aside(file, OUTDATED)} and no longer used"


def _result(request: RuleTuningRequest) -> Result:
    partial_folds = request.partial or request.folds is not None
    result = read_results([request.model], request.sources or Sources(), None, partial_folds)[0]
    if result.kind != CROSS_VALIDATION or result.model is None or not all(case.fold for case in result.cases):
        raise UserError(
            f"{request.model}: postprocessing is tuned on predictions of cases that were not trained on. Name a model "
            "folder with validated folds"
        )
    return result


def _cases(request: RuleTuningRequest, result: Result) -> tuple[list[TunedCase], list[str]]:
    wanted = result.folds if request.folds is None else request.folds
    if missing := [fold for fold in wanted if fold not in result.folds]:
        raise UserError(
            f"{request.model}: fold {', '.join(missing)} has no finished validation; name validated ones with -f "
            f"({', '.join(result.folds)}), or validate it with nnUNetv2_train … --val"
        )
    used = [one for one in result.cases if one.fold in wanted]
    cases = []
    for one in used:
        assert one.fold is not None  # it is in ``wanted``
        file = one.prediction.with_name(f"{one.name}{PROBABILITIES_ENDING}")
        cases.append(TunedCase(one.name, one.fold, one.reference, one.prediction, file if file.is_file() else None))
    if len(cases) < MIN_GROUPS:
        raise UserError(
            f"{request.model}: rules cannot be chosen on {count_of(len(cases), 'case')}. Validate more folds"
        )
    # With -f, other folds are left out on purpose: nothing needs to be said of them.
    warnings = list(result.warnings) if request.folds is None else references_elsewhere(used)
    if len(cases) < MIN_CASES:
        warnings.append(
            f"{len(cases)} cases are too few to tell a gain from noise, so no rule is used; that takes {MIN_CASES}"
        )
    return cases, warnings


def _checkpoints(model: ModelFolder, cases: Sequence[TunedCase]) -> dict[str, str]:
    """SHA-256 of the checkpoints of all folds with numbers, which must exist for those that predicted the cases."""
    files = {fold: model.fold(fold).checkpoint() for fold in sorted({case.fold for case in cases})}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise UserError(
            f"{first_few(missing)} does not exist: rules belong to the checkpoints that predicted. Restore the file, "
            "or name other folds with -f"
        )
    files |= {fold.name: fold.checkpoint() for fold in model.numbered_folds(CHECKPOINT_FINAL)}
    return {fold: stamp_of(file).sha256 for fold, file in sorted(files.items())}


def _has_thresholds(cases: Sequence[TunedCase], result: Result, warnings: list[str]) -> bool:
    unknown = [case.name for case in cases if case.probabilities is None]
    if unknown:
        warnings.append(
            f"thresholds are not tuned: {len(unknown)} of {len(cases)} cases have no probabilities "
            f"({first_few(unknown, 3)}). nnUNetv2_train DATASET CONFIGURATION FOLD … --val --npz writes them"
        )
    elif max(regions_of_outputs(result.dataset)) >= MAX_OUTPUTS:
        warnings.append(f"thresholds are not tuned: the probabilities of more than {MAX_OUTPUTS} classes are too many")
    else:
        return True
    return False


def _changes(
    before: Sequence[CaseValues], after: Sequence[CaseValues], objective: Objective
) -> dict[str, dict[str, MetricChange]]:
    return {
        region: {
            metric: MetricChange(
                before=estimate(column(before, region, metric)),
                after=estimate(column(after, region, metric)),
                change=estimate(column(after, region, metric) - column(before, region, metric)),
            )
            for metric in (SCORE, *objective.metrics)
        }
        for region in objective.regions.labels
    }


def _numbers(outcome: RuleTuningOutcome, request: RuleTuningRequest, cases: Sequence[TunedCase]) -> dict:
    """The content of the file of numbers."""
    predictions = {case.name: stamp_of(case.prediction).sha256 for case in cases}
    return {
        "tuned": {
            "factorizer_nnunet": __version__,
            "scheme": request.scheme,
            "cases": len(cases),
            "folds": sorted({case.fold for case in cases}),
            "thresholds": outcome.with_thresholds,
            "predictions_sha256": stamp_of_value(predictions).sha256,
        },
        "regions": {
            name: {**asdict(one), "rule": asdict(one.rule), "gain": asdict(one.gain)}
            for name, one in outcome.regions.items()
        },
        "held_out": {
            region: {metric: asdict(change) for metric, change in changes.items()}
            for region, changes in outcome.changes.items()
        },
    }
