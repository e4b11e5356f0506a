"""The integer steps between matrix products, row by row, for the CPU (numba).

Integers are carried in float64 where that is faster: every value is a whole number (or a whole
number times a power of two) below 2**53, so each multiplication, addition and floor is exact, and
neither the instruction set nor a fused multiplication and addition, which `bare` allows, can change
a bit. The bounds are those that `prepared.prepare` checks and the clamps below enforce.

The twin for other devices is `kernels_torch`, in plain int64; both follow
`docs/format-predictor.md`.

Shapes: B chunks, R rows, each a position of a chunk; D width, H heads, K head width, F feed-forward
width, V symbols of the vocabulary. Codes and sums are flat memory, `width` places a row, of which
the first ones are in use. A `span` is (b, b', p, n): the rows are those of the chunks
b..b' - 1 at the n positions from p on, chunk by chunk. Rows of codes are uint8, code + 128, for
`int8_products`. `factor` arguments are mantissa * 2**-shift, an exact float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from mdlzip.process.kernels import compiled

_POWERS = 0.5 ** np.arange(64.0)  # `**` is a call that takes as long as a loop over a row
_LANES = 16
F = TypeVar("F", bound=Callable[..., Any])


def bare(function: F) -> F:
    """A kernel that makes no arrays and never raises: less machine code, made in less time."""
    return compiled(error_model="numpy", _nrt=False, fastmath={"contract"})(function)


@compiled(inline="always")
def clip(x, low, high):  # type: ignore[no-untyped-def]
    """x, but not below `low` nor above `high`."""
    return min(max(x, low), high)


@compiled(inline="always")
def stored(x):  # type: ignore[no-untyped-def]
    """x rounded half up and clipped to a code of 8 bits, + 128; x + 128.5 must be exact."""
    return np.uint8(np.int32(clip(x + 128.5, 1.0, 255.0)))


@bare
def rsqrt(v, table):  # type: ignore[no-untyped-def]
    """(r, s) with r / 2**s close to 1 / sqrt(v); 1 <= v < 2**62."""
    n, rest = np.int64(1), v
    for step in (32, 16, 8, 4, 2, 1):
        if rest >> step > 0:
            n += step
            rest >>= step
    e = n + (n & 1)
    m = v << (30 - e) if e <= 30 else v >> (e - 30)
    r = table[m >> 22]
    for _ in range(2):
        t = (m * ((r * r) >> 30)) >> 28
        r = (r * ((np.int64(3) << 30) - t)) >> 31
    return r >> 4, 25 + e // 2


@bare
def add_residual(x, sums, width, factor, bias):  # type: ignore[no-untyped-def]
    """x (R, D) int32 += requantised sums, unit 2**-12, clamped to 2**25."""
    for r in range(x.shape[0]):
        row, xs = sums[r * width : (r + 1) * width], x[r]
        for d in range(x.shape[1]):
            y = np.floor(np.float64(row[d]) * factor + 0.5) + bias[d] + np.float64(xs[d])
            xs[d] = np.int32(clip(y, -33554432.0, 33554431.0))


@bare
def normed(x, gain, bias, layer, table, centred, out):  # type: ignore[no-untyped-def]
    """out (D,) = norm(x), whole numbers; x int32, both of unit 2**-12.

    out: float64 or int32; centred: int32 (D,), to work in.
    """
    d_ = x.shape[0]
    if layer:
        mean = np.int64(0)
        for d in range(d_):
            mean += x[d]
        mean //= d_
        for d in range(d_):
            centred[d] = np.int32(clip(x[d] - mean, -33554432, 33554431))
        x = centred
    squares = np.int64(0)
    for d in range(d_):
        c = np.int64(x[d])
        squares += c * c
    r, s = rsqrt(squares // d_ + 1, table)
    factor = np.float64(r) * _POWERS[s - 12]
    for d in range(d_):
        out[d] = np.floor(np.float64(x[d]) * factor + 0.5)
    if layer:
        for d in range(d_):
            out[d] = np.floor(out[d] * gain[d] * (1.0 / 4096.0) + 0.5) + bias[d]


@bare
def norm_codes(x, span, ring, taps, gain, bias, layer, exponent, table, work, centred, out, width):  # type: ignore[no-untyped-def]
    """out = codes of conv(norm(x)); x (R, D) int32 unit 2**-12.

    ring: int32 (B, w, D), normed values of the last w positions, slot = position % w, updated, zero
    at first; taps (w D,) unit 2**-12, w = 0 for no convolution; gain, bias (D,) unit 2**-12, used
    if `layer`. work: float64 (2, D); centred: int32 (D,), to work in.
    """
    first, last, position, length = span
    d_ = x.shape[1]
    w = taps.shape[0] // d_
    y, acc = work[0], work[1]
    unit = 2.0 ** (exponent - 24) if w else 2.0 ** (exponent - 12)
    r = 0
    for b in range(first, last):
        for p in range(position, position + length):
            os = out[r * width : (r + 1) * width]
            if w == 4:  # the usual number; sums stay in registers
                now = ring[b, p % 4]
                normed(x[r], gain, bias, layer, table, centred, now)
                one, two, three = ring[b, (p - 1) % 4], ring[b, (p - 2) % 4], ring[b, (p - 3) % 4]
                tap, tap1, tap2 = taps[:d_], taps[d_ : 2 * d_], taps[2 * d_ : 3 * d_]
                tap3 = taps[3 * d_ :]
                for d in range(d_):
                    total = np.float64(now[d]) * tap[d] + np.float64(one[d]) * tap1[d]
                    total += np.float64(two[d]) * tap2[d] + np.float64(three[d]) * tap3[d]
                    os[d] = stored(total * unit)
                r += 1
                continue
            normed(x[r], gain, bias, layer, table, centred, y)
            r += 1
            if w:
                now, tap = ring[b, p % w], taps[:d_]
                for d in range(d_):
                    now[d] = np.int32(y[d])
                    acc[d] = y[d] * tap[d]
                for j in range(1, w):
                    before, tap = ring[b, (p - j) % w], taps[j * d_ : (j + 1) * d_]
                    for d in range(d_):
                        acc[d] += np.float64(before[d]) * tap[d]
                for d in range(d_):
                    os[d] = stored(acc[d] * unit)
            else:
                for d in range(d_):
                    os[d] = stored(y[d] * unit)


@bare
def rotate(qk, turn, heads):  # type: ignore[no-untyped-def]
    """Turn all pairs of one position; qk (2 D,) float64 unit 2**-(e + 8).

    In each head the first members of all pairs come before the second ones. turn: int32 (2, K / 2),
    cosines and sines.
    """
    half = turn.shape[1]
    cosines, sines = turn[0], turn[1]
    for h in range(2 * heads):
        left = qk[2 * half * h : 2 * half * h + half]
        right = qk[2 * half * h + half : 2 * half * (h + 1)]
        for i in range(half):
            c, s = np.float64(cosines[i]), np.float64(sines[i])
            x0 = left[i] * c - right[i] * s
            x1 = left[i] * s + right[i] * c
            left[i] = np.floor(x0 * (1.0 / 4194304.0) + 0.5)
            right[i] = np.floor(x1 * (1.0 / 4194304.0) + 0.5)


@bare
def squared_relu(rows, sums, sums_width, factor, bias, exponent, out, width):  # type: ignore[no-untyped-def]
    """out = codes 0..127 of relu(u)^2; u = requantised sums, unit 2**-10; rows: how many."""
    unit = 2.0 ** (exponent - 20)
    for r in range(rows):
        row = sums[r * sums_width : (r + 1) * sums_width]
        os = out[r * width : (r + 1) * width]
        for f in range(bias.shape[0]):
            u = np.floor(np.float64(row[f]) * factor + 0.5) + bias[f]
            u = clip(u, 0.0, 67108863.0)  # whose square is below 2**52
            os[f] = stored(u * u * unit)


@bare
def gelu(rows, sums, sums_width, factor, bias, exponent, table, out, width):  # type: ignore[no-untyped-def]
    """out = codes of GELU at u = requantised sums, unit 2**-6, by table; rows: how many."""
    unit = 2.0 ** (exponent - 10)
    for r in range(rows):
        row = sums[r * sums_width : (r + 1) * sums_width]
        os = out[r * width : (r + 1) * width]
        for f in range(bias.shape[0]):
            y = np.floor(np.float64(row[f]) * factor + 0.5) + bias[f]
            u = np.int64(clip(y, -1048576.0, 1048575.0))
            if u >= 512:
                g = np.float64(u << 4)
            elif u < -512:
                g = np.float64(0.0)
            else:
                g = np.float64(table[u + 512])
            os[f] = stored(g * unit)


@bare
def logit_gaps(sums, factor, bias, last, rank, bonus, work, highest, out):  # type: ignore[no-untyped-def]
    """out (V,) uint16 = min(best - logit, last), logits in units of 1/64 nat.

    sums: of one row. rank: place of the symbol that a match offers, negative for none; bonus: what
    its length adds to the trust, which is column V of the sums. work: float64 (V,), highest:
    float64 (16,), both to work in.
    """
    v_ = out.shape[0]
    for v in range(v_):
        work[v] = np.floor(np.float64(sums[v]) * factor + 0.5) + bias[v]
    if rank >= 0:
        work[rank] += np.floor(np.float64(sums[v_]) * factor + 0.5) + bias[v_] + bonus
    # A single maximum would wait for itself at every step.
    for i in range(_LANES):
        highest[i] = work[0]
    for v in range(0, v_ - _LANES + 1, _LANES):
        for i in range(_LANES):
            highest[i] = max(highest[i], work[v + i])
    best = work[0]
    for i in range(_LANES):
        best = max(best, highest[i])
    for v in range(v_ - v_ % _LANES, v_):
        best = max(best, work[v])
    for v in range(v_):
        out[v] = np.uint16(np.int32(min(best - work[v], last)))
