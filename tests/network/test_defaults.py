"""The default form is the one that the study of forms chose, in variants and in plans."""

from __future__ import annotations

import pytest

from factorizer_nnunet.network import build_variant, default_form
from factorizer_nnunet.planning.architecture import factorizer_architecture


@pytest.mark.parametrize(
    ("num_stages", "expected"),
    [
        (1, [True]),
        (2, [False, True]),
        (3, [False, False, True]),
        (5, [False, False, True, True, True]),
    ],
)
def test_the_nmf_begins_at_the_third_stage_or_the_lowest(num_stages: int, expected: list[bool]) -> None:
    strides = [[1, 1, 1]] + [[2, 2, 2]] * (num_stages - 1)
    unet = {"features_per_stage": [8 * 2**stage for stage in range(num_stages)], "strides": strides}
    plan = factorizer_architecture(unet, [1.0] * 3)["arch_kwargs"]
    assert plan["nmf_stages"] == default_form(num_stages)["nmf_stages"] == expected


def test_variant_and_plans_have_one_form() -> None:
    config = build_variant("default", 1, 2, (32, 32, 32)).config
    unet = {"features_per_stage": config.features_per_stage, "strides": config.strides}
    plan = factorizer_architecture(unet, [1.0] * 3)["arch_kwargs"]
    assert all(plan[name] == value for name, value in default_form(config.num_stages).items())
    assert config.nmf_stages == (False, False, True, True)
    assert config.norm == "instance" and config.depthwise == "entry"


def test_stages_without_nmf_are_free_of_its_limits() -> None:
    network = build_variant("default", 1, 2, (16, 16, 16))
    unet = {"features_per_stage": [20, 32, 64], "strides": network.config.strides}
    arguments = {**unet, "window_sizes": [[3, 3, 3], [4, 4, 4], [4, 4, 4]], "nmf_stages": [False, True, True]}
    assert type(network)(1, 2, **arguments).config.features_per_stage[0] == 20
