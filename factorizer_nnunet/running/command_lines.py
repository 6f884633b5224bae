"""The commands of each step, word for word as a user would type them; what is resumed is said by ``steps``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from factorizer_nnunet.nnunet.names import parse_plans_name, template_of
from factorizer_nnunet.running.settings import RunModel, RunSettings

Command = tuple[str, ...]

# nnU-Net's own plans by name: the planner that makes them.
STOCK_PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}


def fingerprint(settings: RunSettings) -> Command:
    """With nnU-Net's check of images and labels: what it finds would otherwise end a training, hours later."""
    check = "--verify_dataset_integrity"
    return ("nnUNetv2_extract_fingerprint", "-d", _id(settings), "-np", _processes(settings), check)


def plan(settings: RunSettings, plans: str) -> Command:
    """Our planner for our names, nnU-Net's for its own; others must have been planned by the user."""
    target = settings.gpu_memory_target_gb
    if plans in STOCK_PLANNERS:
        memory = () if target is None else ("-gpu_memory_target", str(target))
        return ("nnUNetv2_plan_experiment", "-d", _id(settings), "-pl", STOCK_PLANNERS[plans], *memory)
    template = template_of(plans)
    size, variant = parse_plans_name(plans) or (None, None)
    form = () if size is None else ("--size", size)
    form += () if variant is None else ("--variant", variant)
    memory = () if target is None else ("--gpu-memory-target", str(target))
    form += memory if template is None else ("--template", template)
    command = ("factorizer-nnunet", "plan", "-d", _id(settings), *form)
    return (*command, "-np", _processes(settings), "--no-preprocess")


def preprocess(settings: RunSettings, plans: str, configuration: str) -> Command:
    command = ("nnUNetv2_preprocess", "-d", _id(settings), "-plans_name", plans, "-c", configuration)
    return (*command, "-np", _processes(settings))


def train(settings: RunSettings, model: RunModel, fold: int) -> Command:
    command = ("nnUNetv2_train", _id(settings), model.configuration, str(fold), "-tr", model.trainer)
    several = ("-num_gpus", str(settings.gpus_per_fold)) if settings.gpus_per_fold > 1 else ()
    return (*command, "-p", model.plans, "-device", settings.device, *several, "--npz")


def find_best(settings: RunSettings) -> Command:
    """nnU-Net's command where it can say these models: every trainer with all plans and all configurations."""
    models = settings.models
    trainers, plans, configurations = (
        tuple(dict.fromkeys(getattr(model, key) for model in models)) for key in ("trainer", "plans", "configuration")
    )
    if len(models) == len(trainers) * len(plans) * len(configurations):
        command = ("nnUNetv2_find_best_configuration", settings.dataset, "-c", *configurations, "-tr", *trainers)
        return (*command, "-p", *plans, "-f", *map(str, settings.folds), "-np", _processes(settings))
    chosen = [
        {"trainer": model.trainer, "plans": model.plans, "configuration": model.configuration} for model in models
    ]
    arguments = f"{settings.dataset!r}, {chosen}, folds={settings.folds}, num_processes={settings.processes}"
    module = "nnunetv2.evaluation.find_best_configuration"
    return ("python", "-c", f"from {module} import find_best_configuration as find; find({arguments})")


def predict(
    settings: RunSettings, model: RunModel, folds: Sequence[int], output: Path, previous: Path | None, probabilities: bool
) -> Command:
    """Segment the test images with the mean of a model's folds.

    Args:
        previous: segmentations of the low resolution, for a cascade.
        probabilities: keep them for merging.
    """
    command = ("factorizer-nnunet", "predict", "-d", settings.dataset, "-i", str(settings.prediction.images))
    command += ("-o", str(output), "-c", model.configuration, "-tr", model.trainer, "-p", model.plans)
    command += ("-f", *map(str, folds), "-device", settings.device)
    command += () if previous is None else ("-prev_stage_predictions", str(previous))
    command += () if settings.prediction.mirroring else ("--disable_tta",)
    command += ("--save_probabilities",) if probabilities else ()
    # Beside a processor's own work, workers would only take its time and import PyTorch anew.
    return command if settings.device == "cuda" else (*command, "-npp", "0", "-nps", "0")


def stock(command: Command) -> Command:
    """nnU-Net's own command that does the same, where ours is a thin layer over it."""
    return ("nnUNetv2_predict", *command[2:]) if command[:2] == ("factorizer-nnunet", "predict") else command


def ensemble(settings: RunSettings, folders: Sequence[Path], output: Path) -> Command:
    return ("nnUNetv2_ensemble", "-i", *map(str, folders), "-o", str(output), "-np", _processes(settings))


def postprocess(settings: RunSettings, source: Path, output: Path, postprocessing: Path, plans_file: Path) -> Command:
    command = ("nnUNetv2_apply_postprocessing", "-i", str(source), "-o", str(output))
    command += ("-pp_pkl_file", str(postprocessing), "-plans_json", str(plans_file))
    return (*command, "-dataset_json", str(plans_file.with_name("dataset.json")), "-np", _processes(settings))


def scores(settings: RunSettings, plans_file: Path) -> Command:
    command = ("nnUNetv2_evaluate_folder", str(settings.prediction.references), str(settings.prediction.output))
    command += ("-djfile", str(plans_file.with_name("dataset.json")), "-pfile", str(plans_file))
    return (*command, "-np", _processes(settings))


def _id(settings: RunSettings) -> str:
    return str(settings.dataset_id)


def _processes(settings: RunSettings) -> str:
    return str(settings.processes)
