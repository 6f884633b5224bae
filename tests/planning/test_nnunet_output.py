"""What of nnU-Net's output a user sees while planning."""

from __future__ import annotations

import numpy as np
import pytest

from factorizer_nnunet.planning.nnunet_output import without_settings


def test_settings_are_left_out_and_everything_else_stays(capsys: pytest.CaptureFixture[str]) -> None:
    with without_settings():
        print("Dropping 3d_lowres config because the image size difference to 3d_fullres is too small.")
        print("Using <class 'nnunetv2.imageio.simpleitk_reader_writer.SimpleITKIO'> as reader/writer")
        print("2D U-Net configuration:")
        print({"data_identifier": "plans_2d", "spacing": np.ones((40, 40))}, "\n", sep="")
        print("Configuration: 2d...")
        print({"data_identifier": "plans_2d"})
        print()
        print("INFO: Configuration 3d_lowres not found, skipping")
    print("Plans: file")
    assert capsys.readouterr().out.splitlines() == [
        "Dropping 3d_lowres config because the image size difference to 3d_fullres is too small.",
        "Configuration: 2d...",
        "INFO: Configuration 3d_lowres not found, skipping",
        "Plans: file",
    ]
