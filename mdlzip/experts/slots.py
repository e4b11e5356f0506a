"""Adaptive parts of the experts: slots, records of recent symbols, buckets of tree nodes.

Every lookup is one hash and at most two places; nothing is searched, so no input makes it slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np

from mdlzip.experts.tables import (
    COUNT_BITS,
    COUNT_MASK,
    ENTRY_COUNT,
    N_ENTRIES,
    ODDS_LIMIT,
    ONE,
    PACE,
    SLOT_FLOOR,
    STRETCH,
    STRETCH_LOW,
    TREE_MAPS,
    TREE_STATES,
    TREE_STEP,
    TREE_STEPS,
    TRUST,
    USE_LEVEL,
)
from mdlzip.process.kernels import compiled, fetching

Array = np.ndarray
Int: TypeAlias = Any  # int64 in compiled code
F = TypeVar("F", bound=Callable[..., Any])

FRESH_SLOT = np.uint32(ONE >> 1 << COUNT_BITS)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SALT = np.uint64(0xD6E8FEB86659FD93)
_FINISH = np.uint64(0xBF58476D1CE4E5B9)
_LOW_TAIL = 1 << 16
fetch = fetching()


def bare(function: F) -> F:
    """A kernel without counting references: our kernels make and keep no arrays."""
    return compiled(error_model="numpy", _nrt=False)(function)


def inlined(function: F) -> F:
    """A kernel that is put into its callers: passing an array costs more than most of these do."""
    return compiled(error_model="numpy", forceinline=True, _nrt=False)(function)


@inlined
def mixed(value: Int, salt: Int) -> Int:
    """A hash of two 64-bit numbers, uint64."""
    h = (np.uint64(value) + np.uint64(salt) * _SALT) * _SPREAD
    h ^= h >> np.uint64(29)
    h *= _FINISH
    return h ^ (h >> np.uint64(32))


@inlined
def stretched(t: Array, p: Int) -> Int:
    """Log-odds of a probability; finer near 0 and 1, where predictable data live."""
    if p < _LOW_TAIL:
        return np.int64(t[STRETCH_LOW + (p >> 4)])
    if p >= ONE - _LOW_TAIL:
        return -np.int64(t[STRETCH_LOW + ((ONE - 1 - p) >> 4)])
    return np.int64(t[STRETCH + (p >> 10)])


@inlined
def opinion(t: Array, slot: Int) -> Int:
    """Log-odds of a slot, drawn towards 0 while it was seldom used."""
    value = np.int64(slot)
    return (stretched(t, value >> COUNT_BITS) * np.int64(t[TRUST + (value & COUNT_MASK)])) >> 8


@inlined
def tree_map(t: Array, slot: Int, tree: Int) -> Int:
    """Place of the map of what a slot of `tree` says, for its uses and its log-odds."""
    value = np.int64(slot)
    step = (stretched(t, value >> COUNT_BITS) + ODDS_LIMIT) // TREE_STEP
    level = np.int64(t[USE_LEVEL + (value & COUNT_MASK)])
    return TREE_MAPS + tree * TREE_STATES + level * TREE_STEPS + step


@inlined
def learn(t: Array, slots: Array, i: Int, bit: Int, limit: Int) -> None:
    """Move slot i towards what happened, by 1 / (uses + 3 / 2)."""
    value = np.int64(slots[i])
    uses, p = value & COUNT_MASK, value >> COUNT_BITS
    target = ONE - SLOT_FLOOR if bit else SLOT_FLOOR
    p += ((target - p) * np.int64(t[PACE + uses])) >> 16
    slots[i] = np.uint32((p << COUNT_BITS) | min(uses + 1, limit))


@inlined
def find_bucket(trees: Array, key: Int, node: Int) -> Int:
    """Where the bucket of nodes below `node` in a context begins; another context's is cleared."""
    h = mixed(key, node)
    i = np.int64(h & np.uint64((trees.shape[0] >> 3) - 1))
    check = np.uint32(h >> np.uint64(32)) | np.uint32(1)
    i = i << 3
    if trees[i] != check:
        trees[i] = check
        for j in range(1, 8):
            trees[i + j] = FRESH_SLOT
    return i


@inlined
def fetch_bucket(trees: Array, key: Int, node: Int) -> None:
    """Ask for the bucket that `find_bucket` will look at."""
    h = mixed(key, node)
    fetch(trees.ctypes.data + 32 * np.int64(h & np.uint64((trees.shape[0] >> 3) - 1)))


@inlined
def fetch_record(records: Array, key: Int) -> None:
    """Ask for the record that `find_record` will look at, and its neighbour."""
    fetch(records.ctypes.data + 8 * np.int64(key & np.uint64(records.shape[0] - 1)))


@inlined
def find_record(records: Array, key: Int) -> Int:
    """The record of a context: one of two neighbours; else the less sure of them is cleared."""
    i = np.int64(key & np.uint64(records.shape[0] - 1))
    check = np.uint16(key >> np.uint64(48)) | np.uint16(1)
    if records[i, 0] == check:
        return i
    j = i ^ 1
    if records[j, 0] == check:
        return j
    if (records[j, 1] & ENTRY_COUNT) < (records[i, 1] & ENTRY_COUNT):
        i = j
    records[i, 0] = check
    for e in range(1, N_ENTRIES + 1):
        records[i, e] = 0
    return i


@inlined
def learn_record(records: Array, i: Int, symbol: Int) -> None:
    """Move `symbol` to the front; what stood there and was overtaken loses half its count."""
    first, second = np.int64(records[i, 1]), np.int64(records[i, 2])
    if first & ENTRY_COUNT and first >> 4 == symbol:
        if first & ENTRY_COUNT < ENTRY_COUNT:
            records[i, 1] = np.uint16(first + 1)
        if second & ENTRY_COUNT > 2:
            records[i, 2] = np.uint16(second - 1)
        return
    if first & ENTRY_COUNT > 3:
        first -= (first & ENTRY_COUNT) >> 1
    third = np.int64(records[i, 3])
    new = symbol << 4
    if second & ENTRY_COUNT and second >> 4 == symbol:
        new = second
    else:
        if third & ENTRY_COUNT and third >> 4 == symbol:
            new = third
        records[i, 3] = np.uint16(second)
    records[i, 2] = np.uint16(first)
    records[i, 1] = np.uint16(new + (new & ENTRY_COUNT < ENTRY_COUNT))
