"""What trained models lose without some channels: the Dice of their validation cases with every subset of channels.

    python -m benchmarks.channel_subsets MODEL_FOLDER [MODEL_FOLDER ...] -f 0 1 2 3 4 --docs docs/measured

A case is predicted by the fold that was validated on it, from nnU-Net's preprocessed data. The folders are models of
one data set, such as one trained as usual and one with ``_channeldrop``. A model that was not trained for it gets zeros
in the place of an absent channel. Cases that ``dataset.json`` declares incomplete are passed over. The Dice of each
case is written to ``channel_subsets.json`` as it comes, and the same command continues; ``channel_subsets.md`` has the
means.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.nnunet.absent_channels import leave_out
from factorizer_nnunet.nnunet.environment import use_own_trainer
from factorizer_nnunet.nnunet.model_folder import CHECKPOINT_FINAL
from factorizer_nnunet.prediction.model import TrainedModel, load_model
from factorizer_nnunet.prediction.work import check_logits
from factorizer_nnunet.tuning.cases import ValidationCase, ValidationCases, mean_of_known

# Dice by model, subset of channels such as "T1 + T2", case and region; None if neither has the region.
Results = dict[str, dict[str, dict[str, dict[str, float | None]]]]


def subsets(names: Sequence[str]) -> dict[str, frozenset[int]]:
    """Every subset but the empty one, largest first: the numbers of absent channels by the names of the others."""
    numbers = range(len(names))
    kept = [chosen for size in reversed(numbers) for chosen in itertools.combinations(numbers, size + 1)]
    return {" + ".join(names[n] for n in chosen): frozenset(numbers) - {*chosen} for chosen in kept}


def without(case: ValidationCase, absent: Iterable[int], model: TrainedModel) -> torch.Tensor:
    """The case as the model's network gets it without some channels."""
    data = case.data.clone()
    image = data[: model.num_channels]
    if model.description.takes_absent:
        leave_out(image.numpy(), frozenset(absent))
    else:
        image[list(absent)] = 0
    return data


def dice_of(
    case: ValidationCase, absent: Iterable[int], model: TrainedModel, cases: ValidationCases, predictor: nnUNetPredictor
) -> dict[str, float | None]:
    """Dice of each region without some channels."""
    logits = predictor.predict_sliding_window_return_logits(without(case, absent, model))
    return cases.dice(cases.segmentation(check_logits(logits.cpu()), case), case)


def measure(folder: Path, folds: Sequence[str], device: str, mirror: bool, results: Results, file: Path) -> None:
    """Predict what is missing in ``results``; the file is written after each case."""
    for fold in folds:
        model = load_model(folder, [fold], CHECKPOINT_FINAL)
        options = {"tile_step_size": model.tile_step_size, "use_mirroring": mirror, "on_device": True}
        predictor = model.predictor(torch.device(device), **options)
        cases, own = ValidationCases(model), results.setdefault(folder.name, {})
        complete = [case for case in cases.of_fold(fold) if case not in model.dataset.absent_channels]
        for name in tqdm(complete, desc=f"{folder.name}, fold {fold}", unit="case", disable=None):
            case = None
            for kept, absent in subsets(model.dataset.channel_names).items():
                by_case = own.setdefault(kept, {})
                if name not in by_case:
                    case = case or cases.load(name)
                    by_case[name] = dice_of(case, absent, model, cases, predictor)
            write_text_atomically(file, json.dumps(results, indent=1))


def mean_dice(by_case: Mapping[str, Mapping[str, float | None]]) -> float:
    """The mean over regions of their mean over cases, in percent."""
    regions = next(iter(by_case.values()))
    return 100 * statistics.fmean(mean_of_known(case[region] for case in by_case.values()) for region in regions)


def page(results: Results, channels: int) -> str:
    """The table of all subsets, and the mean over those without a single channel."""
    rows = [["channels", *results]]
    rows += [[kept, *(f"{mean_dice(model[kept]):.1f}" for model in results.values())] for kept in first_of(results)]
    lacking_one = [kept for kept in first_of(results) if kept.count(" + ") == channels - 2]
    if lacking_one:
        means = [statistics.fmean(mean_dice(model[kept]) for kept in lacking_one) for model in results.values()]
        rows.append(["mean without one channel", *(f"{mean:.1f}" for mean in means)])
    cases = len(next(iter(first_of(results).values())))
    lead = f"Dice in percent, mean over regions and {cases} cases, each predicted by a fold that was not trained on it."
    return f"# Subsets of channels\n\n{lead}\n\n{markdown_table(rows, right=True)}\n"


def first_of(results: Results) -> dict[str, dict[str, dict[str, float | None]]]:
    """The results of the first model, for the subsets and cases that all have."""
    return next(iter(results.values()))


def main() -> None:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="model folders of one data set")
    parser.add_argument("-f", dest="folds", nargs="+", default=["0", "1", "2", "3", "4"], help="folds (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--mirror", action="store_true", help="average over mirrored images, eight times as slow in 3D")
    parser.add_argument("--docs", type=Path, default=Path("docs/measured"), help="where to write")
    args = parser.parse_args()
    use_own_trainer()
    args.docs.mkdir(parents=True, exist_ok=True)
    file = args.docs / "channel_subsets.json"
    results: Results = json.loads(file.read_text()) if file.exists() else {}
    for folder in args.models:
        measure(folder, args.folds, args.device, args.mirror, results, file)
    names = load_model(args.models[0], args.folds[:1], CHECKPOINT_FINAL).dataset.channel_names
    text = page({folder.name: results[folder.name] for folder in args.models}, len(names))
    write_text_atomically(args.docs / "channel_subsets.md", text)
    print(text)


if __name__ == "__main__":
    main()
