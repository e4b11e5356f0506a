"""The float transformer: causality, the two families, attention against a plain reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mdlzip.config import ModelConfig, load_preset
from mdlzip.model import layers
from mdlzip.model.transformer import Transformer
from mdlzip.quantised import tables
from mdlzip.quantised.network import tensor_shapes

OURS = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=32, window=8)
PAPER = ModelConfig(
    d_model=16, n_layers=2, n_heads=2, d_ff=32, window=0, conv_width=0, norm="layer",
    activation="gelu", positions="sinusoidal", biases=True, shared_norm=True,
)  # fmt: skip


def model(config: ModelConfig, chunk_size: int = 40) -> Transformer:
    net = Transformer(config, chunk_size)
    net.initialise(0)
    for p in net.parameters():  # no weight may stay zero, or the tests would see nothing
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return net


@pytest.mark.parametrize("config", [OURS, PAPER], ids=["mdl", "paper"])
def test_parameters_are_the_archives_tensors(config: ModelConfig) -> None:
    named = {n: tuple(p.shape) for n, p in Transformer(config, 40).named_parameters()}
    assert named == tensor_shapes(config)


@pytest.mark.parametrize(("name", "millions"), [("ut4", 3.9), ("ut25", 24.9)])
def test_the_papers_sizes(name: str, millions: float) -> None:
    shapes = tensor_shapes(load_preset(name).model)
    assert sum(math.prod(s) for s in shapes.values()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("config", [OURS, PAPER], ids=["mdl", "paper"])
@pytest.mark.parametrize("length", [40, 33])
def test_no_position_sees_itself_or_the_future(config: ModelConfig, length: int) -> None:
    net = model(config)
    symbols = torch.randint(0, 256, (2, length), generator=torch.Generator().manual_seed(1))
    before = net(symbols)
    symbols[:, 20] = (symbols[:, 20] + 1) % 256
    after = net(symbols)
    assert torch.equal(before[:, :21], after[:, :21])
    assert not torch.allclose(before[:, 21:], after[:, 21:])


def test_banded_attention_is_masked_attention() -> None:
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(2, 24, 3, 4, generator=generator) for _ in range(3))
    mask = torch.zeros(3, 8, 16).masked_fill(~layers.band_mask(24, 8), -math.inf)
    found = layers.banded_attention(q, k, v, 8, mask)
    i, j = torch.arange(24)[:, None], torch.arange(24)[None, :]
    scores = torch.einsum("bthk,bshk->bhts", q, k) / 2
    scores = scores.masked_fill(~((j <= i) & (j > i - 8)), -math.inf)
    expected = torch.einsum("bhts,bshk->bthk", scores.softmax(-1), v)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("function", ["rms_norm", "fast_causal_conv", "squared_relu"])
def test_hand_written_gradients(function: str) -> None:
    x = torch.randn(2, 5, 6, dtype=torch.float32, requires_grad=True)
    taps = torch.randn(3, 6, requires_grad=True)
    plain = {
        "rms_norm": lambda: x / (x.square().mean(-1, keepdim=True) + layers.NORM_EPS).sqrt(),
        "fast_causal_conv": lambda: layers.causal_conv(x, taps),
        "squared_relu": lambda: x.relu().square(),
    }[function]
    args = (x, taps) if "conv" in function else (x,)
    upstream = torch.randn(2, 5, 6)
    fast = getattr(layers, function)(*args)
    expected = plain()
    assert torch.allclose(fast, expected, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(fast, args, upstream),
        torch.autograd.grad(expected, args, upstream),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4)


def test_positions_agree_with_the_integer_twin() -> None:
    float_table = layers.sinusoidal_table(50, 16).numpy()
    assert np.abs(float_table * 4096 - tables.position_table(50, 16)).max() < 1.01
    turn = torch.view_as_real(layers.rotary_table(50, 16)).numpy()
    assert np.abs(turn * 2**14 - tables.rotation_table(50, 16)).max() < 0.51


def test_the_same_seed_gives_the_same_weights() -> None:
    one, two = Transformer(OURS, 40), Transformer(OURS, 40)
    one.initialise(5)
    two.initialise(5)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
