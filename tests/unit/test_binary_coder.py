"""The binary range coder and its tables: exact, bounded, and carries in the right place."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from mdlzip.coding.binary_coder import (
    ONE,
    POSITION,
    STRETCH_LIMIT,
    cost_table,
    decode_bit,
    encode_bit,
    finish,
    jit,
    new_decoder,
    new_encoder,
    squash_table,
    stretch_table,
)


@jit
def encode_all(state: np.ndarray, out: np.ndarray, bits: np.ndarray, p: np.ndarray) -> None:
    for i in range(bits.size):
        encode_bit(state, out, bits[i], p[i])


@jit
def decode_all(state: np.ndarray, data: np.ndarray, bits: np.ndarray, p: np.ndarray) -> None:
    for i in range(bits.size):
        bits[i] = decode_bit(state, data, p[i])


def encode(bits: np.ndarray, p: np.ndarray) -> np.ndarray:
    state, out = new_encoder(), np.zeros(2 * bits.size + 16, dtype=np.uint8)
    encode_all(state, out, bits, p)
    return out[: finish(state, out)].copy()


def decode(data: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, int]:
    state, bits = new_decoder(data), np.zeros(p.size, dtype=np.int64)
    decode_all(state, data, bits, p)
    return bits, int(state[POSITION])


def digest(table: np.ndarray) -> str:
    return hashlib.sha256(table.astype("<i8").tobytes()).hexdigest()[:16]


def test_squash_is_the_logistic_function_and_symmetric() -> None:
    table = squash_table()
    assert table.size == 2 * STRETCH_LIMIT and table.min() == 1 and table.max() == ONE - 1
    assert (np.diff(table) >= 0).all()
    for x in (-7000, -1024, 0, 1, 512, 3000):
        exact = ONE / (1 + math.exp(-x / 1024))
        assert abs(table[x + STRETCH_LIMIT] - exact) <= 1
        assert table[x + STRETCH_LIMIT] + table[STRETCH_LIMIT - x] == ONE


def test_stretch_undoes_squash() -> None:
    table, squash = stretch_table(), squash_table()
    assert (np.diff(table) >= 0).all()
    middle = 16 * np.arange(table.size) + 8
    assert (np.abs(squash[table + STRETCH_LIMIT] - middle) <= 17).all()


def test_tables_are_the_ones_of_the_format() -> None:
    assert digest(squash_table()) == "bb771168b32704e0"
    assert digest(stretch_table()) == "279423a08cd67d2b"


def test_cost_is_minus_log2() -> None:
    table = cost_table()
    assert table[ONE] == 0 and table[ONE // 2] == 1 << 16 and table[1] == 16 << 16


@pytest.mark.parametrize("seed", range(3))
def test_round_trip_and_length_near_the_ideal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.integers(1, ONE, size=20_000)
    bits = (rng.integers(0, ONE, size=p.size) < p).astype(np.int64)
    data = encode(bits, p)
    back, read = decode(data, p)
    assert (back == bits).all() and data.size <= read
    ideal = cost_table()[np.where(bits, p, ONE - p)].sum() / (1 << 16) / 8
    assert ideal - 1 <= data.size <= ideal * 1.0001 + 3


@pytest.mark.parametrize("p", [1, 2, ONE // 2, ONE - 2, ONE - 1])
@pytest.mark.parametrize("bit", [0, 1])
def test_improbable_bits_survive(p: int, bit: int) -> None:
    bits, ps = np.full(3000, bit), np.full(3000, p)
    data = encode(bits, ps)
    assert (decode(data, ps)[0] == bits).all()


def test_carry_runs_through_waiting_bytes() -> None:
    # Always the upper part of nearly the whole range: low creeps up to 0xFFFF..., then overflows.
    ps = np.array([1, *[ONE - 1] * 5, *[1] * 40, *[ONE // 2] * 64] * 20)
    rng = np.random.default_rng(5)
    for _ in range(20):
        bits = rng.integers(0, 2, size=ps.size)
        assert (decode(encode(bits, ps), ps)[0] == bits).all()


def test_certain_bits_cost_next_to_nothing() -> None:
    assert encode(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)).size == 0
    assert encode(np.ones(1000, dtype=np.int64), np.full(1000, ONE - 1)).size <= 1


def test_decoder_reads_zeros_past_the_end() -> None:
    p = np.full(500, ONE // 3)
    bits, read = decode(np.zeros(0, dtype=np.uint8), p)
    again, _ = decode(np.zeros(200, dtype=np.uint8), p)
    assert (bits == again).all() and read > 4


def test_golden_bytes() -> None:
    bits = np.array([1, 0, 1, 1, 0, 0, 0, 1, 0, 1] * 4)
    p = np.array([40000, 20000, 65000, 300, 1, 65535, 32768, 12345, 54321, 777] * 4)
    assert encode(bits, p).tobytes().hex() == "302d374bc30bfa2db757a84239131932ba0a13"
