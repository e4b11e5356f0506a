"""Integer-made tables against libm, and pinned by digest: they are part of the format."""

from __future__ import annotations

import math
from hashlib import sha256

import numpy as np
import pytest

from mdlzip.quantised import tables


def digest(a: np.ndarray) -> str:
    return sha256(a.astype("<i8").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("bits", "per_nat"), [(22, 64), (15, 128), (10, 128)])
def test_exp(bits: int, per_nat: int) -> None:
    table = tables.exp_table(bits, per_nat)
    exact = 2.0**bits * np.exp(-np.arange(len(table)) / per_nat)
    assert np.abs(table - exact).max() <= 0.5 + 1e-6
    assert table[-1] == 1 and 2.0**bits * math.exp(-len(table) / per_nat) < 0.5


def test_rotation() -> None:
    table = tables.rotation_table(700, 48)
    angle = np.arange(700)[:, None] / 10000 ** (2 * np.arange(24) / 48)
    assert np.abs(table[..., 0] - 2**14 * np.cos(angle)).max() <= 0.5 + 1e-6
    assert np.abs(table[..., 1] - 2**14 * np.sin(angle)).max() <= 0.5 + 1e-6


def test_gelu() -> None:
    x = np.arange(1024) / 64 - 8
    exact = np.array([1024 * v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x])
    assert np.abs(tables.gelu_table() - exact).max() <= 0.5 + 1e-6


def test_positions_are_the_papers() -> None:
    table = tables.position_table(512, 320)
    assert table.shape == (512, 320)
    assert abs(table[3, 0] - 4096 * math.sin(3)) < 1 and abs(table[3, 1] - 4096 * math.cos(3)) < 1


def test_rsqrt() -> None:
    from mdlzip.quantised.kernels_cpu import rsqrt

    for v in (1, 2, 3, 4095, 2**24, 2**40 + 12345, 2**61):
        r, s = rsqrt(v, tables.rsqrt_table())
        assert abs(r / 2.0**s * math.sqrt(v) - 1) < 1e-6


def test_pinned() -> None:
    found = [
        digest(tables.exp_table(22, 64)),
        digest(tables.exp_table(15, 128)),
        digest(tables.rotation_table(512, 128)),
        digest(tables.position_table(512, 320)),
        digest(tables.gelu_table()),
        digest(tables.rsqrt_table()),
    ]
    assert found == PINNED


PINNED = [
    "37af87507030daf1",
    "9bc84bf64f0138ce",
    "cffefc022733903b",
    "5c19f01ea812f9a3",
    "3c3359554247e242",
    "befd9d840e02b842",
]
