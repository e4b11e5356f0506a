"""The range coder of the data as a compiled kernel: from logit gaps to symbols in one scan.

It writes and reads what constriction 0.5 does (`queue.RangeEncoder`, `Categorical(perfect=False)`
with counts as float64); a test compares the two. docs/format-data.md has the arithmetic. Two
operations of it are floating-point, each correctly rounded; everything else is integers.
"""

from __future__ import annotations

import numpy as np

from mdlzip.process.kernels import compiled

# Fields of a coder's state, uint64: words taken or written; whether the stream was no encoder's.
LOWER, RANGE, POINT, WORDS, REFUSED = range(5)
STATE_FIELDS = 5
WORD_BITS = 32

_WEIGHT_BITS = 24
_WHOLE = 1 << _WEIGHT_BITS
_BLOCK = 32  # counts that are summed up together, so that few sums are looked at
_LOW_WORD = np.uint64((1 << WORD_BITS) - 1)
_SHIFT = np.uint64(WORD_BITS)
_BITS, _ONE = np.uint64(_WEIGHT_BITS), np.uint64(1)


def work_shape(n_symbols: int) -> tuple[int, int]:
    """Of the memory that the kernel works in: counts, and their sums by block; int64."""
    return 2, n_symbols


@compiled(error_model="numpy", _nrt=False)
def weigh(row, counts, work):  # type: ignore[no-untyped-def]
    """work[0] (V,) = counts[row]; work[1], their sums block by block. Returns the sum of all."""
    v, total = row.shape[0], np.int64(0)
    n = (v + _BLOCK - 1) // _BLOCK
    for b in range(n):
        own, out = row[b * _BLOCK : (b + 1) * _BLOCK], work[0, b * _BLOCK : (b + 1) * _BLOCK]
        part = np.int64(0)
        if own.shape[0] == _BLOCK:
            for i in range(_BLOCK):
                count = np.int64(counts[own[i]])
                out[i] = count
                part += count
        else:
            for i in range(own.shape[0]):
                count = np.int64(counts[own[i]])
                out[i] = count
                part += count
        work[1, b] = part
        total += part
    return total


@compiled(inline="always")
def edge(below, factor, k, v):  # type: ignore[no-untyped-def]
    """L[k], where `below` is the sum of the counts of the symbols before k."""
    return np.int64(np.float64(below) * factor) + k if k < v else np.int64(_WHOLE)


@compiled(error_model="numpy", _nrt=False)
def decode_symbol(state, words, total, work, v):  # type: ignore[no-untyped-def]
    """The rank of the next symbol; -1 if the stream was no encoder's."""
    factor = np.float64(_WHOLE - v) / np.float64(total)
    scale = state[RANGE] >> _BITS
    wide = (state[POINT] - state[LOWER]) // scale
    if wide >= np.uint64(_WHOLE):
        return np.int64(-1)
    q, below, b = np.int64(wide), np.int64(0), np.int64(0)
    last = (v + _BLOCK - 1) // _BLOCK - 1
    while b < last and edge(below + work[1, b], factor, (b + 1) * _BLOCK, v) <= q:
        below += work[1, b]
        b += 1
    k = b * _BLOCK
    low = edge(below, factor, k, v)
    while True:
        below += work[0, k]
        high = edge(below, factor, k + 1, v)
        if q < high:
            break
        low = high
        k += 1
    state[LOWER] += scale * np.uint64(low)
    state[RANGE] = scale * np.uint64(high - low)
    if state[RANGE] <= _LOW_WORD:
        state[LOWER] <<= _SHIFT
        state[RANGE] <<= _SHIFT
        n = np.int64(state[WORDS])
        following = np.uint64(words[n]) if n < words.shape[0] else np.uint64(0)
        state[POINT] = (state[POINT] << _SHIFT) | following
        state[WORDS] += _ONE
    return k


@compiled(error_model="numpy", _nrt=False)
def carry(words, n):  # type: ignore[no-untyped-def]
    """Add one to the number that the first n words are."""
    while n > 0:
        n -= 1
        words[n] = np.uint32((np.uint64(words[n]) + _ONE) & _LOW_WORD)
        if words[n] != 0:
            break


@compiled(error_model="numpy", _nrt=False)
def encode_symbol(state, words, total, work, v, k):  # type: ignore[no-untyped-def]
    """Write the symbol of rank k; `words` has room for one more."""
    factor = np.float64(_WHOLE - v) / np.float64(total)
    below, b = np.int64(0), k // _BLOCK
    for i in range(b):
        below += work[1, i]
    for i in range(b * _BLOCK, k):
        below += work[0, i]
    low = edge(below, factor, k, v)
    high = edge(below + work[0, k], factor, k + 1, v)
    scale, before, n = state[RANGE] >> _BITS, state[LOWER], np.int64(state[WORDS])
    state[LOWER] += scale * np.uint64(low)
    if state[LOWER] < before:
        carry(words, n)
    state[RANGE] = scale * np.uint64(high - low)
    if state[RANGE] <= _LOW_WORD:
        words[n] = np.uint32(state[LOWER] >> _SHIFT)
        state[LOWER] <<= _SHIFT
        state[RANGE] <<= _SHIFT
        state[WORDS] += _ONE


@compiled(error_model="numpy", _nrt=False)
def code_lines(  # type: ignore[no-untyped-def]
    state, words, decoding, fill, texts, room, strings, lengths, work, gaps, counts, rows, sizes,
    at, ends, symbols,
):  # fmt: skip
    """Symbols of the chunks `rows`: one of each in this order, then the next one of each, ...

    state: uint64 (STATE_FIELDS,); words: uint32. fill: int64 (B,), bytes of each chunk of the unit;
    texts: uint8 (B, room), written by a decoder. strings: uint8 (V, longest), lengths: int32 (V,).
    work: see `work_shape`. gaps: uint16 (n, V), for each of the symbols; counts: int32, gap ->
    count. A row ends when its chunk holds sizes[r] bytes, or at[r] is ends[r]; symbols: int64,
    ranks, read or filled from at[r] on, which moves along. Returns -1, or the row whose symbol did
    not fit.
    """
    v, going = gaps.shape[1], True
    while going:
        going = False
        for r in range(rows.shape[0]):
            chunk, i = rows[r], at[r]
            if i >= ends[r] or fill[chunk] >= sizes[r]:
                continue
            going = True
            total = weigh(gaps[i], counts, work)
            if decoding:
                symbol = decode_symbol(state, words, total, work, v)
                if symbol < 0:
                    state[REFUSED] = _ONE
                    return r
                symbols[i] = symbol
            else:
                symbol = symbols[i]
                encode_symbol(state, words, total, work, v, symbol)
            n, length = fill[chunk], np.int64(lengths[symbol])
            if n + length > room:
                return r
            if decoding:
                for j in range(length):
                    texts[chunk, n + j] = strings[symbol, j]
            fill[chunk] = n + length
            at[r] = i + 1
    return -1


@compiled(error_model="numpy", _nrt=False)
def code_streams(  # type: ignore[no-untyped-def]
    states, words, edges, decoding, work, gaps, counts, rows, lengths, symbols
):
    """Symbols of the streams `rows`, each stream by itself.

    states: uint64 (B, STATE_FIELDS); words: uint32, those of stream b at edges[b] .. edges[b + 1]
    - 1. gaps: uint16 (n, T, V); lengths: int64 (n,), how many symbols of a line are there; symbols:
    int64 (n, T), ranks, read or filled. The rest as for `code_lines`. Returns -1, or the line whose
    stream was no encoder's.
    """
    v = gaps.shape[2]
    for r in range(rows.shape[0]):
        b = rows[r]
        state, own = states[b], words[edges[b] : edges[b + 1]]
        for t in range(lengths[r]):
            total = weigh(gaps[r, t], counts, work)
            if decoding:
                symbol = decode_symbol(state, own, total, work, v)
                if symbol < 0:
                    state[REFUSED] = _ONE
                    return r
                symbols[r, t] = symbol
            else:
                encode_symbol(state, own, total, work, v, symbols[r, t])
    return -1
