"""One decision: the inputs' log-odds mixed, refined, coded; then all that took part learns."""

from __future__ import annotations

import numpy as np

from mdlzip.experts.coder import code_bit
from mdlzip.experts.slots import Array, Int, inlined, learn
from mdlzip.experts.state import SETS
from mdlzip.experts.tables import (
    COUNT_BITS,
    ETA,
    MAX_SEEN,
    N_INPUTS,
    N_MAPS,
    ODDS_FLOOR,
    ODDS_LIMIT,
    ONE,
    PROBABILITY_BITS,
    REFINE_LIMIT,
    REFINE_SPACING,
    REFINE_STEPS,
    SEEN,
    SET_SIZE,
    SQUASH,
    STEP_BITS,
    WEIGHT_BITS,
)

_HALF_STEP = 1 << (WEIGHT_BITS - 1)


@inlined
def decide(
    t: Array,
    inputs: Array,
    weights: Array,
    maps: Array,
    work: Array,
    coder: Array,
    stream: Array,
    decoding: bool,
    bit: Int,
) -> Int:
    """Code one decision from `inputs`, int32 (N_INPUTS,), log-odds; learn; return it.

    work[SETS]: four sets of weights that are added, then two refinements.
    """
    a = np.uint64(work[SETS, 0] * SET_SIZE)
    b = np.uint64(work[SETS, 1] * SET_SIZE)
    c = np.uint64(work[SETS, 2] * SET_SIZE)
    d = np.uint64(work[SETS, 3] * SET_SIZE)
    dot = np.int64(0)
    for i in range(N_INPUTS):
        j = np.uint64(i)
        dot += np.int64(inputs[j]) * np.int64(
            np.int32(weights[a + j] + weights[b + j] + weights[c + j] + weights[d + j])
        )
    odds: Int = min(max(dot >> WEIGHT_BITS, -ODDS_LIMIT), ODDS_LIMIT - 1)
    mixed = np.int64(t[SQUASH + ODDS_LIMIT + odds])

    step = (odds + ODDS_LIMIT) // REFINE_SPACING
    share = odds + ODDS_LIMIT - step * REFINE_SPACING
    first = N_MAPS + work[SETS, 4] * REFINE_STEPS + step
    second = N_MAPS + work[SETS, 5] * REFINE_STEPS + step
    left = np.int64(maps[first] >> COUNT_BITS) + np.int64(maps[second] >> COUNT_BITS)
    right = np.int64(maps[first + 1] >> COUNT_BITS) + np.int64(maps[second + 1] >> COUNT_BITS)
    refined = left + (right - left) * share // REFINE_SPACING
    p = min(max((2 * mixed + 3 * refined) >> 3, ODDS_FLOOR), ONE - ODDS_FLOOR)
    bit = code_bit(coder, stream, decoding, bit, p)

    near = np.int64(2 * share >= REFINE_SPACING)
    learn(t, maps, first + near, bit, REFINE_LIMIT)
    learn(t, maps, second + near, bit, REFINE_LIMIT)
    seen = np.int64(weights[a + np.uint64(SEEN)])
    weights[a + np.uint64(SEEN)] = min(seen + 1, MAX_SEEN)
    error = np.int32((((bit << PROBABILITY_BITS) - mixed) * np.int64(t[ETA + seen])) >> STEP_BITS)
    for i in range(N_INPUTS):
        j = np.uint64(i)
        change = np.int32((np.int64(inputs[j]) * np.int64(error) + _HALF_STEP) >> WEIGHT_BITS)
        weights[a + j] += change
        weights[b + j] += change
        weights[c + j] += change
        weights[d + j] += change
    return bit
