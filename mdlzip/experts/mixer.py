"""One decision: the inputs' log-odds mixed, refined, coded; then all that took part learns."""

from __future__ import annotations

import numpy as np

from mdlzip.coding.binary_coder import jit
from mdlzip.experts.coder import code_bit
from mdlzip.experts.slots import Array, Int, learn
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
    SQUASH,
    STEP_BITS,
    WEIGHT_BITS,
)

_HALF_STEP = 1 << (WEIGHT_BITS - 1)


@jit
def decide(
    t: Array,
    inputs: Array,
    weights: Array,
    maps: Array,
    sets: Array,
    coder: Array,
    stream: Array,
    decoding: bool,
    bit: Int,
) -> Int:
    """Code one decision from `inputs`, int32 (N_INPUTS,), log-odds; learn; return it.

    sets: int64 (5,), three sets of weights that are added, then two refinements.
    """
    a, b, c = weights[sets[0]], weights[sets[1]], weights[sets[2]]
    dot = np.int64(0)
    for j in range(N_INPUTS):
        dot += np.int64(inputs[j]) * np.int64(np.int32(a[j] + b[j] + c[j]))
    odds = min(max(dot >> WEIGHT_BITS, -ODDS_LIMIT), ODDS_LIMIT - 1)
    mixed = np.int64(t[SQUASH + ODDS_LIMIT + odds])

    step = (odds + ODDS_LIMIT) // REFINE_SPACING
    share = odds + ODDS_LIMIT - step * REFINE_SPACING
    first = N_MAPS + sets[3] * REFINE_STEPS + step
    second = N_MAPS + sets[4] * REFINE_STEPS + step
    left = np.int64(maps[first] >> COUNT_BITS) + np.int64(maps[second] >> COUNT_BITS)
    right = np.int64(maps[first + 1] >> COUNT_BITS) + np.int64(maps[second + 1] >> COUNT_BITS)
    refined = left + (right - left) * share // REFINE_SPACING
    p = min(max((2 * mixed + refined) >> 2, ODDS_FLOOR), ONE - ODDS_FLOOR)
    bit = code_bit(coder, stream, decoding, bit, p)

    near = np.int64(2 * share >= REFINE_SPACING)
    learn(t, maps, first + near, bit, REFINE_LIMIT)
    learn(t, maps, second + near, bit, REFINE_LIMIT)
    seen = np.int64(a[SEEN])
    a[SEEN] = min(seen + 1, MAX_SEEN)
    error = np.int32((((bit << PROBABILITY_BITS) - mixed) * np.int64(t[ETA + seen])) >> STEP_BITS)
    for j in range(N_INPUTS):
        change = np.int32((np.int64(inputs[j]) * np.int64(error) + _HALF_STEP) >> WEIGHT_BITS)
        a[j] += change
        b[j] += change
        c[j] += change
    return bit
