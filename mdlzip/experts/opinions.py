"""What records and matches say of a guess and of a node, and what they learn from the answer.

`work` is the scratch of the symbol at hand, int64, its rows named in `state`. Every index is
bounded whatever the stream holds: ranks are below V, counts and levels below their tables' sizes.
"""

from __future__ import annotations

import numpy as np

from mdlzip.experts import tables as k
from mdlzip.experts.lanes import length_level
from mdlzip.experts.slots import (
    Array,
    Int,
    find_bucket,
    find_record,
    inlined,
    learn,
    opinion,
    tree_map,
)
from mdlzip.experts.state import (
    ENTRY,
    EXPECTED,
    LENGTH,
    MATCH,
    MATCH_FIELDS,
    MATCH_LEVEL,
    MISSES,
    NODE,
    POINTER,
    RECORD,
    TREE_MAP,
    USED,
)
from mdlzip.experts.tables import (
    BIAS,
    BIAS_INPUT,
    COUNT_BITS,
    ENTRY_COUNT,
    GUESS_FLOOR,
    GUESS_NODE,
    GUESS_STATES,
    IS_GUESS,
    LEVEL,
    MAP_LIMIT,
    MATCH_INPUT,
    MATCH_MAPS,
    MATCH_STATES,
    N_ENTRIES,
    N_LEVELS,
    N_MATCHES,
    N_RECORDS,
    N_TREES,
    OTHER_THAN_GUESS,
    RECORD_INPUT,
    RECORD_STATES,
    TREE_INPUT,
    TREE_LIMIT,
)


@inlined
def sum_counts(gaps: Array, line: Int, counts: Array, place: Array, sums: Array) -> Int:
    """Fill sums, int64 (V + 1,), with the counts of all lower ranks; returns the likeliest rank."""
    best, total = np.int64(0), np.int64(0)
    least = gaps[line, place[0]]
    for i in range(place.shape[0]):
        gap = gaps[line, place[i]]
        if gap < least:
            least, best = gap, np.int64(i)
        total += np.int64(counts[gap])
        sums[i + 1] = total
    return best


@inlined
def look_up(records: Array, keys: Array, work: Array) -> None:
    """Find the records of the contexts and copy their entries."""
    for j in range(N_RECORDS):
        i = find_record(records, keys[j])
        work[RECORD, j] = i
        for e in range(N_ENTRIES):
            work[ENTRY + e, j] = np.int64(records[i, e + 1])


@inlined
def expect(lanes: Array, b: Int, known: Array, work: Array) -> Int:
    """Fill in what the matches expect; returns the state of the matches, 0..15."""
    state = np.int64(0)
    for m in range(N_MATCHES):
        at = MATCH + MATCH_FIELDS * m
        pointer = lanes[b, at + POINTER]
        work[EXPECTED, m] = -1
        if pointer >= 0:
            work[EXPECTED, m] = np.int64(known[pointer])
            level = length_level(lanes[b, at + LENGTH])
            misses = min(lanes[b, at + MISSES], k.N_MISSES - 1)
            work[MATCH_LEVEL, m] = (
                MATCH_MAPS + m * MATCH_STATES + (level * k.N_MISSES + misses) * 16
            )
            state = max(state, 1 + (level >> 2 if level < 16 else min(level - 12, 6)))
    first, second = work[EXPECTED, 0], work[EXPECTED, 1]
    return state + 8 if first >= 0 and second >= 0 and first != second else state


@inlined
def choose_guess(t: Array, maps: Array, work: Array, guess: Int, p: Int) -> Int:
    """The likeliest of what network (`guess`, probability `p`), records and matches name, or -1."""
    for j in range(N_RECORDS):
        entry = work[ENTRY, j]
        count = entry & ENTRY_COUNT
        if count:
            others = (work[ENTRY + 1, j] & ENTRY_COUNT) + (work[ENTRY + 2, j] & ENTRY_COUNT)
            state = (16 + count) * N_LEVELS + np.int64(t[LEVEL + others])
            q = np.int64(maps[j * RECORD_STATES + state] >> COUNT_BITS)
            if q > p:
                guess, p = entry >> 4, q
    for m in range(N_MATCHES):
        if work[EXPECTED, m] >= 0:
            q = np.int64(maps[work[MATCH_LEVEL, m] + IS_GUESS] >> COUNT_BITS)
            if q > p:
                guess, p = work[EXPECTED, m], q
    return guess if p >= GUESS_FLOOR else np.int64(-1)


@inlined
def guess_inputs(
    t: Array, maps: Array, work: Array, inputs: Array, guess: Int, trees: Array, keys: Array
) -> Int:
    """Inputs of the decision whether the symbol is `guess`; returns how many records favour it.

    trees: as in `Memory`; keys: uint64, of all contexts.
    """
    favour = np.int64(0)
    for j in range(N_TREES):
        work[NODE, j] = find_bucket(trees, keys[N_RECORDS + j], GUESS_NODE + guess) + 1
        i = tree_map(t, trees[work[NODE, j]], N_TREES + j)
        work[TREE_MAP, j] = i
        inputs[TREE_INPUT + j] = opinion(t, maps[i])
    for j in range(N_RECORDS):
        inputs[RECORD_INPUT + j] = 0
        work[USED, j] = -1
        if work[ENTRY, j] & ENTRY_COUNT == 0:
            continue
        rank, count, others = np.int64(0), np.int64(0), np.int64(0)
        for e in range(N_ENTRIES):
            entry = work[ENTRY + e, j]
            if entry >> 4 == guess and entry & ENTRY_COUNT:
                rank, count = np.int64(e + 1), entry & ENTRY_COUNT
            else:
                others += entry & ENTRY_COUNT
        favour += rank == 1
        state = (rank * 16 + count) * N_LEVELS + np.int64(t[LEVEL + others])
        work[USED, j] = j * RECORD_STATES + state
        inputs[RECORD_INPUT + j] = opinion(t, maps[work[USED, j]])
    for m in range(N_MATCHES):
        inputs[MATCH_INPUT + m] = 0
        work[USED, N_RECORDS + m] = -1
        expected = work[EXPECTED, m]
        if expected >= 0:
            used = work[MATCH_LEVEL, m] + (IS_GUESS if expected == guess else OTHER_THAN_GUESS)
            work[USED, N_RECORDS + m] = used
            inputs[MATCH_INPUT + m] = opinion(t, maps[used])
    inputs[BIAS_INPUT] = BIAS
    return favour


@inlined
def learn_guess(t: Array, maps: Array, work: Array, bit: Int, trees: Array) -> None:
    """Let trees and the maps of records and matches learn whether the guess was right."""
    for j in range(N_TREES):
        learn(t, trees, work[NODE, j], bit, TREE_LIMIT)
        learn(t, maps, work[TREE_MAP, j], bit, MAP_LIMIT)
    for j in range(N_RECORDS + N_MATCHES):
        if work[USED, j] >= 0:
            learn(t, maps, work[USED, j], bit, MAP_LIMIT)


@inlined
def forget_guess(work: Array, guess: Int) -> None:
    """Take a wrong guess out of the entries and expectations."""
    for j in range(N_RECORDS):
        for e in range(N_ENTRIES):
            if work[ENTRY + e, j] >> 4 == guess:
                work[ENTRY + e, j] = 0
    for m in range(N_MATCHES):
        if work[EXPECTED, m] == guess:
            work[EXPECTED, m] = -1


@inlined
def node_inputs(
    t: Array, maps: Array, work: Array, inputs: Array, low: Int, middle: Int, high: Int, depth: Int
) -> Int:
    """Inputs of records and matches at a node; returns how many records have something to say.

    work[USED] becomes twice the map's place plus the side it favours, or -1.
    """
    speaking = np.int64(0)
    for j in range(N_RECORDS):
        inputs[RECORD_INPUT + j] = 0
        if work[USED, j] == -1:
            continue
        below, above, side = np.int64(0), np.int64(0), np.int64(-1)
        for e in range(N_ENTRIES):
            entry = work[ENTRY + e, j]
            rank, count = entry >> 4, entry & ENTRY_COUNT
            if count and low <= rank < high:
                if rank >= middle:
                    above += count
                else:
                    below += count
                if side < 0:
                    side = np.int64(rank >= middle)
        if side < 0:
            work[USED, j] = -1
            continue
        speaking += 1
        favoured, other = (above, below) if side else (below, above)
        state = (depth * 16 + min(favoured, 15)) * N_LEVELS + np.int64(t[LEVEL + other])
        used = j * RECORD_STATES + GUESS_STATES + state
        work[USED, j] = 2 * used + side
        odds = opinion(t, maps[used])
        inputs[RECORD_INPUT + j] = odds if side else -odds
    for m in range(N_MATCHES):
        inputs[MATCH_INPUT + m] = 0
        work[USED, N_RECORDS + m] = -1
        expected = work[EXPECTED, m]
        if low <= expected < high:
            used, side = work[MATCH_LEVEL, m] + depth, np.int64(expected >= middle)
            work[USED, N_RECORDS + m] = 2 * used + side
            odds = opinion(t, maps[used])
            inputs[MATCH_INPUT + m] = odds if side else -odds
    inputs[BIAS_INPUT] = BIAS
    return speaking


@inlined
def learn_node(t: Array, maps: Array, work: Array, trees: Array, bit: Int) -> None:
    """Let all that spoke at a node learn which way it went."""
    for j in range(N_TREES):
        learn(t, trees, work[NODE, j], bit, TREE_LIMIT)
        learn(t, maps, work[TREE_MAP, j], bit, MAP_LIMIT)
    for j in range(N_RECORDS + N_MATCHES):
        used = work[USED, j]
        if used >= 0:
            learn(t, maps, used >> 1, bit == used & 1, MAP_LIMIT)
