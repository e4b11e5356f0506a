"""One decision: the inputs' log-odds mixed, refined, coded; then all that took part learns."""

from __future__ import annotations

import numpy as np

from mdlzip.experts.coder import code_bit
from mdlzip.experts.slots import Array, Int, inlined, learn
from mdlzip.experts.state import SETS, SUM, WORK_WIDTH
from mdlzip.experts.tables import (
    COUNT_BITS,
    ETA,
    MAX_SEEN,
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
from mdlzip.experts.vectors import adapt, dot


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
    first_weight, size = weights.ctypes.data, 4 * SET_SIZE
    a = first_weight + size * work[SETS, 0]
    b = first_weight + size * work[SETS, 1]
    c = first_weight + size * work[SETS, 2]
    d = first_weight + size * work[SETS, 3]
    dot(inputs.ctypes.data, a, b, c, d, work.ctypes.data + 8 * (WORK_WIDTH * SETS + SUM), 0, 0)
    odds: Int = min(max(work[SETS, SUM] >> WEIGHT_BITS, -ODDS_LIMIT), ODDS_LIMIT - 1)
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
    at_seen = SET_SIZE * work[SETS, 0] + SEEN
    seen = np.int64(weights[at_seen])
    weights[at_seen] = min(seen + 1, MAX_SEEN)
    error = np.int32((((bit << PROBABILITY_BITS) - mixed) * np.int64(t[ETA + seen])) >> STEP_BITS)
    adapt(inputs.ctypes.data, a, b, c, d, np.int64(error), 0, 0)
    return bit
