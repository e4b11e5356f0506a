"""The loops over bytes and symbols. Imported in functions only: numba takes long to load."""

from __future__ import annotations

import numpy as np

from mdlzip.process.kernels import compiled
from mdlzip.symbols.vocabulary import FIRST_MERGE

_NONE = -1


@compiled()
def tokenise(data, edges, pairs, n_merges, symbols, ends):  # type: ignore[no-untyped-def]
    """Symbols of `data`, uint8 (n,), each unit (up to `edges[i]`) by itself; how many there are.

    Writes to symbols, int16 (n,), and to ends, int64 (units,): where in them each unit ends.
    """
    begin = filled = 0
    for unit in range(edges.shape[0]):
        filled += _merge_unit(data[begin : edges[unit]], pairs, n_merges, symbols[filled:])
        ends[unit] = filled
        begin = edges[unit]
    return filled


@compiled()
def _merge_unit(data, pairs, n_merges, out):  # type: ignore[no-untyped-def]
    """Byte-pair encoding of one unit, in time proportional to its length.

    The symbols are a linked list over the places of the bytes. Each merge has a list of the places
    where it may apply, each the left one of a pair. Merges are taken in their order, since one
    brings forth pairs of later ones only. An entry whose pair has changed since is passed over.
    """
    n = data.shape[0]
    symbols, merge_at = np.empty(n, np.int16), np.empty(n, np.int16)
    before, after = np.empty(n, np.int32), np.empty(n, np.int32)
    # n - 1 pairs at first; each of less than n replacements makes at most two new ones.
    place, link = np.empty(3 * n, np.int32), np.empty(3 * n, np.int32)
    first = np.full(n_merges, _NONE, np.int32)
    entries = 0
    for p in range(n - 1, -1, -1):
        symbols[p], before[p], after[p] = data[p], p - 1, p + 1
        merge_at[p] = pairs[symbols[p], symbols[p + 1]] if p + 1 < n else _NONE
        entries = _enlist(p, merge_at, place, link, first, entries)
    for merge in range(n_merges):
        entry, new = first[merge], np.int16(FIRST_MERGE + merge)
        while entry >= 0:
            left, entry = place[entry], link[entry]
            if merge_at[left] != merge:
                continue
            if symbols[after[left]] == symbols[left]:
                # In a run of one symbol the pairs overlap: begin with the leftmost.
                while before[left] >= 0 and symbols[before[left]] == symbols[left]:
                    left = before[left]
            while left < n and merge_at[left] == merge:
                follower = after[after[left]]
                merge_at[after[left]] = merge_at[left] = _NONE
                symbols[left], after[left] = new, follower
                if before[left] >= 0:
                    merge_at[before[left]] = pairs[symbols[before[left]], new]
                    entries = _enlist(before[left], merge_at, place, link, first, entries)
                if follower < n:
                    before[follower] = left
                    merge_at[left] = pairs[new, symbols[follower]]
                    entries = _enlist(left, merge_at, place, link, first, entries)
                left = follower
    p = filled = 0
    while p < n:
        out[filled] = symbols[p]
        filled += 1
        p = after[p]
    return filled


@compiled()
def _enlist(p, merge_at, place, link, first, entries):  # type: ignore[no-untyped-def]
    """Put place `p` at the head of the list of its merge; the number of entries."""
    merge = merge_at[p]
    if merge < 0:
        return entries
    place[entries], link[entries] = p, first[merge]
    first[merge] = entries
    return entries + 1


@compiled()
def cut(symbols, units, closes, lengths, full, size, ends, chunks):  # type: ignore[no-untyped-def]
    """Where chunks end; returns (how many ended, bytes in the one that is still open).

    symbols: int16 (n,) in units that end at `units`, int64 (m,); closes: boolean (m,), whether a
    group ends there; lengths: bytes of each symbol; full: bytes at which a chunk ends; size: bytes
    that the open chunk has already. Writes to ends, int64 (n,), and to chunks, int64 (m,): how many
    chunks have ended by the end of each unit.
    """
    n = begin = 0
    for unit in range(units.shape[0]):
        for i in range(begin, units[unit]):
            size += lengths[symbols[i]]
            if size >= full:
                ends[n] = i + 1
                n += 1
                size = 0
        begin = units[unit]
        if closes[unit] and size > 0:
            ends[n] = begin
            n += 1
            size = 0
        chunks[unit] = n
    return n, size


@compiled()
def append(out, fill, rows, new, strings, lengths):  # type: ignore[no-untyped-def]
    """The loop of `Vocabulary.append`."""
    for i in range(rows.shape[0]):
        row, symbol = rows[i], new[i]
        n, start = lengths[symbol], fill[row]
        if start + n > out.shape[1]:
            return False
        for j in range(n):
            out[row, start + j] = strings[symbol, j]
        fill[row] = start + n
    return True


@compiled()
def count_pairs(symbols, counts, left, right, twins):  # type: ignore[no-untyped-def]
    """How often two symbols stand side by side in `symbols`, int16 (n,).

    Adds to counts, int32 (R, R), pairs of different symbols; left, right, int64 (R,): the sums of
    their rows and columns; twins, int64 (R,): pairs of one symbol, of which a run of n has n // 2.
    """
    last, run = np.int16(_NONE), 0
    for s in symbols:
        if s == last:
            run += 1
            continue
        if last >= 0:
            twins[last] += run >> 1
            _change(counts, left, right, last, s, 1)
        last, run = s, 1
    if last >= 0:
        twins[last] += run >> 1


@compiled()
def replace_pair(symbols, n, a, b, new, counts, left, right, twins):  # type: ignore[no-untyped-def]
    """Put `new` for each pair (a, b) of the first n `symbols`; how many symbols are left.

    The other arguments are those of `count_pairs`, and are brought up to date.
    """
    twins[:] = 0
    kept = i = run = 0
    last = np.int16(_NONE)
    while i < n:
        s = symbols[i]
        i += 1
        if s == a and i < n and symbols[i] == b:
            i += 1
            if last >= 0:
                _change(counts, left, right, last, a, -1)
                _change(counts, left, right, last, new, 1)
            _change(counts, left, right, a, b, -1)
            if i < n:
                _change(counts, left, right, b, symbols[i], -1)
                _change(counts, left, right, new, symbols[i], 1)
            s = np.int16(new)
        symbols[kept] = s
        kept += 1
        if s == last:
            run += 1
            continue
        if last >= 0:
            twins[last] += run >> 1
        last, run = s, 1
    if last >= 0:
        twins[last] += run >> 1
    return kept


@compiled()
def _change(counts, left, right, a, b, by):  # type: ignore[no-untyped-def]
    if a != b:
        counts[a, b] += by
        left[a] += by
        right[b] += by


@compiled()
def best_pair(counts, left, right, twins, lengths, n, gain, longest):  # type: ignore[no-untyped-def]
    """(Its count, a, b) of the most frequent pair, the first of equals; (0, -1, -1) for none.

    counts to twins: of `count_pairs`, for n symbols. A pair must be `gain` times as frequent as its
    symbols would meet by chance, and its string, by lengths, int64 (R,), at most `longest` bytes.
    """
    best, best_a, best_b = np.int64(0), _NONE, _NONE
    for a in range(lengths.shape[0]):
        first = left[a] + twins[a]
        if first <= best:  # no pair comes more often than its first symbol
            continue
        for b in range(lengths.shape[0]):
            count = np.int64(counts[a, b]) if a != b else twins[a]
            if count > best and lengths[a] + lengths[b] <= longest:
                chance = np.float64(first) * np.float64(right[b] + twins[b]) / n
                if count >= gain * chance:
                    best, best_a, best_b = count, a, b
    return best, best_a, best_b
