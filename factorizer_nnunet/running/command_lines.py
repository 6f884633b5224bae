"""The commands of each step, word for word as a user would type them; options to resume are added by ``steps``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.nnunet.model_name import ModelName
from factorizer_nnunet.nnunet.names import parse_plans_name, template_of
from factorizer_nnunet.postprocessing import LEAVE_OUT
from factorizer_nnunet.running.best_configuration import BestConfiguration
from factorizer_nnunet.running.inference_files import Target
from factorizer_nnunet.running.settings import Prediction, RunSettings

Command = tuple[str, ...]

# nnU-Net's own plans by name: the planner that makes them.
STOCK_PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}


def fingerprint(settings: RunSettings) -> Command:
    return ("nnUNetv2_extract_fingerprint", "-d", _id(settings), *_processes(settings))


def plan(settings: RunSettings, plans: str) -> Command:
    """Our planner for our names, nnU-Net's for its own; other plans must have been made by the user."""
    target = settings.gpu_memory_target_gb
    if plans in STOCK_PLANNERS:
        memory = [] if target is None else ["-gpu_memory_target", str(target)]
        return ("nnUNetv2_plan_experiment", "-d", _id(settings), "-pl", STOCK_PLANNERS[plans], *memory)
    template = template_of(plans)
    if template is not None:
        options = ["--template", template]
    else:
        size, variant = parse_plans_name(plans) or (None, None)
        options = [] if size is None else ["--size", size]
        options += [] if variant is None else ["--variant", variant]
        options += [] if target is None else ["--gpu-memory-target", str(target)]
    return ("factorizer-nnunet", "plan", "-d", _id(settings), *options, *_processes(settings), "--no-preprocess")


def preprocess(settings: RunSettings, plans: str, configuration: str) -> Command:
    names = ("-plans_name", plans, "-c", configuration)
    return ("nnUNetv2_preprocess", "-d", _id(settings), *names, *_processes(settings))


def train(settings: RunSettings, model: ModelName, fold: int) -> Command:
    options = ["-tr", model.trainer, "-p", model.plans, "-device", settings.device]
    if settings.gpus_per_fold > 1:
        options += ["-num_gpus", str(settings.gpus_per_fold)]
    return ("nnUNetv2_train", _id(settings), model.configuration, str(fold), *options, "--npz")


def channel_subsets(settings: RunSettings, model: ModelName, fold: int) -> Command:
    folder = str(settings.paths.model(model).path)
    return ("factorizer-nnunet", "channel-subsets", "-m", folder, "-f", str(fold), "-device", settings.device)


def find_best(settings: RunSettings) -> Command:
    """nnU-Net's command if it can express these models: every trainer with all plans and all configurations."""
    models = settings.models
    trainers = tuple(dict.fromkeys(model.trainer for model in models))
    configurations = tuple(dict.fromkeys(model.configuration for model in models))
    if len(models) == len(trainers) * len(settings.plans) * len(configurations):
        options = ("-c", *configurations, "-tr", *trainers, "-p", *settings.plans, "-f", *map(str, settings.folds))
        return ("nnUNetv2_find_best_configuration", settings.dataset, *options, *_processes(settings))
    chosen = [
        {"trainer": model.trainer, "plans": model.plans, "configuration": model.configuration} for model in models
    ]
    arguments = f"{settings.dataset!r}, {chosen}, folds={settings.folds}, num_processes={settings.processes}"
    module = "nnunetv2.evaluation.find_best_configuration"
    return ("python", "-c", f"from {module} import find_best_configuration as find; find({arguments})")


def predict(
    settings: RunSettings,
    prediction: Prediction,
    target: Target,
    folds: Sequence[int],
    previous: Sequence[Path],
    postprocessed: bool,
    quality: bool,
) -> Command:
    """Segment the test images with the mean of a target's models and their folds.

    Args:
        previous: low-resolution segmentations, for each model that is a cascade.
        postprocessed: whether rules next to the model are used.
        quality: whether to compare the passes of each case.
    """
    model, *others = target.models
    options = ["-i", str(prediction.images), "-o", str(target.folder), "-c", model.configuration]
    options += ["-tr", model.trainer, "-p", model.plans, "-f", *map(str, folds), "-device", settings.device]
    options += ["--ensemble-with", *(str(settings.paths.model(other).path) for other in others)] if others else []
    options += ["-prev_stage_predictions", *map(str, previous)] if previous else []
    options += [] if prediction.mirroring else ["--disable_tta"]
    options += [] if postprocessed else [LEAVE_OUT]
    options += ["--quality"] if quality else []
    return ("factorizer-nnunet", "predict", "-d", settings.dataset, *options)


def tune_postprocessing(settings: RunSettings, model: ModelName, scheme: str) -> Command:
    options = ("-d", _id(settings), "-c", model.configuration, "-tr", model.trainer, "-p", model.plans)
    folds = ("-f", *map(str, settings.folds), "--scheme", scheme, "-o", str(settings.paths.tuned_postprocessing))
    return ("factorizer-nnunet", "tune-postprocessing", *options, *folds, *_processes(settings))


def calibrate(
    settings: RunSettings, prediction: Prediction, model: ModelName, folds: Sequence[int], postprocessed: bool
) -> Command:
    options = ["-c", model.configuration, "-tr", model.trainer, "-p", model.plans, "-f", *map(str, folds)]
    options += ["-device", settings.device, *([] if prediction.mirroring else ["--disable_tta"])]
    options += [] if postprocessed else [LEAVE_OUT]
    return ("factorizer-nnunet", "calibrate", "-d", settings.dataset, *options)


def postprocess(settings: RunSettings, source: Path, output: Path, best: BestConfiguration, functions: Path) -> Command:
    """nnU-Net's postprocessing; ``functions`` is its file, or one that changes nothing."""
    options = ["-i", str(source), "-o", str(output), "-pp_pkl_file", str(functions)]
    options += ["-plans_json", str(best.plans_file), "-dataset_json", str(best.plans_file.with_name("dataset.json"))]
    return ("nnUNetv2_apply_postprocessing", *options, *_processes(settings))


def scores(settings: RunSettings, segmentations: Path, references: Path, plans_file: Path) -> Command:
    options = ("-djfile", str(plans_file.with_name("dataset.json")), "-pfile", str(plans_file))
    return ("nnUNetv2_evaluate_folder", str(references), str(segmentations), *options, *_processes(settings))


def validation_scores(settings: RunSettings, model: ModelFolder, fold: int) -> Command:
    """Score the segmentations of a fold's validation; ``--chill`` since the labels of other folds have none."""
    return (*scores(settings, model.fold(fold).validation, settings.paths.labels, model.plans_file), "--chill")


def _id(settings: RunSettings) -> str:
    return str(settings.dataset_id)


def _processes(settings: RunSettings) -> Command:
    return ("-np", str(settings.processes))
