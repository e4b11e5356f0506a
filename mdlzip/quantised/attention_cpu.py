"""Attention over the last positions of a chunk, its products by `int8_products`.

Keys and values lie packed as matrices, one of each for every chunk and head, and grow a position at
a time. Scores are the products of a query with the keys, so positions are outputs there. What is
taken of the values are the products of the weights of positions with them, so positions are inputs
there. Weights have up to 16 bits and go through products of 8 as two or three digits.

Shapes: as in `kernels_cpu`; W' is the window, K' the head width, both up to the next multiple of
16, K'' up to the next of 4. Four bytes that lie together are one int32.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from mdlzip.quantised import int8_products
from mdlzip.quantised.int8_products import BLOCK, GROUP, padded
from mdlzip.quantised.kernels_cpu import clip, rotate


class Seen(NamedTuple):
    """Keys and values of the last positions; slot = position % W. All zero at first.

    keys: int32 (L, B, H, W' / 16, K'' / 4, 16); starts: int32 (L, B, H, W'), what scores start
    from; values: int32 (L, B, H, K' / 16, W' / 4, 16).
    """

    keys: np.ndarray
    starts: np.ndarray
    values: np.ndarray


def seen_shapes(batch: int, layers: int, heads: int, width: int, window: int) -> Seen:
    """Shapes of the arrays in place of them; width: K."""
    first, slots, inner = (layers, batch, heads), padded(window, BLOCK), padded(width, BLOCK)
    return Seen(
        (*first, slots // BLOCK, padded(width, GROUP) // GROUP, BLOCK),  # type: ignore[arg-type]
        (*first, slots),  # type: ignore[arg-type]
        (*first, inner // BLOCK, slots // GROUP, BLOCK),  # type: ignore[arg-type]
    )


@cache
def attention_kernel(kind: str) -> Any:
    """The compiled `attend` for products of this kind.

    attend(sums, span, factors, bias, turns, window, seen, exps, scale, sites, work, out) fills out
    (R, >= D) with codes. sums: int32 (R, >= 3 D), product of the qkv matrix. factors: (of q and k
    to unit 2**-(qk + 8), of v). turns: (length, 2, K / 2) int32 or empty, see `rotate`. seen: one
    layer of a `Seen`, updated. sites: exponents of (qk, v, out). scale: round(2**16 / sqrt(K)).
    work: float64 (>= 2 D,).
    """
    from mdlzip.process.kernels import compiled

    multiply, kinds = int8_products.kernel(kind, signed=True), int8_products.KINDS[kind]
    offset, digit_bits = kinds.offset, kinds.digit_bits
    to_query = float(offset)
    n_digits = -(-16 // digit_bits)
    keep = compiled(fastmath=False, boundscheck=False)

    def remember(slot, key, value, keys, starts, values):  # type: ignore[no-untyped-def]
        """Key and value of a head, int8 (K',), into their slot."""
        block, lane = slot // BLOCK, slot % BLOCK
        words, total = key.view(np.int32), np.int32(0)
        for g in range(keys.shape[1]):
            keys[block, g, lane] = words[g]
        for i in range(len(key)):
            total += np.int32(key[i])
        starts[slot] = -offset * total
        group, bits = slot // GROUP, np.int32(8 * (slot % GROUP))
        kept = ~(np.int32(255) << bits)
        for b in range(values.shape[0]):
            place, part = values[b, group], value[BLOCK * b : BLOCK * (b + 1)]
            for i in range(BLOCK):
                place[i] = (place[i] & kept) | ((np.int32(part[i]) & np.int32(255)) << bits)

    def weigh(scores, n, exps, scale, shift, digits):  # type: ignore[no-untyped-def]
        """digits (n_digits, >= n) of exp(score - best) for the first n scores; their total."""
        best = scores[0]
        for j in range(n):
            best = max(best, scores[j])
        total, last, mask = np.int32(0), exps.shape[0] - 1, np.int32((1 << digit_bits) - 1)
        for j in range(n):
            gap = ((np.int64(best) - scores[j]) * scale) >> shift
            weight = np.int32(exps[min(gap, last)])
            scores[j] = weight if gap <= last else np.int32(0)
        for j in range(n):
            total += scores[j]
        for i in range(n_digits):
            digit, bits = digits[i], np.int32(digit_bits * i)
            for j in range(n):
                digit[j] = np.uint8((scores[j] >> bits) & mask)
            for j in range(n, (n + GROUP - 1) // GROUP * GROUP):
                digit[j] = 0
        return np.int64(total)

    remember.__qualname__, weigh.__qualname__ = f"remember_{kind}", f"weigh_{kind}"
    remember, weigh = keep(remember), keep(weigh)

    def attend(sums, span, factors, bias, turns, window, seen, exps, scale, sites, work, out):  # type: ignore[no-untyped-def]
        first, last, position, length = span
        keys, starts, values = seen
        heads, slots, inner = keys.shape[1], starts.shape[2], values.shape[2] * BLOCK
        d_ = bias.shape[0] // 3
        k_ = d_ // heads
        e_qk, e_v, e_out = sites
        out_unit = 2.0 ** (e_out - e_v - 40)
        qk = work
        query, scores = (
            np.zeros((1, keys.shape[3] * GROUP), np.uint8),
            np.empty((1, slots), np.int32),
        )
        key, value = np.zeros(inner, np.int8), np.zeros(inner, np.int8)
        digits = np.empty((n_digits, slots), np.uint8)
        nothing, totals = np.zeros(inner, np.int32), np.empty((n_digits, inner), np.int32)
        r = 0
        for b in range(first, last):
            for p in range(position, position + length):
                row, os = sums[r], out[r]
                r += 1
                for i in range(2 * d_):
                    y = np.floor(np.float64(row[i]) * factors[0] + 0.5) + bias[i]
                    qk[i] = clip(y, -1048576.0, 1048575.0)
                if turns.shape[0]:
                    rotate(qk, turns[p], heads)
                else:
                    for i in range(2 * d_):
                        qk[i] = np.floor(qk[i] * (1.0 / 256.0) + 0.5)
                n = min(p + 1, window)
                n_blocks, n_groups = (n + BLOCK - 1) // BLOCK, (n + GROUP - 1) // GROUP
                for h in range(heads):
                    qh, kh = qk[h * k_ : (h + 1) * k_], qk[d_ + h * k_ : d_ + (h + 1) * k_]
                    vh, shift = row[2 * d_ + h * k_ :], bias[2 * d_ + h * k_ :]
                    for i in range(k_):
                        code = clip(qh[i], -127.0, 127.0) + to_query
                        query[0, i] = np.uint8(np.int32(code))
                    for i in range(k_):
                        key[i] = np.int8(clip(kh[i], -127.0, 127.0))
                    for i in range(k_):
                        y = np.floor(np.float64(vh[i]) * factors[1] + 0.5) + shift[i]
                        value[i] = np.int8(clip(y, -127.0, 127.0))
                    remember(p % window, key, value, keys[b, h], starts[b, h], values[b, h])
                    multiply(query, keys[b, h, :n_blocks], starts[b, h], scores)
                    total = weigh(scores[0], n, exps, scale, 9 + 2 * e_qk, digits)
                    multiply(digits, values[b, h, :, :n_groups], nothing, totals)
                    # |sum of the values| <= 127 * total, so the product stays below 2**47.
                    inverse = np.float64((np.int64(1) << 40) // total) * out_unit
                    oh = os[h * k_ : (h + 1) * k_]
                    for i in range(k_):
                        taken = totals[n_digits - 1, i]
                        for j in range(n_digits - 2, -1, -1):
                            taken = (taken << np.int32(digit_bits)) + totals[j, i]
                        y = np.floor(np.float64(taken) * inverse + 0.5) + 128.0
                        oh[i] = np.uint8(np.int32(clip(y, 1.0, 255.0)))

    attend.__qualname__ = f"attend_{kind}"
    return keep(attend)
