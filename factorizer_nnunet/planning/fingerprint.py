"""nnU-Net's fingerprint, for data sets in which cases lack channels.

Of the intensities in the fingerprint, nnU-Net uses only those of channels that are normalised like CT: clipped to
percentiles of the data set. There, the zeros that stand for an absent channel must not count. Everything else in the
fingerprint is the same with and without them: shapes and voxel sizes, and the crop to what is not 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

from factorizer_nnunet.core.atomic_files import write_text_atomically
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.environment import nnunet_folder
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE

_INTENSITIES = "foreground_intensity_properties_per_channel"


class FingerprintExtractor(DatasetFingerprintExtractor):
    """Measures intensities that are used in the cases that have the channel, with nnU-Net's own code."""

    dataset: dict[str, Any]  # files of each case, as nnU-Net sets it

    def run(self, overwrite_existing: bool = False) -> dict[str, Any]:
        """Measure as nnU-Net does; the file appears once all is measured."""
        file = nnunet_folder("nnUNet_preprocessed", writable=True) / self.dataset_name / FINGERPRINT_FILE
        channels = self._channels_to_repeat()
        if not channels or (file.is_file() and not overwrite_existing):
            return super().run(overwrite_existing)
        fingerprint, every_case = self._measured(file), self.dataset
        for channel, lacking in channels.items():
            self.dataset = {case: files for case, files in every_case.items() if case not in lacking}
            fingerprint[_INTENSITIES][str(channel)] = self._measured(file)[_INTENSITIES][str(channel)]
        self.dataset = every_case
        write_text_atomically(file, json.dumps(fingerprint, indent=4))
        return fingerprint

    def _channels_to_repeat(self) -> dict[int, set[str]]:
        """Channels whose intensities are used and that cases lack, with the names of these cases."""
        description = DatasetJson(self.dataset_json)
        lacking = {
            number: {case for case, absent in description.absent_channels.items() if number in absent}
            for number, name in enumerate(description.channel_names)
            if get_normalization_scheme(name) is CTNormalization
        }
        return {number: cases for number, cases in lacking.items() if cases}

    def _measured(self, file: Path) -> dict[str, Any]:
        """The fingerprint of ``self.dataset``, without the file that nnU-Net writes."""
        super().run(overwrite_existing=True)
        content = load_json_object(file, "Plan again")
        file.unlink()
        return content
