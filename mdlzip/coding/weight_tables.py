"""Constants and integer tables of the weight coder; docs/format-model.md has every number, too."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from mdlzip.coding.binary_coder import (
    ONE,
    STRETCH_BITS,
    STRETCH_LIMIT,
    cost_table,
    squash_table,
    stretch_table,
)

MAX_MAGNITUDE = 127
UNARY_MAGNITUDES = 2  # magnitudes 0 and 1 have a decision each; above, exp-Golomb classes

# Context values of each predictor; the numbers of slots per decision node.
MAGNITUDE_CONTEXTS = (12, 196, 128, 1024, 64, 256, 1024, 1024, 768, 4096)
SIGN_CONTEXTS = (12, 81, 24, 32, 32, 9, 24)
N_MAGNITUDE = len(MAGNITUDE_CONTEXTS)
N_SIGN = len(SIGN_CONTEXTS)
N_INPUTS = N_MAGNITUDE + 1  # and the constant input
N_KINDS = MAGNITUDE_CONTEXTS[0]
MAX_COLUMN_CONTEXT = MAGNITUDE_CONTEXTS[9] - 1
N_NODES = 128  # decision nodes of a magnitude: one per possible threshold, and a spare
N_LEVELS = 64
LEVEL_VALUES = 1 << 15  # averages are in 1/256: at most 127 << 8

# A slot holds a probability in 22 bits and, below it, how often it was used in 10 bits.
COUNT_BITS = 10
COUNT_MASK = (1 << COUNT_BITS) - 1
SLOT_BITS = 22
SLOT_FLOOR = 256  # a slot moves towards this or 2**22 - this, so it stays between them
COUNT_LIMIT = 400  # decisions; from then on a slot is a moving average over about this number
FRESH_SLOT = (1 << (SLOT_BITS - 1)) << COUNT_BITS
CODED_FLOOR = 4  # the coder's probability stays this far from 0 and 2**16

WEIGHT_BITS = 16  # a mixing weight of 1.0
FIRST_WEIGHT = 70000  # shared out among a decision's inputs
CONSTANT_INPUT = 256  # the last input of the mixer: a quarter of a nat
ETA_SHIFT = 22
ETA_FLOOR = 2
ETA_START = 20
MAX_SEEN = 4095


def magnitude_tree() -> np.ndarray:
    """Decision nodes for magnitudes 0..127, int64 [3, N_NODES]; node 0 asks "is it zero".

    Row 0: threshold t, the decision is `magnitude >= t`. Rows 1 and 2: the next node for no and
    yes, or -1 - magnitude. Nodes are numbered in the order of depth-first descent, no
    before yes.
    """
    tree = np.zeros((3, N_NODES), dtype=np.int64)
    used = 0

    def build(low: int, high: int, open_ended: bool) -> int:
        nonlocal used
        if low == high:
            return -1 - low
        node, used = used, used + 1
        if low < UNARY_MAGNITUDES:
            threshold = low + 1
        elif open_ended and 2 * low - 1 <= high:  # classes 2, 3..4, 5..8, ... 65..127
            threshold = 2 * low - 1
        else:
            threshold, open_ended = (low + high + 1) // 2, False
        tree[0, node] = threshold
        tree[1, node] = build(low, threshold - 1, False)
        tree[2, node] = build(threshold, high, open_ended)
        return node

    build(0, MAX_MAGNITUDE, True)
    return tree


def _levels(steps: int) -> np.ndarray:
    """Level of 0..LEVEL_VALUES - 1: 0 for 0, then 2**steps per octave, cut at the leading bits."""
    values = range(1, LEVEL_VALUES)
    octaves = [v.bit_length() - 1 for v in values]
    fractions = [(v << steps >> o) - (1 << steps) for v, o in zip(values, octaves, strict=True)]
    levels = [1 + (o << steps) + f for o, f in zip(octaves, fractions, strict=True)]
    return np.array([0, *levels], dtype=np.int64)


def _size(magnitude: int) -> int:
    """0, 1, 2 for themselves, then 3..4, 5..8, 9..16 and more: 3, 4, 5, 6."""
    return min((magnitude - 1).bit_length() + 1, 6) if magnitude else 0


# Where each table starts in the one array of `tables()`. One array, not many in a tuple: compiled
# code counts references when it takes an array out of a tuple, and that costs more than coding.
SQUASH = 0  # log-odds + STRETCH_LIMIT -> probability
STRETCH = SQUASH + 2 * STRETCH_LIMIT  # probability -> log-odds
COST = STRETCH + (1 << STRETCH_BITS)  # probability -> cost in 2**-16 bit
PACE = COST + ONE + 1  # uses of a slot -> its next step, over 2**16
TRUST = PACE + COUNT_LIMIT + 1  # uses of a slot -> its weight, over 2**8
ETA = TRUST + COUNT_LIMIT + 1  # uses of a weight set -> learning rate
COARSE = ETA + MAX_SEEN + 1  # value below 2**15 -> level, 2 per octave
FINE = COARSE + LEVEL_VALUES  # the same, 4 per octave
SIZE = FINE + LEVEL_VALUES  # magnitude -> 0..6
TREE = SIZE + MAX_MAGNITUDE + 1  # the rows of `magnitude_tree`
TABLE_WORDS = TREE + 3 * N_NODES


@cache
def tables() -> np.ndarray:
    """All tables one after the other, int32 [TABLE_WORDS]; built once per process in some 0.2 s."""
    counts = range(COUNT_LIMIT + 1)
    seen = range(MAX_SEEN + 1)
    parts = [
        squash_table(),
        stretch_table(),
        cost_table(),
        np.array([(2 << 16) // (2 * n + 3) for n in counts], dtype=np.int64),
        np.array([(n << 8) // (n + 4) for n in counts], dtype=np.int64),
        np.array([ETA_FLOOR + ETA_START * 16 // (16 + n) for n in seen], dtype=np.int64),
        _levels(1),
        _levels(2),
        np.array([_size(m) for m in range(MAX_MAGNITUDE + 1)], dtype=np.int64),
        magnitude_tree().ravel(),
    ]
    table = np.concatenate(parts).astype(np.int32)
    assert table.size == TABLE_WORDS
    return table


PAD = 2  # zeros above and to the left of a band; one row or column is enough on the other sides


class Band(NamedTuple):
    """Rows of one tensor that are coded together, and what is known of them.

    codes: int8 [PAD + rows + 1, PAD + columns + 1], read or filled, zeros around;
    previous: the same of the like band of an earlier layer, or zeros and `known` 0 instead of 1;
    row_levels, column_levels: int64, 0..31, the weight of each row and column in earlier bands
    (0: unknown); columns: int64 [columns, 3], running sums;
    totals: int64 [2], magnitude sum and number of cells so far; kind: 0..11;
    limit: largest magnitude; far: rows back to a row that may be alike (0: none).
    """

    codes: np.ndarray
    previous: np.ndarray
    row_levels: np.ndarray
    column_levels: np.ndarray
    columns: np.ndarray
    totals: np.ndarray
    known: int
    kind: int
    limit: int
    far: int


class State(NamedTuple):
    """Everything that adapts, and scratch; the same in encoder and decoder. All but slots int64.

    slots: uint32, for magnitudes, then for signs; weights [N_SETS, N_INPUTS + 1]: mixing weights,
    and how often the set was used; work [3, N_INPUTS]: of the decision at hand the first slot of
    each context, the slots used, the inputs; spent [3]: cost so far, see `weight_kernel`.
    """

    slots: np.ndarray
    weights: np.ndarray
    work: np.ndarray
    spent: np.ndarray


MAGNITUDE_BASES = tuple(sum(MAGNITUDE_CONTEXTS[:i]) * N_NODES for i in range(N_MAGNITUDE))
_SIGN_START = sum(MAGNITUDE_CONTEXTS) * N_NODES
SIGN_BASES = tuple(_SIGN_START + sum(SIGN_CONTEXTS[:i]) for i in range(N_SIGN))

# Sets of mixing weights. Each decision adds two: one of its node (or its kind, for a sign) and one
# of its kind.
SIGN_SET_A = N_NODES
MAGNITUDE_SET_B = SIGN_SET_A + N_KINDS
SIGN_SET_B = MAGNITUDE_SET_B + N_KINDS
N_SETS = SIGN_SET_B + N_KINDS


def new_state() -> State:
    """State before the first cell: even slots, equal weights."""
    weights = np.zeros((N_SETS, N_INPUTS + 1), dtype=np.int64)
    weights[:SIGN_SET_A, :N_INPUTS] = FIRST_WEIGHT // N_MAGNITUDE
    weights[SIGN_SET_A:MAGNITUDE_SET_B, :N_INPUTS] = FIRST_WEIGHT // N_SIGN
    return State(
        slots=np.full(_SIGN_START + sum(SIGN_CONTEXTS), FRESH_SLOT, dtype=np.uint32),
        weights=weights,
        work=np.zeros((3, N_INPUTS), dtype=np.int64),
        spent=np.zeros(3, dtype=np.int64),
    )
