"""One symbol: is it the best guess? If not, down the tree of the vocabulary, a decision a node.

Encoder and decoder run the same function, so they cannot drift apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdlzip.coding.binary_coder import CACHE, PENDING, POSITION, RANGE
from mdlzip.experts import tables as k
from mdlzip.experts.lanes import context_keys, fetch_heads, follow_matches, match_key, take_symbol
from mdlzip.experts.mixer import decide
from mdlzip.experts.opinions import (
    choose_guess,
    expect,
    forget_guess,
    guess_inputs,
    learn_guess,
    learn_node,
    look_up,
    node_inputs,
    sum_counts,
)
from mdlzip.experts.slots import (
    Array,
    Int,
    bare,
    fetch,
    fetch_bucket,
    fetch_record,
    find_bucket,
    inlined,
    learn_record,
    mixed,
    opinion,
    stretched,
    tree_map,
)
from mdlzip.experts.state import (
    BUCKET,
    CHUNK_BYTES,
    CHUNK_SYMBOLS,
    LAST_8,
    NODE,
    RECORD,
    SETS,
    TREE_MAP,
    USED,
)

_BYTE_MASK = np.uint64((1 << k.REFINE_BYTE_BITS) - 1)
_GUESS_NAMES = k.REFINE_NODES - k.REFINE_GUESS
_DEEPEST = k.MAX_DEPTH - 1
DECISIONS, GUESSES, RIGHT = range(3)  # fields of `spent`
SPENT_FIELDS = 3


@inlined
def network_odds(t: Array, yes: Int, total: Int) -> Int:
    """Log-odds of a share of the network's counts."""
    p = (yes << k.PROBABILITY_BITS) // total
    return stretched(t, min(max(p, 1), k.ONE - 1))


@inlined
def fetch_contexts(
    lanes: Array, b: Int, texts: Array, base: Int, row: Int, element: Int, keys: Array,
    records: Array, trees: Array,
) -> None:  # fmt: skip
    """Fill in the keys of lane b's contexts and ask for what is kept under them."""
    context_keys(lanes, b, texts, base, row, element, keys)
    for j in range(k.N_RECORDS):
        fetch_record(records, keys[j])
    for j in range(k.N_TREES - 1):
        fetch_bucket(trees, keys[k.N_RECORDS + j], 1)


@inlined
def fetch_refinements(maps: Array, work: Array) -> None:
    """Ask for both refinements of the decision at hand; each lies in two lines or three."""
    for i in range(4, 6):
        first = maps.ctypes.data + 4 * (k.N_MAPS + work[SETS, i] * k.REFINE_STEPS)
        fetch(first)
        fetch(first + 64)
        fetch(first + 128)


@inlined
def code_symbol(
    t: Array, trees: Array, records: Array, maps: Array, weights: Array, keys: Array, work: Array,
    inputs: Array, sums: Array, spent: Array, lanes: Array, b: Int, known: Array, texts: Array,
    base: Int, row: Int, element: Int, coder: Array, stream: Array, decoding: bool, best: Int,
    symbol: Int,
) -> Int:  # fmt: skip
    """Code the next symbol of lane `b`; all learn it but the lane and the records; returns it.

    best: the network's likeliest rank; symbol: the rank to code, or anything when decoding.
    """
    size = sums.shape[0] - 1
    total = sums[size]
    last = np.int64(lanes[b, LAST_8] & 255)
    fetch_contexts(lanes, b, texts, base, row, element, keys, records, trees)
    look_up(records, keys, work)
    matches = expect(lanes, b, known, work)
    match_key(lanes, b, work, keys)
    p = ((sums[best + 1] - sums[best]) << k.PROBABILITY_BITS) // total
    guess = choose_guess(t, maps, work, best, p)
    guessed = np.int64(0)
    tried = np.int64(0)
    for j in range(k.N_RECORDS + k.N_MATCHES):
        work[USED, j] = 0
    if guess >= 0:
        for j in range(k.N_TREES):
            fetch_bucket(trees, keys[k.N_RECORDS + j], k.GUESS_NODE + guess)
        work[SETS, 4] = matches
        work[SETS, 5] = k.REFINE_GUESS + (guess & (_GUESS_NAMES - 1))
        fetch_refinements(maps, work)
        inputs[0] = network_odds(t, sums[guess + 1] - sums[guess], total)
        favour = guess_inputs(t, maps, work, inputs, guess, trees, keys)
        work[SETS, 0], work[SETS, 1] = k.DEPTH_SETS, k.MATCH_SETS + matches
        work[SETS, 2] = k.RECORD_SETS + favour
        work[SETS, 3] = k.LAST_SETS + last
        guessed = np.int64(symbol == guess)
        guessed = decide(t, inputs, weights, maps, work, coder, stream, decoding, guessed)
        learn_guess(t, maps, work, guessed, trees)
        spent[DECISIONS] += 1
        spent[GUESSES] += 1
        spent[RIGHT] += guessed
        tried = np.int64(1)
        if guessed:
            symbol = guess
        else:
            forget_guess(work, guess)
            for j in range(k.N_RECORDS + k.N_MATCHES):
                work[USED, j] = 0
    if not guessed:
        left_out = sums[guess + 1] - sums[guess] if guess >= 0 else np.int64(0)
        low, high, node, depth = np.int64(0), np.int64(size), np.int64(1), np.int64(0)
        inner = np.int64(1)
        while high - low > 1:
            middle = (low + high) >> 1
            if depth % 3 == 0:
                for j in range(k.N_TREES):
                    fetch_bucket(trees, keys[k.N_RECORDS + j], node)
                for j in range(k.N_TREES):
                    work[BUCKET, j] = find_bucket(trees, keys[k.N_RECORDS + j], node)
                inner = np.int64(1)
            below, above = sums[middle] - sums[low], sums[high] - sums[middle]
            bit = np.int64(-1)
            if low <= guess < middle:
                below -= left_out
                if middle - low == 1:
                    bit = np.int64(1)
            elif middle <= guess < high:
                above -= left_out
                if high - middle == 1:
                    bit = np.int64(0)
            if bit < 0:
                level: Int = min(depth, _DEEPEST)
                work[SETS, 4] = (
                    k.REFINE_NODES + level * k.REFINE_NODE + (node & (k.REFINE_NODE - 1))
                )
                work[SETS, 5] = k.REFINE_BYTES + np.int64(mixed(node, last) & _BYTE_MASK)
                fetch_refinements(maps, work)
                if depth % 3 == 2:
                    for j in range(k.N_TREES):
                        fetch_bucket(trees, keys[k.N_RECORDS + j], 2 * node)
                        fetch_bucket(trees, keys[k.N_RECORDS + j], 2 * node + 1)
                inputs[0] = network_odds(t, above, below + above)
                for j in range(k.N_TREES):
                    work[NODE, j] = work[BUCKET, j] + inner
                    i = tree_map(t, trees[work[NODE, j]], j)
                    work[TREE_MAP, j] = i
                    inputs[k.TREE_INPUT + j] = opinion(t, maps[i])
                speaking = node_inputs(t, maps, work, inputs, low, middle, high, level)
                work[SETS, 0] = k.DEPTH_SETS + 1 + level
                work[SETS, 1] = k.MATCH_SETS + (1 + tried) * k.N_MATCH_STATES + matches
                work[SETS, 2] = k.RECORD_SETS + (1 + tried) * k.N_RECORD_STATES + speaking
                work[SETS, 3] = k.LAST_SETS + 256 + last
                bit = np.int64(symbol >= middle)
                bit = decide(t, inputs, weights, maps, work, coder, stream, decoding, bit)
                learn_node(t, maps, work, trees, bit)
                spent[DECISIONS] += 1
            if bit:
                low = middle
            else:
                high = middle
            node, inner = 2 * node + bit, 2 * inner + bit
            depth += 1
        symbol = low
    return symbol


@inlined
def spent_bits(coder: Array) -> Any:
    """What an encoder has spent so far, in bits; float64, for reports and training alone."""
    whole = np.int64(coder[POSITION] + coder[PENDING] + np.int64(coder[CACHE] >= 0))
    return 8.0 * np.float64(whole) - np.log2(np.float64(coder[RANGE]))


@bare
def code_rows(
    t: Array, trees: Array, records: Array, maps: Array, weights: Array, heads: Array,
    keys: Array, work: Array, inputs: Array, sums: Array, spent: Array,
    lanes: Array, lane_chunks: Int, row: Int, element: Int, chunks: Array, known: Array,
    texts: Array, start: Int, room: Int, strings: Array, lengths: Array, place: Array,
    coder: Array, stream: Array, decoding: bool, gaps: Array, counts: Array, rows: Array,
    sizes: Array, at: Array, ends: Array, symbols: Array, costs: Array,
) -> Int:  # fmt: skip
    """Symbols of the chunks `rows`: one of each in this order, then the next one of each, ...

    A row ends when its chunk holds sizes[r] bytes, or at[r] is ends[r]. symbols: int64, ranks, read
    or filled from at[r] on, which moves along. gaps: uint16 (n, V), of the network, by place, for
    each of the symbols; (0, V) for no network; counts: int32, gap -> count. chunks:
    int64 (chunks of the unit, CHUNK_FIELDS); start: where chunk 0 stands in `known`. costs:
    float32, filled like `symbols` with the bits that each takes when encoding; (0,) for none.
    Returns -1, or the row whose symbol did not fit.
    """
    best = np.int64(0)
    going = True
    n_keys = k.N_RECORDS + k.N_TREES
    ahead = keys[n_keys:]
    keys = keys[:n_keys]
    while going:
        going = False
        for r in range(rows.shape[0]):
            chunk, i = rows[r], at[r]
            if i >= ends[r] or chunks[chunk, CHUNK_BYTES] >= sizes[r]:
                continue
            going = True
            b = chunk // lane_chunks
            base = b * lane_chunks * room
            if rows.shape[0] > 1:
                following = rows[(r + 1) % rows.shape[0]] // lane_chunks
                fetch_contexts(
                    lanes, following, texts, following * lane_chunks * room, row, element, ahead,
                    records, trees,
                )  # fmt: skip
            if gaps.shape[0] > 0:
                best = sum_counts(gaps, i, counts, place, sums)
            before = spent_bits(coder) if costs.shape[0] > 0 else 0.0
            symbol = code_symbol(
                t, trees, records, maps, weights, keys, work, inputs, sums, spent, lanes, b, known,
                texts, base, row, element, coder, stream, decoding, best, symbols[i],
            )  # fmt: skip
            symbols[i] = symbol
            if costs.shape[0] > 0:
                costs[i] = np.float32(spent_bits(coder) - before)
            length = np.int64(lengths[symbol])
            if chunks[chunk, CHUNK_BYTES] + length > room:
                return r
            here = start + chunk * room + chunks[chunk, CHUNK_SYMBOLS]
            take_symbol(lanes, b, texts, base, known, here, symbol, strings, length)
            fetch_heads(lanes, b, heads)
            if rows.shape[0] == 1:
                fetch_contexts(lanes, b, texts, base, row, element, ahead, records, trees)
            for j in range(k.N_RECORDS):
                learn_record(records, work[RECORD, j], symbol)
            at[r] = i + 1
            chunks[chunk, CHUNK_BYTES] += length
            chunks[chunk, CHUNK_SYMBOLS] += 1
            n = chunks[chunk, CHUNK_SYMBOLS]
            follow_matches(lanes, b, known, room, here + 1, n, work, symbol, heads)
    return -1
