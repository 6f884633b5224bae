"""What of a model's plans is used for new data, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import stock_plans
from finetuning_example import CHANNELS, source_plans, write_source
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from factorizer_nnunet.finetuning.adoption import Adoption, adopted_plans, decide
from factorizer_nnunet.finetuning.matching import Matching
from factorizer_nnunet.finetuning.source import SourceModel, opened_source
from factorizer_nnunet.nnunet.environment import use_own_trainer
from factorizer_nnunet.planning.image_geometry import ImageGeometry

NEW = Matching(CHANNELS, ("FLAIR", "CT"), (2, None))


def opened(model: Path) -> SourceModel:
    use_own_trainer()
    with opened_source(model, None, None) as source:
        return source


def planned(spacing: list[float], shape: list[float], forward: list[int]) -> dict[str, Any]:
    """What our planner may plan for the new data; axes after transposition."""
    base = {**stock_plans.configuration(3), "spacing": spacing, "patch_size": [32, 32, 32]}
    return {
        "dataset_name": "Dataset005_Target",
        "plans_name": "Finetuned",
        "image_reader_writer": "NibabelIO",
        "transpose_forward": forward,
        "transpose_backward": [forward.index(axis) for axis in range(3)],
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": shape,
        "configurations": {
            "3d_fullres": {**base, "normalization_schemes": ["ZScoreNormalization", "CTNormalization"]},
            "2d": {},
        },
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"mean": 10}, "1": {"mean": 11}},
    }


def adopt(model: Path, images: ImageGeometry, plans: dict[str, Any]) -> tuple[dict[str, Any], Adoption]:
    source = opened(model)
    decided = decide(source, images, NEW)
    return adopted_plans(plans, source, NEW, decided, "3d_fullres", {"model": "M"}), decided


def test_what_fits_is_adopted(folders: Path, model: Path) -> None:
    images = ImageGeometry(2, [2.0, 1.0, 1.0], [20.0, 40.0, 40.0])
    plans, decided = adopt(model, images, planned([2.0, 1.0, 1.0], [20, 40, 40], [0, 1, 2]))
    assert decided.keeps_spacing and decided.keeps_axes
    settings = PlansManager(plans).get_configuration("3d_fullres")  # nnU-Net can read it
    assert settings.patch_size == [16, 16, 16] and settings.spacing == [1.0, 1.0, 1.0]
    assert settings.configuration["median_image_size_in_voxels"] == [40, 40, 40]
    assert settings.data_identifier == "Finetuned_3d_fullres"
    # The matched channel as in the model; the new one as planned for it.
    assert settings.normalization_schemes == ["ZScoreNormalization", "CTNormalization"]
    assert plans["foreground_intensity_properties_per_channel"] == {"0": {"mean": 2}, "1": {"mean": 11}}
    assert plans["dataset_name"] == "Dataset005_Target" and plans["image_reader_writer"] == "NibabelIO"
    assert plans["finetuned_from"] == {"model": "M"}
    assert list(plans["configurations"]) == ["3d_fullres"]
    assert settings.network_arch_class_name == "factorizer_nnunet.network.Factorizer"  # which trained, not the U-Net


def test_a_stock_model_keeps_its_network(folders: Path) -> None:
    model = write_source(folders / "elsewhere", "nnUNetTrainer")
    images = ImageGeometry(2, [1.0, 1.0, 1.0], [20.0, 40.0, 40.0])
    plans, _ = adopt(model, images, planned([1.0, 1.0, 1.0], [20, 40, 40], [0, 1, 2]))
    assert PlansManager(plans).get_configuration("3d_fullres").network_arch_class_name == stock_plans.PLAIN_UNET


def test_voxels_of_another_scale_keep_their_size(folders: Path, model: Path) -> None:
    images = ImageGeometry(2, [0.2, 0.1, 0.1], [200.0, 400.0, 400.0])
    plans, decided = adopt(model, images, planned([0.2, 0.1, 0.1], [200, 400, 400], [0, 1, 2]))
    assert not decided.keeps_spacing
    assert plans["configurations"]["3d_fullres"]["spacing"] == [0.2, 0.1, 0.1]
    assert dict(decided.rows)["spacing"].startswith("0.2 × 0.1 × 0.1 mm, that of the images")


def test_a_nearly_isotropic_model_keeps_its_axes(folders: Path, model: Path) -> None:
    images = ImageGeometry(2, [1.0, 1.0, 2.5], [40.0, 41.0, 16.0])
    plans, decided = adopt(model, images, planned([2.5, 1.0, 1.0], [16, 40, 41], [2, 0, 1]))
    assert decided.keeps_axes and plans["transpose_forward"] == [0, 1, 2]
    assert plans["original_median_spacing_after_transp"] == [1.0, 1.0, 2.5]
    assert plans["configurations"]["3d_fullres"]["median_image_size_in_voxels"] == [40, 41, 40]


def test_an_anisotropic_model_gets_the_coarse_axis_first(folders: Path) -> None:
    model = write_source(folders / "elsewhere", plans=source_plans(spacing=[3.0, 1.0, 1.0]))
    images = ImageGeometry(2, [1.0, 1.0, 2.5], [40.0, 41.0, 16.0])
    plans, decided = adopt(model, images, planned([2.5, 1.0, 1.0], [16, 40, 41], [2, 0, 1]))
    assert not decided.keeps_axes and plans["transpose_forward"] == [2, 0, 1]
    assert plans["configurations"]["3d_fullres"]["median_image_size_in_voxels"] == pytest.approx([16 * 2.5 / 3, 40, 41])


def test_a_patch_larger_than_the_images_is_mentioned(folders: Path, model: Path) -> None:
    decided = decide(opened(model), ImageGeometry(2, [1.0, 1.0, 1.0], [8.0, 40.0, 40.0]), NEW)
    assert "much of it is padding, since the images are 8 × 40 × 40 mm" in dict(decided.rows)["patch"]
