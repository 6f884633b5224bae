"""The forms compared: what each changes in the default, and the references beside them."""

from __future__ import annotations

from benchmarks.forms.study import Form, Study
from benchmarks.forms.tasks import FAR_SIZE

_EVERYWHERE = {"nmf_stages": [True, True, True]}
_PUBLISHED = {**_EVERYWHERE, "norm": "layer", "depthwise": "none", "border": "cyclic", "position": "learned"}

_FORMS = {
    "nnU-Net": Form("reference", learning_rate=1e-2, stock=True),
    "default": Form("reference"),
    "published": Form("reference", _PUBLISHED),
    "no NMF": Form("where the NMF pays", {"nmf_stages": [False, False, False]}),
    "NMF at every resolution": Form("where the NMF pays", _EVERYWHERE),
    "NMF below the highest resolution": Form("where the NMF pays", {"nmf_stages": [False, True, True]}),
    "NMF at the highest resolution only": Form("where the NMF pays", {"nmf_stages": [True, False, False]}),
    "LayerNorm": Form("norm", {"norm": "layer"}),
    "RMSNorm": Form("norm", {"norm": "rms"}),
    "3×3×3 adapter": Form("local mixing", {"adapter": "conv"}),
    "depthwise in the MLP": Form("local mixing", {"depthwise": "mlp"}),
    "no depthwise": Form("local mixing", {"depthwise": "none"}),
    "overlapping downsampling": Form("local mixing", {"downsample": "overlap"}),
    "windows of 4": Form("windows and shifts", {"window_sizes": [[4] * 3] * 3}),
    "one window": Form("windows and shifts", {"window_sizes": [[None] * 3] * 3, "shifts": [0.0]}),
    "no shift": Form("windows and shifts", {"shifts": [0.0]}),
    "four shifts": Form("windows and shifts", {"shifts": [0.0, 0.25, 0.5, 0.75]}),
    "cyclic border": Form("windows and shifts", {"border": "cyclic"}),
    "rank 2": Form("rank and heads", {"rank": 2}),
    "rank 4": Form("rank and heads", {"rank": 4}),
    "heads of 4": Form("rank and heads", {"head_dim": 4}),
    "heads of 16": Form("rank and heads", {"head_dim": 16}),
    "one iteration": Form("rank and heads", {"num_iters": 1}),
    "MLP ratio 1": Form("size", {"mlp_ratio": 1.0}),
    "MLP ratio 4": Form("size", {"mlp_ratio": 4.0}),
    "wider by half": Form("size", {"features_per_stage": [48, 96, 192]}),
    "two blocks below the highest resolution": Form(
        "size", {"n_blocks_per_stage": [1, 2, 2], "n_blocks_per_stage_decoder": [1, 2]}
    ),
    "lr 1e-3": Form("recipe", learning_rate=1e-3),
    "lr 1e-2": Form("recipe", learning_rate=1e-2),
    "cosine decay": Form("recipe", schedule="cosine"),
    "no decay": Form("recipe", schedule="constant"),
}

FORMS_STUDY = Study(
    forms=_FORMS,
    reference="nnU-Net",
    always_final=("nnU-Net", "default", "no NMF", "published"),
    widths=(32, 64, 128),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    patches={"hippocampus": (24, 32, 24), "far context": FAR_SIZE},
)
