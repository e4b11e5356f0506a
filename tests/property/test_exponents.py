"""Both twins at the extremes of every exponent that a file can set: the same integers, or refused.

First each kernel alone, over all shifts that the page allows and numbers at their bounds; then
whole networks, over all values of each exponent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from mdlzip import limits
from mdlzip.config import ModelConfig
from mdlzip.errors import ExportRefused
from mdlzip.networks.registry import activation_sites, tensor_shapes
from mdlzip.quantised import kernels_cpu as kc
from mdlzip.quantised import kernels_torch as kt
from mdlzip.quantised import tables
from mdlzip.quantised.attention_cpu import attention_kernel, attention_work, seen_shapes
from mdlzip.quantised.forward_cpu import pairs_apart
from mdlzip.quantised.int8_products import usable_kinds
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.quantised.predictor import Predictor, shifted
from mdlzip.quantised.prepared import (
    ATTENTION_SHIFT,
    MAX_CONVOLUTION,
    MAX_GAIN,
    MAX_LEFT_SHIFT,
    MAX_NORM_BIAS,
    MAX_PRODUCT,
    MAX_RIGHT_SHIFT,
    MAX_TAP,
    attention_table,
    prepare,
)

SITES = range(limits.MIN_ACTIVATION_EXPONENT, limits.MAX_ACTIVATION_EXPONENT + 1)
SHIFTS = range(-MAX_LEFT_SHIFT, MAX_RIGHT_SHIFT + 1)
MANTISSAS = (1, 3, 40000, 65535)
STREAM = 1 << 25


def tensor(a: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(a).astype(np.int64))


def sums(mantissa: int, shift: int) -> np.ndarray:
    """Sums of a product, int32 (1, n): at the bound, around halves of the rounding, and small."""
    most = min((MAX_PRODUCT - 1) // mantissa >> max(0, -shift), 127 * 63 * 16384)
    half = (1 << max(shift - 1, 0)) // mantissa
    near = [half * k + j for k in (1, 3) for j in (-2, -1, 0, 1, 2)]
    values = [0, 1, 2, most, most - 1, most // 2, most // 3, *near]
    values = [v for v in values if 0 <= v <= most]
    both = np.array([*values, *(-v for v in values)])
    return both.reshape(1, -1).astype(np.int32)


def cases() -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    for shift, mantissa in product(SHIFTS, MANTISSAS):
        acc = sums(mantissa, shift)
        bias = np.resize([0.0, 1.0, -1.0, 2.0**30, -(2.0**30)], acc.shape[-1])
        yield shift, mantissa, acc, bias


def test_residual() -> None:
    for shift, mantissa, acc, bias in cases():
        x = np.resize([0, 7, STREAM - 1, -STREAM], acc.shape).astype(np.int32)
        expected = kt.add_residual(tensor(x), tensor(acc), mantissa, shift, tensor(bias))
        kc.add_residual(x, acc[0], acc.shape[1], mantissa * 2.0**-shift, bias)
        assert np.array_equal(x, expected.numpy()), (shift, mantissa)


@pytest.mark.parametrize("exponent", SITES)
def test_activations(exponent: int) -> None:
    table = tables.gelu_table()
    for shift, mantissa, acc, bias in cases():
        factor, out, n = mantissa * 2.0**-shift, np.empty(acc.shape, np.uint8), acc.shape[1]
        exact = (tensor(acc), mantissa, shift, tensor(bias), exponent)
        kc.squared_relu(1, acc[0], n, factor, bias, exponent, out[0], n)
        assert np.array_equal(codes(out), kt.squared_relu(*exact).numpy()), (shift, mantissa)
        kc.gelu(1, acc[0], n, factor, bias, exponent, table, out[0], n)
        assert np.array_equal(codes(out), kt.gelu(*exact, tensor(table)).numpy()), (shift, mantissa)


def codes(stored: np.ndarray) -> np.ndarray:
    return stored.astype(np.int64) - 128


def test_logits() -> None:
    for shift, mantissa, acc, bias in cases():
        n = acc.shape[-1] - 1
        out, work = np.empty(n, np.uint16), np.empty((2, max(n, 16)))
        kc.logit_gaps(acc[0], mantissa * 2.0**-shift, bias, 1000, 2, -(2.0**30), *work, out)
        guess = (torch.tensor([[2]]), torch.tensor([[-(1 << 30)]]))
        expected = kt.logit_gaps(tensor(acc[None]), mantissa, shift, tensor(bias), 1000, guess)
        assert np.array_equal(out, expected.numpy()[0, 0]), (shift, mantissa)


def streams(d: int) -> np.ndarray:
    """Rows of the residual stream: nothing, one, all at the bounds, one entry against the rest."""
    rows = np.zeros((9, d), np.int32)
    rows[1, 0] = 1
    rows[2], rows[3] = STREAM - 1, -STREAM
    rows[4, ::2], rows[4, 1::2] = STREAM - 1, -STREAM
    rows[5, 0], rows[6, -1] = STREAM - 1, -STREAM
    rows[7] = np.arange(d) - d // 2
    rows[8] = np.random.default_rng(1).integers(-STREAM, STREAM, d)
    return rows[None]


@pytest.mark.parametrize("layer", [False, True])
@pytest.mark.parametrize("width", [0, 1, limits.MAX_CONV_WIDTH])
@pytest.mark.parametrize("d", [8, limits.MAX_D_MODEL])
def test_norm_and_convolution(d: int, width: int, layer: bool) -> None:
    table, x = tables.rsqrt_table(), streams(d)
    bounds = [(1 << 12, 0), (MAX_GAIN - 1, MAX_NORM_BIAS - 1), (1 - MAX_GAIN, 1 - MAX_NORM_BIAS)]
    for exponent, (gain, bias) in product(SITES, bounds if layer else bounds[:1]):
        most = MAX_CONVOLUTION // ((128 * abs(gain) + abs(bias)) * max(width, 1))
        tap = min(most - 1, MAX_TAP - 1)
        taps = np.full((width, d), float(tap))
        taps[:, ::3] *= -1
        gains, biases = (np.full(d if layer else 0, float(v)) for v in (gain, bias))
        history = np.zeros((1, max(width - 1, 0), d), np.int64)
        ring, n = np.zeros((1, width, d), np.int32), x.shape[1]
        exact, kept = kt.norm_conv(
            tensor(x), tensor(history), tensor(taps), tensor(gains), tensor(biases), layer,
            exponent, tensor(table),
        )  # fmt: skip
        out = np.empty(x.shape[1:], np.uint8)
        kc.norm_codes(
            x[0], (0, 1, 0, n), ring, taps.ravel(), gains, biases, layer, exponent, table,
            np.empty((2, d)), np.empty(d, np.int32), out.ravel(), d,
        )  # fmt: skip
        assert np.array_equal(codes(out), exact.numpy()[0]), (exponent, gain)
        if width > 1:
            last = [ring[0, p % width] for p in range(n - width + 1, n)]
            assert np.array_equal(last, kept.numpy()[0]), (exponent, gain)


@pytest.mark.parametrize("e_qk", range(-4, 13))
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("kind", usable_kinds())
def test_attention(kind: str, rotary: bool, e_qk: int) -> None:
    b, t, d, heads, w = 2, 5, 8, 2, 3
    rng = np.random.default_rng(e_qk + 20)
    rotation = np.zeros((0, 1, 2), np.int32)
    if rotary:
        rotation = tables.rotation_table(t, d // heads)
    exps, scale, attend = attention_table(w), 32768, attention_kernel(kind)
    work = attention_work(d // heads, w)
    allowed = [(v, o) for v, o in product(SITES, SITES) if ATTENTION_SHIFT + v - o <= 62]
    assert len(allowed) == 25 * 25 - 3
    for (e_v, e_out), shift in zip(allowed, np.resize(list(SHIFTS), len(allowed)), strict=True):
        shift = int(shift)
        most = min(MAX_PRODUCT - 1 >> max(0, -shift), 127 * 63 * 4096)
        size = min(most, 1 << max(shift + 7, 1))
        size = min(size, (1 << 31) - 1)
        acc = rng.integers(-size, size + 1, (b, t, 3 * d)).astype(np.int32)
        bias = np.zeros(3 * d)
        seen = [np.zeros(shape[1:], np.int32) for shape in seen_shapes(b, 1, heads, d // heads, w)]
        out = np.empty((b * t, d), np.uint8)
        order = pairs_apart(d, d // heads) if rotary else np.arange(3 * d)
        attend(
            acc.reshape(b * t, -1)[:, order].ravel(), 3 * d, (0, b, 0, t),
            (2.0**-shift, 2.0**-shift), bias, np.ascontiguousarray(rotation.transpose(0, 2, 1)), w,
            tuple(seen), exps, scale, (e_qk, e_v, e_out), np.empty(2 * d), work, out.ravel(), d,
        )  # fmt: skip
        none = torch.zeros((b, 0, heads, d // heads), dtype=torch.int64)
        exact, _, _ = kt.attend(
            tensor(acc), 1, (shift, shift), tensor(bias), tensor(rotation), 0, heads, none, none, w,
            tensor(exps), scale, (e_qk, e_v, e_out),
        )  # fmt: skip
        assert np.array_equal(codes(out).reshape(b, t, d), exact.numpy()), (e_v, e_out, shift)


# --- whole networks -------------------------------------------------------------------------------

FAMILIES = (
    ModelConfig(d_model=8, n_layers=1, d_ff=8, window=4, conv_width=2),
    ModelConfig(
        d_model=8, n_layers=1, n_heads=2, d_ff=8, window=0, conv_width=0, norm="layer",
        activation="gelu", positions="sinusoidal", biases=True, shared_norm=True, match_min=0,
    ),
    ModelConfig(
        d_model=8, n_layers=1, n_heads=2, d_ff=8, window=3, conv_width=8, norm="layer", biases=True,
    ),
)  # fmt: skip
LENGTH = 10
TEXT = np.random.default_rng(9).integers(97, 101, (2, LENGTH)).astype(np.uint8)


def network(config: ModelConfig) -> IntegerNetwork:
    rng, tensors = np.random.default_rng(8), {}
    for name, shape in tensor_shapes(config).items():
        limit = limits.MAX_MATRIX_CODE if len(shape) == 2 else limits.MAX_VECTOR_CODE
        codes = rng.integers(-limit, limit + 1, shape).astype(np.int8)
        tensors[name] = QuantTensor(codes, 40000, 20)
    return IntegerNetwork(config, tensors, dict.fromkeys(activation_sites(config), 4))


def agree(net: IntegerNetwork) -> bool:
    """Whether the network is within bounds; then the twins must agree."""
    try:
        prepare(net)
    except ExportRefused:
        return False
    previous, found = shifted(TEXT), []
    for kernels, products in (("cpu", "auto"), ("torch", "float64")):
        predictor = Predictor(net, LENGTH, kernels=kernels, products=products)
        gaps = predictor.forward(previous, predictor.new_state(len(previous)))
        found.append(np.asarray(gaps).astype(np.int64))
    assert np.array_equal(*found)
    return True


def with_site(net: IntegerNetwork, site: str, exponent: int) -> IntegerNetwork:
    return replace(net, exponents={**net.exponents, site: exponent})


@pytest.mark.parametrize("config", FAMILIES, ids=["ours", "paper", "mixed"])
def test_every_exponent_of_every_site(config: ModelConfig) -> None:
    net = network(config)
    assert agree(net)
    good = [agree(with_site(net, s, e)) for s, e in product(net.exponents, SITES)]
    assert sum(good) > len(good) // 2
    v, out = "blocks.0.v", "blocks.0.attn_out"
    for a, b in product(SITES, SITES):
        assert agree(with_site(with_site(net, v, a), out, b)) == (a - b <= 22)


@pytest.mark.parametrize("config", FAMILIES, ids=["ours", "paper", "mixed"])
def test_every_exponent_of_every_step(config: ModelConfig) -> None:
    net = network(config)
    most = limits.MAX_STEP_EXPONENT
    good = 0
    for name, old in net.tensors.items():
        for exponent in range(-most, most + 1):
            mantissa = 1 if exponent % 5 == 2 else limits.MAX_STEP_MANTISSA
            changed = QuantTensor(old.codes, mantissa, exponent)
            good += agree(replace(net, tensors={**net.tensors, name: changed}))
    assert good > 15 * len(net.tensors)


def test_the_final_norm_has_the_bounds_of_the_others() -> None:
    net = network(FAMILIES[1])
    for name, limit in (("gain", MAX_GAIN), ("bias", MAX_NORM_BIAS)):
        for norm in ("final_norm", "blocks.0.norm"):
            for size, good in ((limit - 1, True), (limit, False)):
                # code * mantissa * 2^-exponent in units of 2^-12: 64 * 2^15 * 2^k, or 1 less
                codes = np.full(8, 64 if size == limit else 63, np.int8)
                shift = (limit.bit_length() - 1) - 6 - 15
                whole = QuantTensor(codes, 1 << 15, 12 - shift)
                key = f"{norm}.{name}"
                assert agree(replace(net, tensors={**net.tensors, key: whole})) == good, key


def test_a_convolution_that_float64_cannot_carry_is_refused() -> None:
    """Each number keeps its own bound; their product is what is too large."""
    net = network(FAMILIES[2])
    norm, conv = "blocks.0.attn_norm.gain", "blocks.0.attn.conv"
    wide = QuantTensor(np.full(8, 63, np.int8), 1 << 15, 12)  # gains of 63 * 2^15 < 2^22
    taps = QuantTensor(np.full((8, 8), 63, np.int8), 1 << 15, 9)
    assert agree(replace(net, tensors={**net.tensors, norm: wide}))
    assert agree(replace(net, tensors={**net.tensors, conv: taps}))
    with pytest.raises(ExportRefused, match="conv with its norm is too large"):
        prepare(replace(net, tensors={**net.tensors, norm: wide, conv: taps}))
