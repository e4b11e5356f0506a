"""Sizes, constants and integer tables of the experts; `docs/format-experts.md` repeats them.

Units: a probability is an integer over 2**22 that a decision is "yes"; log-odds are in 1/256 nat,
-3072..3071. Nothing here depends on floating point.
"""

from __future__ import annotations

from functools import cache

import numpy as np

PROBABILITY_BITS = 22
ONE = 1 << PROBABILITY_BITS
ODDS_LIMIT = 3072  # 12 nats: 2**-17.3, so a symbol that is sure costs next to nothing
ODDS_FLOOR = 16  # no probability is nearer to 0 or 1, over 2**22

# Who takes part in a decision, in the order of the mixer's inputs.
N_TREES = 6  # adaptive probabilities at the nodes of the vocabulary's tree
N_RECORDS = 10  # the last few symbols that followed a context
N_MATCHES = 2  # a symbol that follows an equal passage
TREE_INPUT = 1  # input 0 is the network
RECORD_INPUT = TREE_INPUT + N_TREES
MATCH_INPUT = RECORD_INPUT + N_RECORDS
BIAS_INPUT = MATCH_INPUT + N_MATCHES
N_INPUTS = BIAS_INPUT + 1
BIAS = 256  # one nat

# A slot: probability in 22 bits, below it in 10 bits how often it was used.
COUNT_BITS = 10
COUNT_MASK = (1 << COUNT_BITS) - 1
SLOT_FLOOR = 64
TREE_LIMIT = 250  # uses; from then on a slot is a moving average over about this number
MAP_LIMIT = 1000
REFINE_LIMIT = 250

# A record: check, then three entries of symbol << 4 | count, the most recent one first.
N_ENTRIES = 3
ENTRY_COUNT = 15

# Maps turn what a record or match says into a probability. Of a record: for the guess
# [rank of the guess 0..3][its count][level of the others' counts], then for nodes
# [depth][count of the favoured side][level of the other side's].
N_LEVELS = 8
GUESS_STATES = 4 * 16 * N_LEVELS
MAX_DEPTH = 12
NODE_STATES = MAX_DEPTH * 16 * N_LEVELS
RECORD_STATES = GUESS_STATES + NODE_STATES
# Of a match: [level of its length][misses 0..3][node depth, other than the guess, the guess].
N_LENGTHS = 32
N_MISSES = 4
OTHER_THAN_GUESS, IS_GUESS = 14, 15
MATCH_STATES = N_LENGTHS * N_MISSES * 16
MATCH_MAPS = N_RECORDS * RECORD_STATES
# Of a slot of a tree: [tree, at a node or at the guess][level of its uses][its log-odds / 96].
TREE_MAPS = MATCH_MAPS + N_MATCHES * MATCH_STATES
USE_LEVELS = (0, 1, 2, 3, 4, 6, 9, 14, 24, 50, 120, 250)  # the least uses of each level
TREE_STEP = 96
TREE_STEPS = 2 * ODDS_LIMIT // TREE_STEP
TREE_STATES = len(USE_LEVELS) * TREE_STEPS
N_MAPS = TREE_MAPS + 2 * N_TREES * TREE_STATES

# Sets of mixing weights; a decision adds four: by depth (0: the guess), by matches, by records, by
# the last byte (at the guess, at a node).
N_MATCH_STATES = 16
N_RECORD_STATES = 16
DEPTH_SETS = 0
MATCH_SETS = DEPTH_SETS + 1 + MAX_DEPTH
RECORD_SETS = MATCH_SETS + 3 * N_MATCH_STATES
LAST_SETS = RECORD_SETS + 3 * N_RECORD_STATES
N_SETS = LAST_SETS + 2 * 256
SEEN = N_INPUTS  # after the weights of a set: how often it was used
SET_SIZE = N_INPUTS + 1
WEIGHT_BITS = 16
MAX_SEEN = 4095
STEP_BITS = 10
NETWORK_WEIGHT = 45875  # 0.7
OTHER_WEIGHT = 13107  # 0.2

# Refinement: probability after mixing -> probability, learned at 33 points of the log-odds.
REFINE_STEPS = 33
REFINE_SPACING = 2 * ODDS_LIMIT // (REFINE_STEPS - 1)
REFINE_GUESS = 16
REFINE_NODE = 256
REFINE_BYTE_BITS = 12
REFINE_NODES = REFINE_GUESS + 1024
REFINE_BYTES = REFINE_NODES + MAX_DEPTH * REFINE_NODE
N_REFINE = REFINE_BYTES + (1 << REFINE_BYTE_BITS)

GUESS_NODE = 1 << 20  # at this node plus a guess, trees learn whether the guess is right
GUESS_FLOOR = 2097152  # 0.5: a guess less likely than this is not asked for
_EXP_ONE = 1 << 62
_EXP_STEP = 4593706758521714574  # round(2**62 * exp(-1 / 256))
_PRIOR_USES = 4
_TREE_PRIOR_USES = 12
# Twice the counts that a level stands for, in the first values of the maps.
_TYPICAL = (0, 2, 4, 6, 9, 14, 24, 44)


@cache
def squash_table() -> np.ndarray:
    """Log-odds + ODDS_LIMIT -> probability; int64 (2 * ODDS_LIMIT,)."""
    upper, e = [], _EXP_ONE
    for _ in range(ODDS_LIMIT + 1):
        upper.append(min((ONE * _EXP_ONE) // (_EXP_ONE + e), ONE - ODDS_FLOOR))
        e = (e * _EXP_STEP) >> 62
    lower = [ONE - p for p in upper[:0:-1]]
    return np.array(lower + upper[:-1], dtype=np.int64)


def _stretch(probabilities: np.ndarray) -> np.ndarray:
    return np.searchsorted(squash_table(), probabilities, "right").clip(1) - 1 - ODDS_LIMIT


def _levels() -> list[int]:
    """Level of 0..45: 0 to 3 for themselves, then 4..5, 6..8, 9..15 and more."""
    return [min(n, 4) + (n > 5) + (n > 8) + (n > 15) for n in range(46)]


def _trust(uses: int) -> int:
    return (256 * (10 * uses + 3)) // (10 * uses + 18)


# Where each table starts in the one array of `tables()`.
SQUASH = 0
STRETCH = SQUASH + 2 * ODDS_LIMIT  # probability >> 10 -> log-odds
STRETCH_LOW = STRETCH + 4096  # probability >> 4, below 2**16 -> log-odds
PACE = STRETCH_LOW + 4096  # uses of a slot -> its next step, over 2**16
TRUST = PACE + COUNT_MASK + 1  # uses of a slot -> its weight, over 2**8
ETA = TRUST + COUNT_MASK + 1  # uses of a weight set -> learning rate
LEVEL = ETA + MAX_SEEN + 1  # sum of counts -> level
USE_LEVEL = LEVEL + 46  # uses of a slot -> level of its uses
TABLE_WORDS = USE_LEVEL + COUNT_MASK + 1


@cache
def tables() -> np.ndarray:
    """All tables one after the other, int32 (TABLE_WORDS,)."""
    uses = range(COUNT_MASK + 1)
    parts = [
        squash_table(),
        _stretch((2 * np.arange(4096, dtype=np.int64) + 1) << 9),
        _stretch((2 * np.arange(4096, dtype=np.int64) + 1) << 3),
        [131072 // (2 * n + 3) for n in uses],
        [_trust(n) for n in uses],
        [6 + 24 * 32 // (32 + n) for n in range(MAX_SEEN + 1)],
        _levels(),
        [sum(n >= least for least in USE_LEVELS[1:]) for n in uses],
    ]
    table = np.concatenate([np.asarray(part, np.int64) for part in parts]).astype(np.int32)
    assert table.size == TABLE_WORDS
    return table


def _slot(numerator: int, denominator: int, low: int, high: int) -> int:
    """A slot of about numerator / denominator, kept within low..high thousandths."""
    p = ONE * numerator // denominator
    return min(max(p, ONE * low // 1000), ONE * high // 1000) << COUNT_BITS | _PRIOR_USES


def _record_maps() -> list[int]:
    slots = []
    for rank in range(4):
        for count in range(16):
            for others in _TYPICAL:
                if rank == 0:
                    slots.append(_slot(6, 10 * others + 20, 2, 995))
                else:
                    top = 20 * count + 10 * (rank == 1)
                    slots.append(_slot(top, 20 * count + 10 * others + 24, 2, 995))
    for depth in range(MAX_DEPTH):
        # What the record does not hold is spread evenly, and halved at each node.
        for count in range(16):
            for others in _TYPICAL:
                known = 20 * max(count, 1)
                novel = 13 * 4096 >> max(depth - 1, 0)
                top = known * 4096 + novel
                slots.append(_slot(top, top + 10 * others * 4096 + novel, 20, 998))
    return slots


def _match_maps() -> list[int]:
    slots = []
    for length in range(N_LENGTHS):
        for misses in range(N_MISSES):
            sure = 500 if misses else min(500 + 40 * length, 980)
            for kind in range(16):
                if kind == IS_GUESS:
                    slots.append(_slot(sure, 1000, 2, 998))
                elif kind == OTHER_THAN_GUESS:
                    slots.append(_slot(200, 1000, 2, 998))
                else:
                    half = (1000 - sure) << 15 >> (kind + 1)
                    slots.append(_slot((sure << 15) + half, 1000 << 15, 2, 998))
    return slots


def _tree_maps() -> list[int]:
    """What a slot says by itself, drawn towards 0 while it was seldom used."""
    slots, squash = [], squash_table()
    for uses in USE_LEVELS:
        for step in range(TREE_STEPS):
            odds = (step * TREE_STEP + TREE_STEP // 2 - ODDS_LIMIT) * _trust(uses) >> 8
            slots.append(int(squash[ODDS_LIMIT + odds]) << COUNT_BITS | _TREE_PRIOR_USES)
    return slots


@cache
def first_maps() -> np.ndarray:
    """The maps before anything is known, uint32 (N_MAPS,)."""
    slots = _record_maps() * N_RECORDS + _match_maps() * N_MATCHES + _tree_maps() * 2 * N_TREES
    return np.array(slots, np.uint32)


@cache
def first_refinements() -> np.ndarray:
    """Refinements that change nothing, uint32 (N_REFINE * REFINE_STEPS,)."""
    odds = np.arange(REFINE_STEPS) * REFINE_SPACING
    row = squash_table()[np.minimum(odds, 2 * ODDS_LIMIT - 1)]
    row = np.clip(row, SLOT_FLOOR, ONE - SLOT_FLOOR) << COUNT_BITS | 6
    return np.tile(row.astype(np.uint32), N_REFINE)


@cache
def first_weights() -> np.ndarray:
    """Mixing weights and counts of use before anything is known, int32 (N_SETS * SET_SIZE,)."""
    weights = np.zeros((N_SETS, SET_SIZE), np.int32)
    weights[:MATCH_SETS, 0] = NETWORK_WEIGHT
    weights[:MATCH_SETS, TREE_INPUT:BIAS_INPUT] = OTHER_WEIGHT
    return weights.ravel()
