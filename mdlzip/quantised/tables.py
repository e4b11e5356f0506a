"""Tables of exp, sin, cos, erf and 1/sqrt made by integer code alone, the same on every machine.

No libm: Python's integers carry 192 fractional bits, series are summed until their terms vanish,
and the last step rounds half up. A table entry is part of the format.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

import numpy as np

_BITS = 192
_ONE = 1 << _BITS
_ROTATION_BITS = 14


def _round(x: int, bits: int) -> int:
    """x / 2**bits rounded half up."""
    return (x + (1 << (bits - 1))) >> bits


def _mul(a: int, b: int) -> int:
    return (a * b) >> _BITS


def _exp_small(x: int) -> int:
    """exp of a fixed-point |x| <= 1."""
    total, term, n = 0, _ONE, 0
    while term:
        total += term
        n += 1
        term = _mul(term, x) // n
        if term == -1:  # floor division never reaches 0 from below
            break
    return total


@lru_cache(maxsize=1)
def _ln_10000() -> int:
    """ln 10000 = 4 ln 10, with ln 10 = 3 ln 2 + ln 1.25 as 2 atanh series."""

    def twice_atanh(numerator: int, denominator: int) -> int:
        x = _ONE * numerator // denominator
        square, power, total, n = _mul(x, x), x, 0, 1
        while power:
            total += power // n
            power = _mul(power, square)
            n += 2
        return 2 * total

    return 4 * (3 * twice_atanh(1, 3) + twice_atanh(1, 9))


@lru_cache(maxsize=32)
def exp_table(scale_bits: int, per_nat: int) -> np.ndarray:
    """int64 [round(2**scale_bits * exp(-d / per_nat)) for d = 0, 1, ...], its non-zeros."""
    ratio = _exp_small(-_ONE // per_nat)
    values, x = [], _ONE
    while (v := _round(x, _BITS - scale_bits)) > 0:
        values.append(v)
        x = _mul(x, ratio)
    return np.array(values, dtype=np.int64)


@lru_cache(maxsize=2)
def rotation_table(length: int, width: int) -> np.ndarray:
    """int32 (length, width / 2, 2): round(2**14 * (cos, sin)) of t / 10000**(2 c / width).

    Position t = i * stride + j is turned by i * stride and then by j, both exact to 192 bits. Their
    product in float64 decides the rounding where it is clear, integers where it is not.
    """
    out = np.empty((length, width // 2, 2), dtype=np.int32)
    stride = isqrt(length - 1) + 1
    for c in range(width // 2):
        fine = _turns(_cos_sin(_rotation_angle(c, width)), stride)
        coarse = _turns(_turned(fine[-1], fine[1] if stride > 1 else fine[0]), -(-length // stride))
        out[:, c] = _rounded_products(coarse, fine, _ROTATION_BITS)[:length]
    return out


def _rotation_angle(c: int, width: int) -> int:
    """10000**(-2 c / width), at most 1."""
    exponent = 2 * c * _ln_10000() // width
    halvings = exponent.bit_length() - _BITS + 1 if exponent >= _ONE else 0
    angle = _exp_small(-(exponent >> max(halvings, 0)))
    for _ in range(max(halvings, 0)):
        angle = _mul(angle, angle)
    return angle


def _turned(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """(cos, sin) of the sum of two angles."""
    return _mul(a[0], b[0]) - _mul(a[1], b[1]), _mul(a[1], b[0]) + _mul(a[0], b[1])


def _turns(once: tuple[int, int], n: int) -> list[tuple[int, int]]:
    """(cos, sin) of 0, 1, .. n - 1 times an angle."""
    turns = [(_ONE, 0)]
    while len(turns) < n:
        turns.append(_turned(turns[-1], once))
    return turns


def _rounded_products(
    coarse: list[tuple[int, int]], fine: list[tuple[int, int]], bits: int
) -> np.ndarray:
    """int32 (len(coarse) * len(fine), 2): (cos, sin) of all sums, unit 2**-bits, half up."""
    first = np.array(coarse, dtype=object).astype(np.float64) * 2.0**-_BITS
    second = np.array(fine, dtype=object).astype(np.float64) * 2.0**-_BITS
    (a, b), (c, d) = first.T[:, :, None], second.T[:, None, :]
    scaled = np.stack((a * c - b * d, b * c + a * d), axis=-1).reshape(-1, 2) * 2.0**bits + 0.5
    found = np.floor(scaled)
    # An error of float64 is below 2**-34 here; closer to a half than that only integers tell.
    unclear = np.flatnonzero(np.abs(scaled - np.rint(scaled)).min(axis=1) < 2.0**-34)
    for t in unclear:
        exact = _turned(coarse[t // len(fine)], fine[t % len(fine)])
        found[t] = [_round(x, _BITS - bits) for x in exact]
    return found.astype(np.int32)


def _cos_sin(x: int) -> tuple[int, int]:
    """cos and sin of a fixed-point 0 <= x <= 1."""
    square, out = _mul(x, x), []
    for term, n in ((_ONE, 0), (x, 1)):
        total = 0
        while term:
            total += term
            term = -(_mul(abs(term), square) // ((n + 1) * (n + 2))) * (1 if term > 0 else -1)
            n += 2
        out.append(total)
    return out[0], out[1]


@lru_cache(maxsize=2)
def position_table(length: int, width: int) -> np.ndarray:
    """Unit 2**-12, int32 (length, width): the positions: sin in even, cos in odd columns."""
    pairs = rotation_table.__wrapped__(length, width)[:, :, ::-1]  # (sin, cos), unit 2**-14
    table = pairs.reshape(length, width)
    table += 2
    table >>= 2
    return table


@lru_cache(maxsize=1)
def gelu_table() -> np.ndarray:
    """int32 of 1024: round(2**10 * gelu(i / 64 - 8)), gelu(x) = x (1 + erf(x / sqrt 2)) / 2."""
    inverse_sqrt2 = isqrt(_ONE * _ONE // 2)
    pi = _pi()
    two_over_sqrt_pi = 2 * isqrt(_ONE * _ONE * _ONE // pi)
    values = []
    for i in range(1024):
        x = (i - 512) * (_ONE >> 6)
        z = _mul(abs(x), inverse_sqrt2)
        square, power, total, n = _mul(z, z), z, 0, 0
        while power:
            total += (-1) ** n * (power // (2 * n + 1))
            n += 1
            power = _mul(power, square) // n
        erf = min(_mul(total, two_over_sqrt_pi), _ONE)
        gelu = _mul(x, _ONE + (erf if x >= 0 else -erf)) // 2
        values.append(_round(gelu, _BITS - 10))
    return np.array(values, dtype=np.int32)


def _pi() -> int:
    """Machin: pi = 16 atan(1/5) - 4 atan(1/239)."""

    def atan_inverse(k: int) -> int:
        power, total, n, sign = _ONE // k, 0, 1, 1
        while power:
            total += sign * (power // n)
            power //= k * k
            n, sign = n + 2, -sign
        return total

    return 16 * atan_inverse(5) - 4 * atan_inverse(239)


@lru_cache(maxsize=1)
def rsqrt_table() -> np.ndarray:
    """int64 of 256: first guess round(2**44 / sqrt((i + 1/2) 2**22)); entries below 64 unused."""
    values = [0] * 64
    for i in range(64, 256):
        values.append(isqrt((1 << 89) // ((2 * i + 1) << 22)))
    return np.array(values, dtype=np.int64)
