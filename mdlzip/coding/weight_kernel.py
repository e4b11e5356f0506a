"""The compiled inner loops of the weight coder: contexts, mixing, learning. Integers only.

Encoder and decoder run the same function, so they cannot drift apart. Every table index is bounded
whatever the stream holds: magnitudes are at most 127, averages at most 127 << 8, levels below 64,
probabilities are clamped; a sum that leaves 64 bits would wrap, the same way everywhere.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mdlzip.coding.binary_coder import (
    ONE,
    STRETCH_BITS,
    STRETCH_LIMIT,
    decode_bit,
    encode_bit,
    jit,
    jit_inline,
)
from mdlzip.coding.weight_tables import (
    COARSE,
    CODED_FLOOR,
    CONSTANT_INPUT,
    COST,
    COUNT_BITS,
    COUNT_LIMIT,
    COUNT_MASK,
    ETA,
    ETA_SHIFT,
    FINE,
    LEVEL_VALUES,
    MAGNITUDE_BASES,
    MAGNITUDE_SET_B,
    MAX_COLUMN_CONTEXT,
    MAX_SEEN,
    N_INPUTS,
    N_LEVELS,
    N_MAGNITUDE,
    N_NODES,
    N_SIGN,
    PACE,
    PAD,
    SIGN_BASES,
    SIGN_SET_A,
    SIGN_SET_B,
    SIZE,
    SLOT_BITS,
    SLOT_FLOOR,
    SQUASH,
    STRETCH,
    TREE,
    TRUST,
    WEIGHT_BITS,
    Band,
    State,
)

Array = np.ndarray
Int: TypeAlias = Any  # int64 in compiled code

ZERO_COST, MAGNITUDE_COST, SIGN_COST = range(3)  # fields of State.spent
CONTEXT, USED, INPUT = range(3)  # rows of State.work
COLUMN_MAGNITUDE, COLUMN_SIGNED, COLUMN_RECENT = range(3)
_HALF_STEP = 1 << (ETA_SHIFT - 1)


@jit
def decide(
    t: Array,
    slots: Array,
    weights: Array,
    work: Array,
    spent: Array,
    coder: Array,
    stream: Array,
    decoding: bool,
    bit: Int,
    n: Int,
    node: Int,
    a: Int,
    b: Int,
    purpose: Int,
) -> Int:
    """Code one decision predicted from slots `work[CONTEXT, :n] + node`; learn; return it.

    a, b: the two weight sets that are added; purpose: the field of `spent` that pays.
    """
    dot = CONSTANT_INPUT * (weights[a, n] + weights[b, n])
    work[INPUT, n] = CONSTANT_INPUT
    for j in range(n):
        slot = work[CONTEXT, j] + node
        value = np.int64(slots[slot])
        probability = value >> (COUNT_BITS + SLOT_BITS - STRETCH_BITS)
        x = (t[STRETCH + probability] * t[TRUST + (value & COUNT_MASK)]) >> 8
        work[USED, j] = slot
        work[INPUT, j] = x
        dot += x * (weights[a, j] + weights[b, j])
    odds = min(max(dot >> WEIGHT_BITS, -STRETCH_LIMIT), STRETCH_LIMIT - 1)
    mixed = t[SQUASH + STRETCH_LIMIT + odds]
    p = min(max(mixed, CODED_FLOOR), ONE - CODED_FLOOR)
    if decoding:
        bit = decode_bit(coder, stream, p)
    else:
        encode_bit(coder, stream, bit, p)
    spent[purpose] += t[COST + (p if bit else ONE - p)]

    seen = weights[a, N_INPUTS]
    weights[a, N_INPUTS] = min(seen + 1, MAX_SEEN)
    error = ((bit << 16) - mixed) * t[ETA + seen]
    for j in range(n + 1):
        step = (work[INPUT, j] * error + _HALF_STEP) >> ETA_SHIFT
        weights[a, j] += step
        weights[b, j] += step
    target = (1 << SLOT_BITS) - SLOT_FLOOR if bit else SLOT_FLOOR
    for j in range(n):
        slot = work[USED, j]
        value = np.int64(slots[slot])
        count = value & COUNT_MASK
        probability = value >> COUNT_BITS
        probability += ((target - probability) * t[PACE + count]) >> 16
        slots[slot] = (probability << COUNT_BITS) | min(count + 1, COUNT_LIMIT)
    return bit


@jit_inline
def direction(value: Int) -> Int:
    """0 for zero, 1 for positive, 2 for negative."""
    return 0 if value == 0 else (1 if value > 0 else 2)


@jit_inline
def far_row(y: Int, r: Int, far: Int) -> Int:
    """Padded row `far` above y; a row of zeros where there is none."""
    return y - far if 0 < far <= r else 0


@jit
def magnitude_contexts(
    t: Array,
    k: Array,
    w: Array,
    old: Array,
    known: Int,
    far: Int,
    r: Int,
    c: Int,
    mean: Int,
    row_mean: Int,
    column_mean: Int,
    row_recent: Int,
    recent: Int,
) -> Int:
    """Fill `k` but for places 0, 6 and 8 for the magnitude at (r, c) of `w`; returns the level.

    k: row of `work`; w: codes; old: the like band before; means in 1/256.
    """
    y, x = r + PAD, c + PAD
    left, up = abs(np.int64(w[y, x - 1])), abs(np.int64(w[y - 1, x]))
    up_left, up_right = abs(np.int64(w[y - 1, x - 1])), abs(np.int64(w[y - 1, x + 1]))
    around = 2 * left + 2 * up + up_left + up_right
    around += abs(np.int64(w[y, x - 2])) + abs(np.int64(w[y - 2, x]))
    alike = abs(np.int64(w[far_row(y, r, far), x]))
    before = abs(np.int64(old[y, x]))
    near = 2 * before + abs(np.int64(old[y, x - 1])) + abs(np.int64(old[y, x + 1]))
    near += abs(np.int64(old[y - 1, x])) + abs(np.int64(old[y + 1, x]))
    level = t[FINE + min(row_mean * column_mean // (mean + 1), LEVEL_VALUES - 1)]
    corners = 2 * np.int64(up_left > 0) + np.int64(up_right > 0)
    k[1] = (t[SIZE + left] * 7 + t[SIZE + up]) * 4 + corners
    k[2] = up
    k[3] = t[COARSE + row_mean] * 32 + t[COARSE + column_mean]
    k[4] = level
    if far:  # these tensors have no like band before them
        before, near, known = alike, around, 0
    k[5] = (t[SIZE + before] + known) * 32 + t[COARSE + near]
    k[7] = t[COARSE + row_recent] * 32 + t[COARSE + recent]
    k[9] = min(c, MAX_COLUMN_CONTEXT)
    return level


@jit_inline
def share(signed: Int, absolute: Int) -> Int:
    """How one-sided a sum is, 1..31: 16 where signs cancel."""
    return signed * 15 // (absolute + 1) + 16


@jit
def sign_contexts(
    t: Array,
    k: Array,
    w: Array,
    old: Array,
    far: Int,
    r: Int,
    c: Int,
    column_share: Int,
    row_share: Int,
) -> None:
    """Fill `k` but for place 0 for the sign at (r, c); arguments as in `magnitude_contexts`."""
    y, x = r + PAD, c + PAD
    up = np.int64(w[y - 1, x])
    alike = np.int64(w[far_row(y, r, far), x])
    before = np.int64(old[y, x])
    around = (direction(w[y, x - 1]) * 3 + direction(up)) * 3 + direction(w[y - 1, x - 1])
    k[1] = around * 3 + direction(w[y - 1, x + 1])
    k[2] = direction(up) * 8 + t[SIZE + abs(up)]
    k[3] = column_share
    k[4] = row_share
    k[5] = direction(before) * 3 + direction(alike)
    k[6] = direction(alike) * 8 + t[SIZE + abs(alike)]


@jit
def code_rows(
    t: Array,
    state: State,
    coder: Array,
    stream: Array,
    decoding: bool,
    band: Band,
    start: Int,
    stop: Int,
) -> None:
    """Code the cells of rows start..stop - 1 in row-major order: zero?, magnitude, sign.

    decoding: `stream` is read and `band.codes` filled; else the reverse.
    """
    slots, weights, work, spent = state.slots, state.weights, state.work, state.spent
    w, old, columns, totals = band.codes, band.previous, band.columns, band.totals
    row_levels, column_levels = band.row_levels, band.column_levels
    kind, limit, far, known = band.kind, band.limit, band.far, band.known
    k = work[CONTEXT]
    for r in range(start, stop):
        row_sum, row_signed = np.int64(0), np.int64(0)
        row_recent = (totals[0] << 8) // (totals[1] + 1)
        for c in range(columns.shape[0]):
            # Averages in 1/256, drawn towards the band's own while a row or column is young.
            mean = ((totals[0] << 8) + 256) // (totals[1] + 1)
            row_mean = ((row_sum << 8) + 4 * mean) // (c + 4)
            column_mean = ((columns[c, COLUMN_MAGNITUDE] << 8) + 4 * mean) // (r + 4)
            recent = columns[c, COLUMN_RECENT]
            level = magnitude_contexts(
                t, k, w, old, known, far, r, c, mean, row_mean, column_mean, row_recent, recent
            )
            k[0] = kind
            k[6] = column_levels[c] * 32 + row_levels[r]
            k[8] = kind * N_LEVELS + level
            for j in range(N_MAGNITUDE):
                k[j] = MAGNITUDE_BASES[j] + k[j] * N_NODES
            code = np.int64(0) if decoding else np.int64(w[r + PAD, c + PAD])
            node = np.int64(0)
            while node >= 0:
                threshold = t[TREE + node]
                bit = np.int64(0)
                if threshold <= limit:
                    bit = decide(
                        t, slots, weights, work, spent, coder, stream, decoding,
                        np.int64(abs(code) >= threshold), N_MAGNITUDE, node, node,
                        MAGNITUDE_SET_B + kind, MAGNITUDE_COST if node else ZERO_COST,
                    )  # fmt: skip
                node = t[TREE + (1 + bit) * N_NODES + node]
            magnitude = -1 - node
            value = magnitude
            if magnitude:
                column_share = share(columns[c, COLUMN_SIGNED], columns[c, COLUMN_MAGNITUDE])
                sign_contexts(t, k, w, old, far, r, c, column_share, share(row_signed, row_sum))
                k[0] = kind
                for j in range(N_SIGN):
                    k[j] += SIGN_BASES[j]
                bit = decide(
                    t, slots, weights, work, spent, coder, stream, decoding,
                    np.int64(code < 0), N_SIGN, 0, SIGN_SET_A + kind, SIGN_SET_B + kind, SIGN_COST,
                )  # fmt: skip
                value = -magnitude if bit else magnitude
            if decoding:
                w[r + PAD, c + PAD] = value
            row_sum += magnitude
            row_signed += value
            row_recent += ((magnitude << 8) - row_recent) >> 4
            columns[c, COLUMN_MAGNITUDE] += magnitude
            columns[c, COLUMN_SIGNED] += value
            columns[c, COLUMN_RECENT] += ((magnitude << 8) - columns[c, COLUMN_RECENT]) >> 3
            totals[0] += magnitude
            totals[1] += 1
