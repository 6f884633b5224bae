"""ATLAS R2.0: chronic lesions in T1, in MNI space, from many sites; not ATLAS 3, whose files have other names."""

from __future__ import annotations

import json

from factorizer_nnunet.dataset_conversion.releases.isles import LESION
from factorizer_nnunet.dataset_conversion.spec import Channel, LabelMap, LabelScheme, Release

_SPACE = "{case}_space-MNI152NLin2009aSym"

# The evaluation selects a derivative of this name and files that end in "_mask" (npnl/atlas2_grand_challenge,
# settings.py), and counts every value above 0 as lesion (isles/scoring.py there).
_DESCRIPTION = {
    "Name": "atlas2_prediction",
    "BIDSVersion": "1.6.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "atlas2_prediction"}],
    "PipelineDescription": {"Name": "atlas2_prediction"},
}

ATLAS_2 = Release(
    key="atlas2",
    title="ATLAS R2.0",
    case=r"(?P<subject>sub-r\d{3}s\d{3})_(?P<session>ses-\d+)",
    channels=(Channel("T1w", f"{_SPACE}_T1w"),),
    label=(f"{_SPACE}_label-L_desc-T1lesion_mask",),
    schemes=(LESION, LabelScheme(LabelMap({0: 0, 1: 1, 255: 1}, back={0: 0, 1: 1}), {"lesion": (1,)})),
    root=r"ATLAS_?-?2.*",
    unlabelled=r"(?:ATLAS_?-?2_?)?Test(?:ing)?",
    patient=r"(sub-r\d{3}s\d{3})_ses-\d+",
    stratum=r"/sub-(r\d{3})s\d{3}",  # the site
    submission="{subject}/{session}/anat/{subject}_{session}_space-MNI152NLin2009aSym_label-L_mask.nii.gz",
    submission_extra={"dataset_description.json": json.dumps(_DESCRIPTION, indent=4) + "\n"},
    example="ATLAS_2/Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz",
    licence="see the data use agreement",
    reference="https://fcon_1000.projects.nitrc.org/indi/retro/atlas.html; doi:10.1038/s41597-022-01401-7",
)
