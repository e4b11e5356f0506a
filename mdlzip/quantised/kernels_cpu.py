"""The integer steps between matrix products, fused for the CPU (numba, integers only).

Every kernel walks its chunks one after another and its positions in order, so the same code serves
all positions at once (encoder, T = chunk length) and one at a time (decoder, T = 1 with history).
The twin for other devices is `kernels_torch`; both follow `docs/format.md`, "Integer predictor".

Shapes: B chunks, T positions, D width, H heads, K head width, W window, F feed-forward width.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_JIT = {"nogil": True, "cache": True, "fastmath": False, "boundscheck": False}


@njit(inline="always")
def _shift(x: int, s: int) -> int:
    """x / 2**s rounded half up; x * 2**-s for s <= 0."""
    if s > 0:
        return (x + (np.int64(1) << np.int64(s - 1))) >> np.int64(s)
    return x << np.int64(-s)


@njit(inline="always")
def _clip(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


@njit(**_JIT)
def rsqrt(v: int, table: np.ndarray) -> tuple[int, int]:
    """(r, s) with r / 2**s close to 1 / sqrt(v); 1 <= v < 2**62."""
    n = np.int64(0)
    rest = v
    while rest > 0:
        rest >>= 1
        n += 1
    e = n + (n & 1)
    m = v << (30 - e) if e <= 30 else v >> (e - 30)
    r = table[m >> 22]
    for _ in range(2):
        t = (m * ((r * r) >> 30)) >> 28
        r = (r * ((np.int64(3) << 30) - t)) >> 31
    return r, 29 + e // 2


@njit(**_JIT)
def add_residual(x, acc, mantissa, shift, bias):  # type: ignore[no-untyped-def]
    """x (B, T, D) int32 += requantised product acc (B, T, D), unit 2**-12, clamped to 2**23."""
    b_, t_, d_ = x.shape
    m = np.int64(mantissa)
    half = np.int64(1) << np.int64(shift - 1) if shift > 0 else np.int64(0)
    for b in range(b_):
        for t in range(t_):
            for d in range(d_):
                y = ((np.int64(acc[b, t, d]) * m + half) >> np.int64(shift)) + bias[d]
                x[b, t, d] = np.int32(_clip(x[b, t, d] + y, -8388608, 8388607))


@njit(**_JIT)
def norm_conv(x, history, taps, gain, bias, layer, exponent, table, out):  # type: ignore[no-untyped-def]
    """out (B, T, D) = int8 codes of conv(norm(x)); x int32 unit 2**-12.

    history (B, w - 1, D) int32: normed values of the positions before, updated; taps (w, D) int32
    unit 2**-12, w = 0 for no convolution; gain, bias (D,) unit 2**-12, used if `layer`.
    """
    b_, t_, d_ = x.shape
    w = taps.shape[0]
    y = np.empty((t_ + max(w - 1, 0), d_), np.int32)
    for b in range(b_):
        for j in range(w - 1):
            y[j] = history[b, j]
        for t in range(t_):
            row = max(w - 1, 0) + t
            mean = np.int64(0)
            if layer:
                for d in range(d_):
                    mean += x[b, t, d]
                mean //= d_
            squares = np.int64(0)
            for d in range(d_):
                c = np.int64(x[b, t, d]) - mean
                squares += c * c
            r, s = rsqrt(squares // d_ + 1, table)
            s -= 12
            half = np.int64(1) << (s - 1)
            for d in range(d_):
                y[row, d] = np.int32(((np.int64(x[b, t, d]) - mean) * r + half) >> s)
            if layer:
                for d in range(d_):
                    y[row, d] = np.int32(_shift(np.int64(y[row, d]) * gain[d], 12) + bias[d])
            if w:
                s = 24 - exponent
                half = np.int64(1) << (s - 1)
                for d in range(d_):
                    acc = np.int64(0)
                    for j in range(w):
                        acc += np.int64(y[row - j, d]) * taps[j, d]
                    out[b, t, d] = _clip((acc + half) >> s, -127, 127)
            else:
                for d in range(d_):
                    out[b, t, d] = _clip(_shift(np.int64(y[row, d]), 12 - exponent), -127, 127)
        for j in range(w - 1):
            history[b, j] = y[t_ + j]


@njit(**_JIT)
def attend(
    acc, mantissa, shift, bias, rotation, start, heads, keys, values, exps, scale, exponents, out
):  # type: ignore[no-untyped-def]
    """out (B, T, D) = int8 codes of softmax attention over the last W positions.

    acc (B, T, 3 D): product of the qkv matrix. keys, values (B, W, D) int8: ring of the last W
    positions, slot = position % W, updated. start: position of t = 0. rotation (length, K / 2, 2)
    int32 or empty. exponents: (qk, v, out). scale = round(2**16 / sqrt(K)). shift: (for q and k at
    unit 2**-(qk + 8), for v).
    """
    b_, t_, d3 = acc.shape
    d_ = d3 // 3
    k_ = d_ // heads
    w = keys.shape[1]
    m = np.int64(mantissa)
    e_qk, e_v, e_out = exponents
    s_qk, s_v = shift
    turn = rotation.shape[0] > 0
    n_exps = exps.shape[0]
    s_score = 9 + 2 * e_qk
    s_out = 40 + e_v - e_out
    qk = np.empty(2 * d_, np.int64)
    q = np.empty(d_, np.int32)
    score = np.empty(w, np.int32)
    total_v = np.empty(k_, np.int32)
    for b in range(b_):
        for t in range(t_):
            pos = start + t
            slot = pos % w
            for i in range(2 * d_):
                qk[i] = _clip(
                    _shift(np.int64(acc[b, t, i]) * m, s_qk) + bias[i], -1048576, 1048575
                )
            if turn:
                for i in range(0, 2 * d_, 2):
                    c = np.int64(rotation[pos, (i % k_) // 2, 0])
                    s = np.int64(rotation[pos, (i % k_) // 2, 1])
                    x0 = qk[i] * c - qk[i + 1] * s
                    x1 = qk[i] * s + qk[i + 1] * c
                    qk[i] = _clip((x0 + 2097152) >> 22, -127, 127)
                    qk[i + 1] = _clip((x1 + 2097152) >> 22, -127, 127)
            else:
                for i in range(2 * d_):
                    qk[i] = _clip((qk[i] + 128) >> 8, -127, 127)
            for i in range(d_):
                q[i] = np.int32(qk[i])
                keys[b, slot, i] = np.int8(qk[d_ + i])
                v = _shift(np.int64(acc[b, t, 2 * d_ + i]) * m, s_v) + bias[2 * d_ + i]
                values[b, slot, i] = np.int8(_clip(v, -127, 127))
            seen = min(pos + 1, w)
            for h in range(heads):
                lo = h * k_
                best = np.int32(-2147483648)
                for j in range(seen):
                    dot = np.int32(0)
                    for i in range(lo, lo + k_):
                        dot += q[i] * np.int32(keys[b, j, i])
                    score[j] = dot
                    best = max(best, dot)
                total_v[:] = 0
                total = np.int64(0)
                for j in range(seen):
                    gap = (np.int64(best) - score[j]) * scale
                    gap = gap >> s_score if s_score >= 0 else gap << -s_score
                    if gap < n_exps:
                        p = np.int32(exps[gap])
                        total += p
                        for i in range(k_):
                            total_v[i] += p * np.int32(values[b, j, lo + i])
                inverse = (np.int64(1) << 40) // total
                half = np.int64(1) << (s_out - 1)
                for i in range(k_):
                    y = (np.int64(total_v[i]) * inverse + half) >> s_out
                    out[b, t, lo + i] = _clip(y, -127, 127)


@njit(**_JIT)
def squared_relu(acc, mantissa, shift, bias, exponent, out):  # type: ignore[no-untyped-def]
    """out (B, T, F) = codes 0..127 of relu(u)^2; u = requantised acc, unit 2**-10."""
    b_, t_, f_ = acc.shape
    m = np.int64(mantissa)
    half = np.int64(1) << np.int64(shift - 1) if shift > 0 else np.int64(0)
    s = 20 - exponent
    half_s = np.int64(1) << (s - 1)
    for b in range(b_):
        for t in range(t_):
            for f in range(f_):
                u = ((np.int64(acc[b, t, f]) * m + half) >> np.int64(shift)) + bias[f]
                u = _clip(u, 0, 46340)
                out[b, t, f] = min((u * u + half_s) >> s, 127)


@njit(**_JIT)
def gelu(acc, mantissa, shift, bias, exponent, table, out):  # type: ignore[no-untyped-def]
    """out (B, T, F) = int8 codes of gelu(u); u = requantised acc, unit 2**-6, by table."""
    b_, t_, f_ = acc.shape
    m = np.int64(mantissa)
    for b in range(b_):
        for t in range(t_):
            for f in range(f_):
                u = _clip(_shift(np.int64(acc[b, t, f]) * m, shift) + bias[f], -1048576, 1048575)
                if u >= 512:
                    g = u << 4
                elif u < -512:
                    g = np.int64(0)
                else:
                    g = np.int64(table[u + 512])
                out[b, t, f] = _clip(_shift(g, 10 - exponent), -127, 127)


@njit(**_JIT)
def logit_gaps(acc, mantissa, shift, bias, last, out):  # type: ignore[no-untyped-def]
    """out (B, T, 256) uint16 = min(max logit - logit, last), logits in units of 1/64 nat."""
    b_, t_, v_ = acc.shape
    m = np.int64(mantissa)
    half = np.int64(1) << np.int64(shift - 1) if shift > 0 else np.int64(0)
    row = np.empty(v_, np.int64)
    for b in range(b_):
        for t in range(t_):
            best = np.int64(-(1 << 62))
            for v in range(v_):
                row[v] = ((np.int64(acc[b, t, v]) * m + half) >> np.int64(shift)) + bias[v]
                best = max(best, row[v])
            for v in range(v_):
                out[b, t, v] = np.uint16(min(best - row[v], last))


@njit(**_JIT)
def take_counts(gaps, table, t, n, out):  # type: ignore[no-untyped-def]
    """out (n, 256) float64 = table[gaps[:n, t]]: symbol counts at position t of n chunks."""
    for b in range(n):
        for v in range(gaps.shape[2]):
            out[b, v] = table[gaps[b, t, v]]
