"""The adaptive model of weights: exact, and worth its name against order-0 entropy."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mdlzip.coding import weight_kernel
from mdlzip.coding.weight_model import WeightDecoder, WeightEncoder
from mdlzip.coding.weight_tables import MAX_MAGNITUDE, N_NODES, magnitude_tree
from mdlzip.networks.registry import tensor_specs
from mdlzip.networks.spec import BandSpec, code_limit
from tests.weight_tools import (
    PAPER,
    TINY,
    laplace_codes,
    order0_bits,
    random_network,
    structured_codes,
)

Tensors = list[tuple[str, np.ndarray]]


def bands(name: str, shape: tuple[int, ...]) -> list[BandSpec]:
    """The bands of the tensor `name`, stretched to another shape."""
    old = {**tensor_specs(PAPER), **tensor_specs(TINY)}[name].bands
    n = (shape[0] if len(shape) == 2 else 1) // len(old)
    return [replace(band, start=i * n, stop=(i + 1) * n) for i, band in enumerate(old)]


def encode(tensors: Tensors) -> bytes:
    encoder = WeightEncoder()
    for name, codes in tensors:
        encoder.encode(bands(name, codes.shape), codes)
    return encoder.finish()


def decode(stream: bytes, tensors: Tensors) -> tuple[list[np.ndarray], int]:
    decoder = WeightDecoder(stream)
    return [
        decoder.decode(bands(name, c.shape), c.shape) for name, c in tensors
    ], decoder.unread_bytes


def test_tree_reaches_every_magnitude_once() -> None:
    tree = magnitude_tree()
    leaves: list[int] = []

    def walk(node: int, low: int, high: int) -> None:
        if node < 0:
            assert low == high == -1 - node
            leaves.append(low)
            return
        threshold = int(tree[0, node])
        assert low < threshold <= high
        walk(int(tree[1, node]), low, threshold - 1)
        walk(int(tree[2, node]), threshold, high)

    walk(0, 0, MAX_MAGNITUDE)
    assert leaves == list(range(MAX_MAGNITUDE + 1))
    assert len({*tree[1], *tree[2]}) <= 2 * N_NODES


@pytest.mark.parametrize("config", [TINY, PAPER])
def test_bands_cover_every_tensor(config: object) -> None:
    for name, spec in tensor_specs(config).items():
        rows = spec.shape[0] if len(spec.shape) == 2 else 1
        covered = [r for band in spec.bands for r in range(band.start, band.stop)]
        assert covered == list(range(rows)), name


@pytest.mark.parametrize("density", [0.0, 0.02, 0.4, 1.0])
def test_round_trip(density: float) -> None:
    rng = np.random.default_rng(3)
    shapes = {"embedding": (257, 16), "blocks.0.attn.qkv": (48, 16), "head_bias": (256,)}
    tensors = [(n, laplace_codes(rng, s, density, 30)) for n, s in shapes.items()]
    back, unread = decode(encode(tensors), tensors)
    assert unread == 0
    assert all(np.array_equal(a, b) for (_, a), b in zip(tensors, back, strict=True))


def test_extreme_codes_round_trip() -> None:
    for shape in ((7, 1), (1, 9), (5, 33), (40,)):
        top = code_limit(shape)
        for codes in (np.full(shape, top), np.full(shape, -top)):
            tensors = [("blocks.0.mlp.up", codes.astype(np.int8))]
            assert np.array_equal(decode(encode(tensors), tensors)[0][0], codes)


def test_any_bytes_decode_within_the_limit() -> None:
    rng = np.random.default_rng(1)
    shapes = [("embedding", (257, 16)), ("blocks.0.mlp.conv", (3, 16)), ("head_bias", (256,))]
    for n in (0, 1, 5, 400, 9000):
        decoder = WeightDecoder(rng.bytes(n))
        for name, shape in shapes:
            codes = decoder.decode(bands(name, shape), shape)
            assert np.abs(codes.astype(int)).max() <= code_limit(shape)


def test_length_is_the_cost_that_is_reported() -> None:
    rng = np.random.default_rng(4)
    encoder = WeightEncoder()
    codes = laplace_codes(rng, (96, 96), 0.3, 5)
    encoder.encode(bands("blocks.0.attn.out", codes.shape), codes)
    zero, value = encoder.spent_bits
    assert zero > 0 and value > 0
    assert abs(len(encoder.finish()) - (zero + value) / 8) <= 2


@pytest.mark.parametrize(
    ("density", "size", "over"), [(0.1, 3, 0.02), (0.3, 4, 0.01), (0.5, 8, 0.01), (0.95, 15, 0.01)]
)
def test_independent_codes_cost_little_more_than_order0(
    density: float, size: float, over: float
) -> None:
    codes = laplace_codes(np.random.default_rng(7), (128, 128), density, size)
    bits = 8 * len(encode([("blocks.0.attn.out", codes)]))
    assert bits <= order0_bits(codes) * (1 + over)


@pytest.mark.parametrize("density", [0.1, 0.3, 0.8])
def test_structured_codes_cost_less_than_order0(density: float) -> None:
    codes = structured_codes(np.random.default_rng(8), (256, 128), density, 5)
    bits = 8 * len(encode([("blocks.0.mlp.up", codes)]))
    assert bits <= order0_bits(codes) * 0.97


def test_dead_hidden_units_are_known_to_the_next_matrix() -> None:
    rng = np.random.default_rng(9)
    dead = rng.random(192) < 0.5
    up, down = laplace_codes(rng, (192, 64), 0.5, 3), laplace_codes(rng, (64, 192), 0.5, 3)
    up[dead], down[:, dead] = 0, 0
    together = len(encode([("blocks.0.mlp.up", up), ("blocks.0.mlp.down", down)]))
    apart = len(encode([("blocks.0.mlp.up", up), ("blocks.1.mlp.down", down)]))
    assert together < apart


def test_a_tensor_gains_from_the_like_one_before() -> None:
    rng = np.random.default_rng(10)
    first = laplace_codes(rng, (64, 64), 0.3, 4)
    twice = len(encode([("blocks.0.attn.out", first), ("blocks.1.attn.out", first)]))
    assert twice < 1.7 * len(encode([("blocks.0.attn.out", first)]))


def test_the_stream_never_changes() -> None:
    network = random_network(seed=11)
    stream = encode([(n, t.codes) for n, t in network.tensors.items()])
    assert (len(stream), hashlib.sha256(stream).hexdigest()[:16]) == GOLDEN


GOLDEN = (3519, "95241f20eee4b844")


def test_encoder_and_decoder_share_one_compiled_kernel() -> None:
    tensors = [("blocks.0.attn.out", np.eye(8, dtype=np.int8))]
    tensors[0][1].setflags(write=False)
    decode(encode(tensors), tensors)
    assert len(weight_kernel.code_rows.signatures) == 1  # type: ignore[attr-defined]


def test_compiled_code_is_imported_late() -> None:
    code = "import mdlzip.archive.weights, sys; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
