"""Products of small integers by every kind of instruction that this processor has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mdlzip import limits
from mdlzip.quantised import int8_products
from mdlzip.quantised.int8_products import BLOCK, GROUP, KINDS, OFFSET, pack, padded, usable_kinds

SHAPES = [(1, 1, 1), (1, 8, 16), (3, 66, 40), (4, 128, 64), (5, 12, 130), (7, 400, 513)]


def random(shape: tuple[int, int], limit: int, extreme: bool) -> np.ndarray:
    rng = np.random.default_rng(shape[0])
    if extreme:
        return limit * rng.choice([-1, 1], shape)
    return rng.integers(-limit, limit + 1, shape)


def call(
    multiply: Any, rows: np.ndarray, packed: np.ndarray, start: np.ndarray, sums: np.ndarray
) -> None:
    places = [array.ctypes.data for array in (rows, packed, start, sums)]
    multiply(*places, len(rows), *packed.shape[:2], packed.strides[0])


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", usable_kinds())
def test_sums_are_exact(kind: str, signed: bool, extreme: bool) -> None:
    limit = 127 if signed else limits.MAX_MATRIX_CODE
    offset = KINDS[kind].offset if signed else OFFSET
    multiply = int8_products.kernel(kind, signed=signed)
    for t, k, n in SHAPES:
        matrix, codes = random((n, k), limit, extreme), random((t, k), 127, extreme)
        if extreme:
            codes[0] = -127  # all of one sign, against all of one sign
            matrix[0] = limit
        packed, start = pack(matrix.astype(np.int8))
        rows = np.full((t, padded(k, GROUP)), 200, np.uint8)  # what is beyond k meets zeros
        rows[:, :k] = (codes + offset).astype(np.uint8)
        sums = np.empty((t, padded(n, BLOCK)), np.int32)
        call(multiply, rows, packed, start if offset else 0 * start, sums)
        assert np.array_equal(sums[:, :n], codes @ matrix.T.astype(np.int64)), (t, k, n)
        assert not sums[:, n:].any()


def test_digits_of_weights_of_attention_are_exact() -> None:
    """All of them at their largest against all values at theirs, as `avx2` adds them in pairs."""
    for kind in usable_kinds():
        digits = np.full((2, 512), (1 << KINDS[kind].digit_bits) - 1, np.uint8)
        values = np.full((16, 512), -127, np.int8)
        packed, _ = pack(values)
        sums = np.empty((2, 16), np.int32)
        multiply = int8_products.kernel(kind, signed=True)
        call(multiply, digits, packed, np.zeros(16, np.int32), sums)
        assert (sums == -127 * 512 * int(digits[0, 0])).all(), kind


def test_the_fastest_kind_comes_first() -> None:
    kinds = usable_kinds()
    assert kinds[-1] == "plain"
    assert kinds == [kind for kind in KINDS if kind in kinds]
    assert int8_products.host_kind() == kinds[0]
