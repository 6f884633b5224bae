"""What calibrates the probabilities of a prediction that is about to begin."""

from __future__ import annotations

from collections.abc import Mapping

from factorizer_nnunet.calibration.logit_scaling import LogitScaling
from factorizer_nnunet.core.file_stamps import stamp_of
from factorizer_nnunet.nnunet.exported_model import opened_model
from factorizer_nnunet.nnunet.inference_settings import settings_from_environment, tile_step_of
from factorizer_nnunet.nnunet.model_folder import ModelFolder
from factorizer_nnunet.nnunet.weights_file import WEIGHTS_FILE
from factorizer_nnunet.prediction.request import PredictionRequest
from factorizer_nnunet.quality.assess import judge_of
from factorizer_nnunet.quality.calibrate import pass_settings


def scalings_for(request: PredictionRequest) -> tuple[Mapping[str, LogitScaling], str]:
    """What calibrates each output of the network, and why nothing does.

    Raises:
        UserError: the calibration cannot be read.
    """
    with opened_model(request.model) as opened:
        model = ModelFolder(opened.folder)
        name = request.checkpoint if opened.record is None else WEIGHTS_FILE
        folds = request.folds_of(request.model) or [fold.name for fold in model.folds(name)]
        files = {fold: model.fold(fold).checkpoint(name) for fold in folds}
        checkpoints = {fold: stamp_of(file).sha256 for fold, file in files.items() if file.is_file()}
        own_step = tile_step_of(model)
    step = own_step if request.tile_step_size is None else request.tile_step_size
    own = request.inference_settings.or_else(settings_from_environment())
    judge = judge_of(request.model.absolute(), checkpoints, pass_settings(request.use_mirroring, step, own))
    if judge.calibration is None:
        return {}, f"probabilities are as the network gives them: {judge.not_calibrated}"
    return {name: one.scaling for name, one in judge.calibration.outputs.items()}, ""
