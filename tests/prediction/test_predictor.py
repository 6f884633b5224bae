"""From Python: files, SimpleITK images and arrays give the labels that the command writes."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from tiny_models import run_predict

import factorizer_nnunet
from factorizer_nnunet.core.errors import UserError


def test_all_kinds_of_input_give_the_labels_of_the_command(root: Path, model: Path) -> None:
    run_predict(root, model, use_mirroring=False, save_probabilities=True)
    expected = SimpleITK.ReadImage(str(root / "out" / "a.nii.gz"))
    files = [root / "images" / f"a_{channel:04d}.nii.gz" for channel in range(2)]
    images = [SimpleITK.ReadImage(str(file)) for file in files]
    array = np.stack([SimpleITK.GetArrayFromImage(image) for image in images])
    predictor = factorizer_nnunet.Predictor(model, device="cpu", use_mirroring=False)
    from_files = predictor.predict(files)
    np.testing.assert_array_equal(from_files.labels, SimpleITK.GetArrayFromImage(expected))
    from_array = predictor.predict(array, images[0].GetSpacing()[::-1], probabilities=True)
    np.testing.assert_array_equal(from_array.labels, from_files.labels)
    stored = np.load(root / "out" / "a.npz")["probabilities"]
    np.testing.assert_allclose(from_array.probabilities, stored, atol=1e-3)
    from_images = predictor.predict(images).labels
    assert isinstance(from_images, SimpleITK.Image) and from_images.GetOrigin() == images[0].GetOrigin()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(from_images), from_files.labels)


def test_mistakes_are_named(root: Path, model: Path) -> None:
    predictor = factorizer_nnunet.Predictor(model, [0], device="cpu", memory=0.1)
    image = SimpleITK.ReadImage(str(root / "images" / "a_0000.nii.gz"))
    for arguments, message in (
        ((np.zeros((2, 5, 5, 5)),), "an array needs spacing"),
        ((np.zeros((5, 5)), (1, 1, 1)), "this array has 2"),
        ((image, (1, 1, 1)), "have a spacing of their own"),
        ((image,), "the image has 1 channel, the model takes 2"),
        (([image, image[1:]],), "the same size, spacing and position"),
        (([image, image],), r"it needs 0.5 GB .*it may take 0.1 GB"),
    ):
        with pytest.raises(UserError, match=message):
            predictor.predict(*arguments)
    with pytest.raises(UserError, match="leave out previous_stage"):
        predictor.predict([image, image], previous_stage=np.zeros((7, 17, 20)))
    with pytest.raises(UserError, match="no fold with checkpoint_best.pth"):
        factorizer_nnunet.Predictor(model, checkpoint="checkpoint_best.pth", device="cpu")
