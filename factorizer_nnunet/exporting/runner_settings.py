"""What the runner of ONNX models needs to know, and which models it cannot reproduce.

``run_model.py`` has its own preprocessing and sliding window, without PyTorch and nnU-Net. It reproduces what nnU-Net's
default functions do; a model that uses others is refused here, with all reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from factorizer_nnunet.exporting.run_model import FORMAT
from factorizer_nnunet.prediction.model import TrainedModel

_ENDINGS = (".nii.gz", ".nii")
_SCHEMES = (
    *("ZScoreNormalization", "CTNormalization", "RescaleTo01Normalization", "NoNormalization"),
    "RGBTo01Normalization",
)
_DATA_ORDERS, _LOGIT_ORDERS, _THICK_ORDERS = (0, 1, 3), (1,), (0, 1)
_DEFAULTS = {
    "is_seg": False,
    "order": 3,
    "order_z": 0,
    "force_separate_z": False,
    "separate_z_anisotropy_threshold": ANISO_THRESHOLD,
}


def unsupported(model: TrainedModel) -> list[str]:
    """Why the runner cannot reproduce a model; empty if it can."""
    return list(_problems(model))


def runner_settings(model: TrainedModel) -> dict[str, Any]:
    """The settings of a model that the runner reproduces, without the names and digests of the networks."""
    configuration, labels = model.configuration, model.description.labels
    properties = model.plans.foreground_intensity_properties_per_channel
    regions = labels.regions_class_order if labels.has_regions else None
    return {
        "format": FORMAT,
        "channels": list(model.dataset.channel_names),
        "file_ending": model.file_ending,
        "transpose_forward": [*map(int, model.plans.transpose_forward)],
        "transpose_backward": [*map(int, model.plans.transpose_backward)],
        "spacing": [*map(float, configuration.spacing)],
        "patch_size": [*map(int, configuration.patch_size)],
        "tile_step_size": model.tile_step_size,
        "mirroring_axes": list(model.first.mirroring_axes or ()),
        "takes_absent": model.description.takes_absent,
        "normalization": [
            {"scheme": scheme, "mask": bool(mask), "properties": dict(properties.get(str(number)) or {})}
            for number, (scheme, mask) in enumerate(
                zip(configuration.normalization_schemes, configuration.use_mask_for_norm, strict=True)
            )
        ],
        "resample_image": _resampling(configuration.resampling_fn_data),
        "resample_logits": _resampling(configuration.resampling_fn_probabilities),
        "has_regions": labels.has_regions,
        "label_values": [*map(int, labels.all_labels if regions is None else (0, *regions))],
        "wide_labels": len(labels.foreground_labels) >= 255,
    }


def _problems(model: TrainedModel) -> Iterator[str]:
    plans, configuration = model.plans, model.configuration
    if model.file_ending not in _ENDINGS:
        yield f"images end in {model.file_ending}, it reads {' and '.join(_ENDINGS)}"
    if plans.image_reader_writer_class not in (SimpleITKIO, NibabelIO):
        yield f"images are read by {plans.image_reader_writer_class.__name__}, which may turn or combine them"
    if configuration.previous_stage_name is not None:
        yield f"it continues the segmentations of {configuration.previous_stage_name}"
    if configuration.preprocessor_class is not DefaultPreprocessor:
        yield f"it is preprocessed by {configuration.preprocessor_class.__name__}"
    if type(model.description.labels) is not LabelManager:
        yield f"labels are decided by {type(model.description.labels).__name__}"
    for scheme in sorted(set(configuration.normalization_schemes) - set(_SCHEMES)):
        yield f"channels are normalised by {scheme}"
    for what, function, orders in (
        ("images", configuration.resampling_fn_data, _DATA_ORDERS),
        ("logits", configuration.resampling_fn_probabilities, _LOGIT_ORDERS),
    ):
        options = _resampling(function)
        if options is None:
            yield f"{what} are resampled by another function than nnU-Net's default, or with other options"
        elif options["order"] not in orders or options["order_z"] not in _THICK_ORDERS:
            yield (
                f"{what} are resampled by splines of order {options['order']}, along thick slices {options['order_z']}"
            )


def _resampling(function: Callable[..., Any]) -> Mapping[str, Any] | None:
    """The options of nnU-Net's default resampling; None for another function or unknown options."""
    base, given = (function.func, function.keywords) if isinstance(function, partial) else (function, {})
    is_known = base is resample_data_or_seg_to_shape and not set(given) - set(_DEFAULTS) and not given.get("is_seg")
    options = {**_DEFAULTS, **given}
    return {key: options[key] for key in _DEFAULTS if key != "is_seg"} if is_known else None
