"""The network that is planned for the hippocampus at a small size, and the alternatives to each choice in it.

``factorizer-nnunet plan --gpu-memory-target 0.14`` made these widths, strides and patches of the hippocampus, with
batches of 2 as here, when the study was run; of 0.12 it made a last stride of (2, 2, 1).
"""

from __future__ import annotations

from benchmarks.forms.study import Form, Study

_STAGES = 4

PLANNING_STUDY = Study(
    forms={
        "planned": Form("reference"),
        "windows of 4": Form("windows", {"window_sizes": [[4] * 3] * _STAGES}),
        "windows of 16": Form("windows", {"window_sizes": [[16] * 3] * _STAGES}),
        "no shift": Form("shifts", {"shifts": [0.0]}),
        "four shifts": Form("shifts", {"shifts": [0.0, 0.25, 0.5, 0.75]}),
        "no NMF": Form("where the NMF is", {"nmf_stages": [False, False, False, False]}),
        "NMF from the second stage": Form("where the NMF is", {"nmf_stages": [False, True, True, True]}),
        "widths 24…": Form("width", {"features_per_stage": [24, 48, 96, 192]}),
        "widths 48…": Form("width", {"features_per_stage": [48, 96, 192, 384]}),
        "two blocks": Form("depth", {"n_blocks_per_stage": [2, 2, 2, 2], "n_blocks_per_stage_decoder": [2, 2, 2]}),
        "widths 48…, two blocks from the third stage": Form(
            "width and depth",
            {
                "features_per_stage": [48, 96, 192, 384],
                "n_blocks_per_stage": [1, 1, 2, 2],
                "n_blocks_per_stage_decoder": [1, 1, 2],
            },
        ),
        "widths 64…, two blocks from the second stage": Form(
            "width and depth",
            {
                "features_per_stage": [64, 128, 256, 512],
                "n_blocks_per_stage": [1, 2, 2, 2],
                "n_blocks_per_stage_decoder": [1, 2, 2],
            },
        ),
    },
    reference="planned",
    always_final=("planned", "widths 24…", "widths 48…, two blocks from the third stage"),
    widths=(32, 64, 128, 256),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    patches={"hippocampus": (32, 40, 32)},
)
