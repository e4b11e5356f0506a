"""The float transformer: causality, the two families, attention against a plain reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mdlzip.config import ModelConfig, load_preset
from mdlzip.model import attention, layers
from mdlzip.model.transformer import Transformer
from mdlzip.networks.registry import tensor_shapes
from mdlzip.quantised import tables

OURS = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=32, window=8)
PAPER = ModelConfig(
    d_model=16, n_layers=2, n_heads=2, d_ff=32, window=0, conv_width=0, norm="layer",
    activation="gelu", positions="sinusoidal", biases=True, shared_norm=True, match_min=0,
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


def plain_attention(
    qkv: torch.Tensor, heads: int, window: int, table: torch.Tensor | None
) -> torch.Tensor:
    """By the definition: turn, score, mask, softmax, sum."""
    b, t, _ = qkv.shape
    q, k, v = qkv.view(b, t, 3, heads, -1).unbind(2)
    if table is not None:
        turn = table[:t, None, :]
        q, k = (
            torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)
            for x in (q, k)
        )
    i, j = torch.arange(t)[:, None], torch.arange(t)[None, :]
    scores = torch.einsum("bthk,bshk->bhts", q, k) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~((j <= i) & (j > i - window)), -math.inf)
    return torch.einsum("bhts,bshk->bthk", scores.softmax(-1), v).flatten(2)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("length", "window"), [(24, 8), (21, 8), (5, 8), (24, 0)])
def test_attention_and_its_gradient(length: int, window: int, turned: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    qkv = torch.randn(2, length, 36, generator=generator, requires_grad=True)
    upstream = torch.randn(2, length, 12, generator=generator)
    table = layers.rotary_table(24, 4) if turned else None
    qk, v = attention.split_heads(qkv, 3, window, table)
    if window:
        mask = attention.band_mask(24, window)[: -(-length // window) + 1]
        found = attention.banded_attention(qk, v, length, mask)
    else:
        found = attention.full_attention(qk, v)
    expected = plain_attention(qkv, 3, window or length, table)
    assert torch.allclose(found, expected, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(found, qkv, upstream),
        torch.autograd.grad(expected, qkv, upstream),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("function", ["rms_norm", "causal_conv", "squared_relu"])
def test_hand_written_gradients(function: str) -> None:
    x = torch.randn(2, 5, 6, dtype=torch.float32, requires_grad=True)
    taps = torch.randn(3, 6, requires_grad=True)
    plain = {
        "rms_norm": lambda: x / (x.square().mean(-1, keepdim=True) + layers.NORM_EPS).sqrt(),
        "causal_conv": lambda: sum(
            tap * F.pad(x, (0, 0, j, 0))[:, : x.shape[1]] for j, tap in enumerate(taps)
        ),
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
