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
from mdlzip.quantised.kernels_cpu import bare, clip, rotate

_WEIGHT_BITS = 16
_MOST_DIGITS = 3


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


class AttentionWork(NamedTuple):
    """What the kernel writes to for one head of one position.

    query: uint8 (1, K''); pair: int8 (2, K'), key and value, zero behind K; pair_words: the same
    memory as int32 (2, K' / 4); scores: int32 (1, W'); digits: uint8 (3 W',), one row after the
    other; totals: int32 (3, K'); nothing: zeros, int32 (K',).
    """

    query: np.ndarray
    pair: np.ndarray
    pair_words: np.ndarray
    scores: np.ndarray
    digits: np.ndarray
    totals: np.ndarray
    nothing: np.ndarray


def attention_work(width: int, window: int) -> AttentionWork:
    """Buffers for one thread; width: K."""
    slots, inner = padded(window, BLOCK), padded(width, BLOCK)
    pair = np.zeros((2, inner), np.int8)
    return AttentionWork(
        np.zeros((1, padded(width, GROUP)), np.uint8),
        pair,
        pair.view(np.int32),
        np.empty((1, slots), np.int32),
        np.empty(_MOST_DIGITS * slots, np.uint8),
        np.empty((_MOST_DIGITS, inner), np.int32),
        np.zeros(inner, np.int32),
    )


@cache
def attention_kernel(kind: str) -> Any:
    """The compiled `attend` for products of this kind.

    attend(sums, sums_width, span, factors, bias, turns, window, seen, exps, scale, sites, qk, work,
    out, width) fills `out` with codes. sums: product of the qkv matrix. factors: (of q and k to
    unit 2**-(qk + 8), of v). turns: (length, 2, K / 2) int32 or empty, see `rotate`. seen: one
    layer of a `Seen`, updated. sites: exponents of (qk, v, out). scale: round(2**16 / sqrt(K)).
    qk: float64 (>= 2 D,), to work in. See `kernels_cpu` for span, width and the memory of rows.
    """
    multiply, kinds = int8_products.kernel(kind, signed=True), int8_products.KINDS[kind]
    offset, digit_bits = kinds.offset, kinds.digit_bits
    to_query = float(offset)
    n_digits = -(-_WEIGHT_BITS // digit_bits)

    def remember(slot, key, key_words, value, keys, starts, values):  # type: ignore[no-untyped-def]
        """Key and value of a head, int8 (K',), into their slot."""
        block, lane, total = slot // BLOCK, slot % BLOCK, np.int32(0)
        for g in range(keys.shape[1]):
            keys[block, g, lane] = key_words[g]
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
        """digits (n_digits, n up to a group) of exp(score - best) of n scores; their total."""
        full = (n + GROUP - 1) // GROUP * GROUP
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
            digit, bits = digits[i * full : (i + 1) * full], np.int32(digit_bits * i)
            for j in range(n):
                digit[j] = np.uint8((scores[j] >> bits) & mask)
            for j in range(n, full):
                digit[j] = 0
        return np.int64(total)

    remember.__qualname__, weigh.__qualname__ = f"remember_{kind}", f"weigh_{kind}"
    remember, weigh = bare(remember), bare(weigh)

    def attend(  # type: ignore[no-untyped-def]
        sums, sums_width, span, factors, bias, turns, window, seen, exps, scale, sites, qk, work,
        out, width,
    ):  # fmt: skip
        first, last, position, length = span
        keys, starts, values = seen
        heads, d_ = keys.shape[1], bias.shape[0] // 3
        k_ = d_ // heads
        e_qk, e_v, e_out = sites
        out_unit = 2.0 ** (e_out - e_v - 40)
        key, value = work.pair[0], work.pair[1]
        digits, totals = work.digits, work.totals
        r = 0
        for b in range(first, last):
            for p in range(position, position + length):
                row = sums[r * sums_width : (r + 1) * sums_width]
                os = out[r * width : (r + 1) * width]
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
                        work.query[0, i] = np.uint8(np.int32(code))
                    for i in range(k_):
                        key[i] = np.int8(clip(kh[i], -127.0, 127.0))
                    for i in range(k_):
                        y = np.floor(np.float64(vh[i]) * factors[1] + 0.5) + shift[i]
                        value[i] = np.int8(clip(y, -127.0, 127.0))
                    remember(
                        p % window, key, work.pair_words[0], value, keys[b, h], starts[b, h],
                        values[b, h],
                    )  # fmt: skip
                    multiply(
                        work.query.ctypes.data, keys[b, h].ctypes.data, starts[b, h].ctypes.data,
                        work.scores.ctypes.data, 1, n_blocks, keys.shape[3], keys.strides[2],
                    )  # fmt: skip
                    total = weigh(work.scores[0], n, exps, scale, 9 + 2 * e_qk, digits)
                    multiply(
                        digits.ctypes.data, values[b, h].ctypes.data, work.nothing.ctypes.data,
                        totals.ctypes.data, n_digits, values.shape[2], n_groups, values.strides[2],
                    )  # fmt: skip
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
    return bare(attend)
