"""The integer steps between matrix products, fused for the CPU (numba).

Integers are carried in float64 where that is faster: every value is a whole number (or a whole
number times a power of two) below 2**53, so each multiplication, addition and floor is exact and
neither instruction set nor contraction can change a bit. `fastmath` stays off. The bounds are those
that `prepared.prepare` checks and the clamps below enforce.

Every kernel walks its chunks one after another and its positions in order, so the same code serves
all positions at once (encoder, T = chunk length) and one at a time (decoder, T = 1 with history).
The twin for other devices is `kernels_torch`, in plain int64; both follow
`docs/format-predictor.md`.

Shapes: B chunks, T positions, D width, H heads, K head width, W window, F feed-forward width,
V symbols of the vocabulary.
`factor` arguments are mantissa * 2**-shift, an exact float64.
"""

from __future__ import annotations

import numpy as np

from mdlzip.process.kernels import compiled

_jit = compiled(fastmath=False, boundscheck=False)


@compiled(inline="always")
def _clip(x, low, high):  # type: ignore[no-untyped-def]
    """Written so that it becomes one min and one max instruction."""
    x = x if x < high else high
    return x if x > low else low


@_jit
def rsqrt(v, table):  # type: ignore[no-untyped-def]
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
    return r >> 4, 25 + e // 2


@_jit
def add_residual(x, acc, factor, bias):  # type: ignore[no-untyped-def]
    """x (B, T, D) int32 += requantised product acc (B, T, D), unit 2**-12, clamped to 2**25."""
    b_, t_, d_ = x.shape
    for b in range(b_):
        for t in range(t_):
            row, xs = acc[b, t], x[b, t]
            for d in range(d_):
                y = np.floor(np.float64(row[d]) * factor + 0.5) + bias[d] + np.float64(xs[d])
                xs[d] = np.int32(_clip(y, -33554432.0, 33554431.0))


@_jit
def norm_conv(x, history, taps, gain, bias, layer, exponent, table, out):  # type: ignore[no-untyped-def]
    """out (B, T, D) = int8 codes of conv(norm(x)); x int32 unit 2**-12.

    history (B, w - 1, D) int32: normed values of the positions before, updated; taps (w, D)
    unit 2**-12, w = 0 for no convolution; gain, bias (D,) unit 2**-12, used if `layer`; float64.
    """
    b_, t_, d_ = x.shape
    w = taps.shape[0]
    past = max(w - 1, 0)
    y = np.empty((t_ + past, d_), np.float64)
    centred = np.empty(d_, np.int32)
    acc = np.empty(d_, np.float64)
    unit = 2.0 ** (exponent - 24) if w else 2.0 ** (exponent - 12)
    for b in range(b_):
        for j in range(past):
            for d in range(d_):
                y[j, d] = np.float64(history[b, j, d])
        for t in range(t_):
            xs, ys, os = x[b, t], y[past + t], out[b, t]
            if layer:
                mean = np.int64(0)
                for d in range(d_):
                    mean += xs[d]
                mean //= d_
                for d in range(d_):
                    centred[d] = np.int32(_clip(xs[d] - mean, -33554432, 33554431))
                xs = centred
            squares = np.int64(0)
            for d in range(d_):
                c = np.int64(xs[d])
                squares += c * c
            r, s = rsqrt(squares // d_ + 1, table)
            factor = np.float64(r) * 2.0 ** np.float64(12 - s)
            for d in range(d_):
                ys[d] = np.floor(np.float64(xs[d]) * factor + 0.5)
            if layer:
                for d in range(d_):
                    ys[d] = np.floor(ys[d] * gain[d] * (1.0 / 4096.0) + 0.5) + bias[d]
            if w:
                tap = taps[0]
                for d in range(d_):
                    acc[d] = ys[d] * tap[d]
                for j in range(1, w):
                    before, tap = y[past + t - j], taps[j]
                    for d in range(d_):
                        acc[d] += before[d] * tap[d]
                for d in range(d_):
                    os[d] = _clip(np.floor(acc[d] * unit + 0.5), -127.0, 127.0)
            else:
                for d in range(d_):
                    os[d] = _clip(np.floor(ys[d] * unit + 0.5), -127.0, 127.0)
        for j in range(past):
            for d in range(d_):
                history[b, j, d] = np.int32(y[t_ + j, d])


@_jit
def _rotate(qk, turn, heads):  # type: ignore[no-untyped-def]
    """Rotate all head pairs of one position in place; qk (2 D,) float64 unit 2**-(e + 8)."""
    half = turn.shape[0]
    for h in range(2 * heads):
        row = qk[2 * half * h : 2 * half * (h + 1)]
        for i in range(half):
            c, s = np.float64(turn[i, 0]), np.float64(turn[i, 1])
            x0 = row[2 * i] * c - row[2 * i + 1] * s
            x1 = row[2 * i] * s + row[2 * i + 1] * c
            row[2 * i] = np.floor(x0 * (1.0 / 4194304.0) + 0.5)
            row[2 * i + 1] = np.floor(x1 * (1.0 / 4194304.0) + 0.5)


@_jit
def attend(acc, span, factors, bias, rotation, start, heads, keys, values, exps, scale, sites, out):  # type: ignore[no-untyped-def]
    """out (B, T, D) = int8 codes of softmax attention over the last W positions.

    acc (B, T, 3 D): product of the qkv matrix. span: (b, b', t, t'), only chunks b..b' - 1 at
    positions t..t' - 1 are done. factors: (of q and k to unit 2**-(qk + 8), of v).
    keys, values (B, W, D) int8: ring of the last W positions, slot = position % W, updated.
    start: position of t = 0. rotation (length, K / 2, 2) int32 or empty. sites: exponents of
    (qk, v, out).
    scale = round(2**16 / sqrt(K)).
    """
    d_ = acc.shape[2] // 3
    first_chunk, last_chunk, first, last = span
    k_ = d_ // heads
    w = keys.shape[1]
    e_qk, e_v, e_out = sites
    turn = rotation.shape[0] > 0
    n_exps = exps.shape[0]
    s_score = 9 + 2 * e_qk
    out_unit = 2.0 ** (e_out - e_v - 40)
    qk = np.empty(2 * d_, np.float64)
    q = np.empty(d_, np.int16)
    score = np.empty(w, np.int32)
    total_v = np.empty(k_, np.int32)
    for b in range(first_chunk, last_chunk):
        for t in range(first, last):
            pos = start + t
            slot = pos % w
            row, key, value = acc[b, t], keys[b, slot], values[b, slot]
            for i in range(2 * d_):
                y = np.floor(np.float64(row[i]) * factors[0] + 0.5) + bias[i]
                qk[i] = _clip(y, -1048576.0, 1048575.0)
            if turn:
                _rotate(qk, rotation[pos], heads)
            else:
                for i in range(2 * d_):
                    qk[i] = np.floor(qk[i] * (1.0 / 256.0) + 0.5)
            for i in range(d_):
                q[i] = np.int16(_clip(qk[i], -127.0, 127.0))
            kk, vrow, vbias = qk[d_:], row[2 * d_ :], bias[2 * d_ :]
            for i in range(d_):
                key[i] = np.int8(_clip(kk[i], -127.0, 127.0))
            for i in range(d_):
                y = np.floor(np.float64(vrow[i]) * factors[1] + 0.5) + vbias[i]
                value[i] = np.int8(_clip(y, -127.0, 127.0))
            seen = min(pos + 1, w)
            for h in range(heads):
                qh = q[h * k_ : (h + 1) * k_]
                best = np.int32(-2147483648)
                for j in range(seen):
                    kj = keys[b, j, h * k_ : (h + 1) * k_]
                    dot = np.int32(0)
                    for i in range(k_):
                        dot += np.int32(qh[i]) * np.int32(kj[i])
                    score[j] = dot
                    best = max(best, dot)
                total_v[:] = 0
                total = np.int64(0)
                for j in range(seen):
                    gap = ((np.int64(best) - score[j]) * scale) >> s_score
                    if gap < n_exps:
                        p = np.int32(exps[gap])
                        total += p
                        vj = values[b, j, h * k_ : (h + 1) * k_]
                        for i in range(k_):
                            total_v[i] += p * np.int32(vj[i])
                # |total_v| <= 127 * total, so the product stays below 2**47.
                inverse = np.float64((np.int64(1) << 40) // total) * out_unit
                oh = out[b, t, h * k_ : (h + 1) * k_]
                for i in range(k_):
                    y = np.floor(np.float64(total_v[i]) * inverse + 0.5)
                    oh[i] = _clip(y, -127.0, 127.0)


@_jit
def squared_relu(acc, factor, bias, exponent, out):  # type: ignore[no-untyped-def]
    """out (B, T, F) = codes 0..127 of relu(u)^2; u = requantised acc, unit 2**-10."""
    b_, t_, f_ = acc.shape
    unit = 2.0 ** (exponent - 20)
    for b in range(b_):
        for t in range(t_):
            row, os = acc[b, t], out[b, t]
            for f in range(f_):
                u = np.floor(np.float64(row[f]) * factor + 0.5) + bias[f]
                u = _clip(u, 0.0, 46340.0)
                y = np.floor(u * u * unit + 0.5)
                os[f] = y if y < 127.0 else 127.0


@_jit
def gelu(acc, factor, bias, exponent, table, out):  # type: ignore[no-untyped-def]
    """out (B, T, F) = int8 codes of GELU at u = requantised acc, unit 2**-6, by table."""
    b_, t_, f_ = acc.shape
    unit = 2.0 ** (exponent - 10)
    for b in range(b_):
        for t in range(t_):
            row, os = acc[b, t], out[b, t]
            for f in range(f_):
                y = np.floor(np.float64(row[f]) * factor + 0.5) + bias[f]
                u = np.int64(_clip(y, -1048576.0, 1048575.0))
                if u >= 512:
                    g = np.float64(u << 4)
                elif u < -512:
                    g = np.float64(0.0)
                else:
                    g = np.float64(table[u + 512])
                os[f] = _clip(np.floor(g * unit + 0.5), -127.0, 127.0)


@_jit
def logit_gaps(acc, factor, bias, last, ranks, symbols, lengths, match, out):  # type: ignore[no-untyped-def]
    """out (B, T, V) uint16 = min(best - logit, last), logits in units of 1/64 nat.

    match (MAX_LENGTH + 1,): what a match of that length adds to the logit of its symbol, beside
    column V of acc (B, T, V + 1); empty if there are no matches, and acc is (B, T, V). ranks:
    int32 (rows,), place of a symbol in the vocabulary; symbols, lengths: (B, T) from the matcher.
    """
    b_, t_, v_ = out.shape
    logits = np.empty(v_, np.float64)
    for b in range(b_):
        for t in range(t_):
            row, os = acc[b, t], out[b, t]
            for v in range(v_):
                logits[v] = np.floor(np.float64(row[v]) * factor + 0.5) + bias[v]
            if match.size and symbols[b, t] >= 0 and ranks[symbols[b, t]] >= 0:
                trust = np.floor(np.float64(row[v_]) * factor + 0.5) + bias[v_]
                logits[ranks[symbols[b, t]]] += trust + match[lengths[b, t]]
            best = logits[0]
            for v in range(v_):
                best = logits[v] if logits[v] > best else best
            for v in range(v_):
                gap = best - logits[v]
                os[v] = np.uint16(np.int32(gap if gap < last else last))


@_jit
def take_counts(gaps, table, t, rows, out):  # type: ignore[no-untyped-def]
    """out (n, V) float64 = table[gaps[rows, t]]: symbol counts at position t of n chunks."""
    for b in range(rows.shape[0]):
        row, os = gaps[rows[b], t], out[b]
        for v in range(row.shape[0]):
            os[v] = table[row[v]]
