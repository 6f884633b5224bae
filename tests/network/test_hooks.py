"""What ``explain`` reads and changes in a network: the mixer's input, its heads, and the output without a head."""

from __future__ import annotations

import pytest
import torch

from factorizer_nnunet.network.blocks import FactorizerBlock
from factorizer_nnunet.network.mixer import NMFMixer
from factorizer_nnunet.network.nmf import NMFSettings
from factorizer_nnunet.network.ops import dispatch


def build_mixer(**nmf: object) -> NMFMixer:
    torch.manual_seed(0)
    return NMFMixer(
        12, head_dim=4, window_size=(4, 4, 4), shifts=(0.0, 0.5), border="cut", nmf=NMFSettings(**nmf)
    ).requires_grad_(False)


def build_block(
    mixer: NMFMixer | None, depthwise: str = "entry", norm: str = "instance", gates: bool = False, num_convs: int = 1
) -> FactorizerBlock:
    return FactorizerBlock(
        12,
        norm=norm,
        mixer=mixer,
        gates=gates,
        mlp_ratio=2.0,
        depthwise=depthwise,
        kernel_size=(3, 3, 3),
        num_convs=num_convs,
        dropout=0.0,
        drop_path=0.0,
        checkpointing=False,
    ).eval()


@pytest.mark.parametrize("depthwise", ["entry", "mlp", "none"])
@pytest.mark.parametrize("norm", ["instance", "layer", "rms"])
def test_mixer_input_is_what_the_mixer_receives(depthwise: str, norm: str) -> None:
    mixer = build_mixer()
    block = build_block(mixer, depthwise, norm)
    seen = []
    mixer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(1, 9, 8, 5, 12)
    with torch.no_grad():
        block(x)  # small enough that the block calls its modules
        torch.testing.assert_close(block.mixer_input(x), seen[0], rtol=0, atol=0)


def test_a_block_without_a_mixer_has_no_mixer_input() -> None:
    with pytest.raises(ValueError, match="this block has no mixer"):
        build_block(None).mixer_input(torch.zeros(1, 4, 4, 4, 12))


def test_a_gate_scales_the_input_by_what_the_mixer_says() -> None:
    mixer = build_mixer()
    block = build_block(mixer, depthwise="none", gates=True)
    x = torch.randn(1, 9, 8, 5, 12)
    with torch.no_grad():
        scaled = x * 2 / (1 + (-mixer(block.norm1(x))).exp())
        torch.testing.assert_close(block(x), scaled + block.mlp(block.norm2(scaled)))
        mixer.out_proj.weight.zero_()
        mixer.out_proj.bias.zero_()
        torch.testing.assert_close(block(x), x + block.mlp(block.norm2(x)))


def test_depthwise_convolutions_follow_one_another() -> None:
    torch.manual_seed(0)
    block, x = build_block(build_mixer(), num_convs=2), torch.randn(1, 9, 8, 5, 12)
    assert {"depthwise.0.weight", "depthwise.1.weight"} <= block.state_dict().keys()
    assert "depthwise.weight" in build_block(build_mixer()).state_dict()  # the name in older models
    first, second = block.depthwise
    with torch.no_grad():
        convolved = second(first(x))
        torch.testing.assert_close(block.mixer_input(x), block.norm1(convolved))
        expected = convolved + block.mixer(block.norm1(convolved))
        torch.testing.assert_close(block(x), expected + block.mlp(block.norm2(expected)))


def test_num_heads() -> None:
    assert build_mixer().num_heads == 3


@pytest.mark.parametrize("nmf", [{}, {"rank": 2}, {"solver": "mu"}])
@pytest.mark.parametrize("head", [0, 1, 2])
def test_without_head_drops_what_the_head_adds(nmf: dict, head: int) -> None:
    mixer, x = build_mixer(**nmf), torch.randn(1, 9, 8, 5, 12)
    weight = mixer.out_proj.weight.clone()
    shares = [weight[:, 4 * h : 4 * h + 4] for h in range(3)]
    low_rank = mixer.reconstruct(mixer.nonnegative(x)).split(4, -1)
    others = [part @ share.mT for h, (part, share) in enumerate(zip(low_rank, shares, strict=True)) if h != head]
    with mixer.without_head(head):
        torch.testing.assert_close(mixer(x), sum(others) + mixer.out_proj.bias)
    assert torch.equal(mixer.out_proj.weight, weight)


def test_without_head_holds_in_fused_implementations(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x = build_mixer(), torch.randn(1, 9, 8, 5, 12)
    block = build_block(mixer)
    with torch.no_grad(), mixer.without_head(1):
        expected = block(x)
        monkeypatch.setattr(dispatch, "MIN_SLAB_VOLUME_BYTES", 0)
        torch.testing.assert_close(block(x), expected)


def test_without_head_restores_the_weights_after_an_error() -> None:
    mixer = build_mixer()
    weight = mixer.out_proj.weight.clone()
    with pytest.raises(RuntimeError), mixer.without_head(2):
        assert not torch.equal(mixer.out_proj.weight, weight)
        raise RuntimeError
    assert torch.equal(mixer.out_proj.weight, weight)


@pytest.mark.parametrize("head", [-1, 3])
def test_without_head_refuses_heads_that_do_not_exist(head: int) -> None:
    mixer = build_mixer()
    weight = mixer.out_proj.weight.clone()
    with pytest.raises(IndexError, match=f"invalid head={head}: expected 0 to 2"), mixer.without_head(head):
        pass
    assert torch.equal(mixer.out_proj.weight, weight)
