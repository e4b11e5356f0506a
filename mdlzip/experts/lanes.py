"""What a lane's own past says: keys of contexts, and places where the same passage stood before.

A lane codes consecutive chunks one after the other, and is an int64 row whose fields are named in
`state`. The known text is one array of
ranks, int16: chunk c has places c * room to c * room + room - 1, -1 where nothing is known.
"""

from __future__ import annotations

import numpy as np

from mdlzip.experts.slots import Array, Int, fetch, inlined, mixed
from mdlzip.experts.state import (
    BEFORE_8,
    COLUMN,
    EXPECTED,
    FIELD,
    FIELD_HASH,
    FILL,
    KEY,
    LAST_8,
    LAST_WORD,
    LENGTH,
    LINE,
    LINE_BEFORE,
    MATCH,
    MATCH_FIELDS,
    MISSES,
    ORIGIN,
    POINTER,
    SYMBOL_1,
    SYMBOL_2,
    WORD,
)
from mdlzip.experts.tables import N_LENGTHS, N_MATCHES, N_RECORDS, N_TREES

_STEP = np.uint64(0x2F0B4C47D1B54A33)
_NEWLINE = 10
LEAST_BYTES = (20, 6)  # bytes that the contexts of the two matches have
_SHORT_MASK = np.uint64((1 << 48) - 1)
KEPT_LENGTH = (16, 8)  # symbols; a match of this length is not given up for a newer one
MOST_VERIFIED = 32
MOST_MISSES = 8


@inlined
def byte_back(texts: Array, base: Int, fill: Int, n: Int) -> Int:
    """The byte n before place `fill` of the lane, 0 before its first and for n < 1."""
    return np.int64(texts[base + fill - n]) if 0 < n <= fill else np.int64(0)


@inlined
def element_back(texts: Array, base: Int, place: Int, n: Int, element: Int) -> Int:
    """The element n bytes before `place`: of two bytes, the first one the lower, or of one byte."""
    low = byte_back(texts, base, place, n)
    return low + 256 * byte_back(texts, base, place, n - 1) if element == 2 else low


@inlined
def grid_keys(
    lanes: Array, b: Int, texts: Array, base: Int, row: Int, element: Int, keys: Array
) -> None:
    """Contexts of a grid: see `Grid`.

    What stands to the left (w), above (n), above to the left and right, and above that.
    """
    fill = lanes[b, FILL]
    column = (lanes[b, ORIGIN] + fill) % row
    inside = (lanes[b, ORIGIN] + fill) % element
    place, low = fill, np.int64(0)
    last = byte_back(texts, base, fill, 1)
    if element == 2:
        place = fill - inside
        low = (last + 1) * inside
    above = byte_back(texts, base, fill, row)
    above_2 = byte_back(texts, base, fill, 2 * row)
    w = element_back(texts, base, place, element, element)
    n = element_back(texts, base, place, row, element)
    nw = element_back(texts, base, place, row + element, element)
    ne = element_back(texts, base, place, row - element, element)
    nne = element_back(texts, base, place, 2 * row - element, element)
    plane = w + n - nw
    near = (above * 256 + last) * 8 + inside
    keys[4] = mixed(plane, 4 * low + 1)
    keys[5] = np.uint64(near)
    keys[6] = np.uint64((above * 256 + above_2) * 65536 + column)
    keys[7] = mixed((w + n) >> 1, 4 * low + 2)
    left, left_2 = byte_back(texts, base, fill, element), byte_back(texts, base, fill, 2 * element)
    keys[8] = np.uint64((left * 256 + left_2) * 8 + inside)
    keys[9] = mixed(n + ne - nne, 4 * low + 3)
    keys[10] = np.uint64(near)
    keys[11] = np.uint64((last * 256 + byte_back(texts, base, fill, 2)) * 8 + inside)
    keys[12] = mixed(plane, low)
    keys[13] = np.uint64(above * 65536 + column)
    keys[14] = mixed((w + n + ne + nw) >> 3, low)


@inlined
def context_keys(
    lanes: Array, b: Int, texts: Array, base: Int, row: Int, element: Int, keys: Array
) -> None:
    """Fill keys, uint64: those of the records, then those of the trees, except the last.

    row, element: bytes of a grid; row is 0 where there is none.
    texts: uint8, the bytes of all lanes, those of this one from place `base` on.
    """
    h = np.uint64(lanes[b, LAST_8])
    last = h & np.uint64(0xFF)
    above = np.uint64(0)
    place = lanes[b, LINE_BEFORE] + lanes[b, COLUMN]
    if lanes[b, LINE] > 0 and place + 1 < lanes[b, LINE]:
        place += base
        above = np.uint64(65536 + 256 * np.int64(texts[place]) + np.int64(texts[place + 1]))
    keys[0] = h & np.uint64(0xFFFF)
    keys[1] = h & np.uint64(0xFFFFFF)
    keys[2] = h & np.uint64(0xFFFFFFFF)
    keys[3] = h & np.uint64(0xFFFFFFFFFF)
    keys[4] = h
    keys[5] = np.uint64(lanes[b, WORD]) * np.uint64(256) + last
    keys[6] = mixed(lanes[b, WORD], lanes[b, LAST_WORD]) + last
    keys[7] = (h >> np.uint64(8)) & np.uint64(0xFFFFFF)
    keys[8] = above * np.uint64(65536) + last
    keys[9] = mixed(lanes[b, FIELD_HASH], lanes[b, FIELD])
    keys[10] = np.uint64(lanes[b, SYMBOL_1])
    keys[11] = mixed(lanes[b, KEY], lanes[b, FIELD])
    keys[12] = np.uint64(lanes[b, SYMBOL_1] * 4096 + lanes[b, SYMBOL_2])
    keys[13] = np.uint64(lanes[b, WORD]) * np.uint64(256) + last
    keys[14] = mixed(above, lanes[b, FIELD_HASH])
    if row > 0:
        grid_keys(lanes, b, texts, base, row, element, keys)
    for i in range(N_RECORDS + N_TREES - 1):
        keys[i] = mixed(keys[i], i + 1)


@inlined
def match_key(lanes: Array, b: Int, work: Array, keys: Array) -> None:
    """Fill in the key of the last tree: what the matches expect, and how long the first one is."""
    level = min(lanes[b, MATCH + LENGTH], 24) >> 3
    expected = (work[EXPECTED, 0] + 1) * 4096 + work[EXPECTED, 1] + 1
    keys[N_RECORDS + N_TREES - 1] = mixed(level * 4096 * 4096 + expected, N_RECORDS + N_TREES)


@inlined
def is_letter(c: Int) -> Int:
    """ASCII letters, and all bytes of longer characters of UTF-8."""
    return (97 <= c <= 122) or (65 <= c <= 90) or c >= 128


@inlined
def is_separator(c: Int) -> Int:
    """Tab, space, and the signs , ; : | " = < and >."""
    if c == 9 or c == 32 or c == 34 or c == 44:
        return True
    return 58 <= c <= 62 or c == 124


@inlined
def take_byte(lanes: Array, b: Int, c: Int) -> None:
    """Append one byte to a lane."""
    h = np.uint64(lanes[b, LAST_8])
    lanes[b, BEFORE_8] = np.int64(
        (np.uint64(lanes[b, BEFORE_8]) << np.uint64(8)) | (h >> np.uint64(56))
    )
    lanes[b, LAST_8] = np.int64((h << np.uint64(8)) | np.uint64(c))
    lanes[b, FILL] += 1
    if is_letter(c):
        folded = c | 32 if c < 128 else c
        lanes[b, WORD] = np.int64(
            (np.uint64(lanes[b, WORD]) + np.uint64(folded)) * _STEP + np.uint64(1)
        )
    else:
        if lanes[b, WORD] != 0:
            lanes[b, LAST_WORD] = lanes[b, WORD]
        lanes[b, WORD] = 0
    if c == _NEWLINE:
        lanes[b, LINE_BEFORE] = lanes[b, LINE]
        lanes[b, LINE] = lanes[b, FILL]
        lanes[b, COLUMN] = 0
        lanes[b, FIELD] = 0
        lanes[b, FIELD_HASH] = 0
        return
    lanes[b, COLUMN] += 1
    if is_separator(c):
        lanes[b, FIELD] += 1
        lanes[b, KEY] = lanes[b, FIELD_HASH]
        lanes[b, FIELD_HASH] = c
    else:
        hashed = (np.uint64(lanes[b, FIELD_HASH]) + np.uint64(c)) * _STEP + np.uint64(1)
        lanes[b, FIELD_HASH] = np.int64(hashed)


@inlined
def take_symbol(
    lanes: Array, b: Int, texts: Array, base: Int, known: Array, place: Int, symbol: Int,
    strings: Array, length: Int,
) -> None:  # fmt: skip
    """Append a symbol to a lane, its bytes to the lane's text, its rank to the known text."""
    known[place] = symbol
    lanes[b, SYMBOL_2] = lanes[b, SYMBOL_1]
    lanes[b, SYMBOL_1] = symbol + 1
    for i in range(length):
        c = np.int64(strings[symbol, i])
        texts[base + lanes[b, FILL]] = c
        take_byte(lanes, b, c)


@inlined
def next_place(known: Array, room: Int, place: Int) -> Int:
    """`place`, or the next chunk's start if the chunk before `place` has ended there, or -1."""
    if place % room == 0 or known[place] < 0:
        place = (place - 1) // room * room + room
        if place >= known.size or known[place] < 0:
            return -1
    return place


@inlined
def length_level(length: Int) -> Int:
    """0 to 15 for themselves, then one for each 8."""
    return length if length < 16 else min(16 + ((length - 16) >> 3), N_LENGTHS - 1)


@inlined
def passage_key(lanes: Array, b: Int, m: Int) -> Int:
    """Hash of the last bytes, as many as match m looks up."""
    h = np.uint64(lanes[b, LAST_8])
    return mixed(h, lanes[b, BEFORE_8]) if m == 0 else mixed(h & _SHORT_MASK, 5)


@inlined
def fetch_heads(lanes: Array, b: Int, heads: Array) -> None:
    """Ask for where `follow_matches` will look."""
    size = heads.shape[1]
    for m in range(N_MATCHES):
        slot = np.int64(passage_key(lanes, b, m) & np.uint64(size - 1))
        fetch(heads.ctypes.data + 4 * (m * size + slot))


@inlined
def follow_matches(
    lanes: Array, b: Int, known: Array, room: Int, here: Int, n_symbols: Int, work: Array,
    symbol: Int, heads: Array,
) -> None:  # fmt: skip
    """Move the matches on past `symbol`, which now stands before place `here`; look for new ones.

    n_symbols: of the chunk so far. work[EXPECTED]: the symbol that each match expected, or -1. A
    hash may lead to other text, so symbols are compared, at most MOST_VERIFIED of them.
    """
    for m in range(N_MATCHES):
        at = MATCH + MATCH_FIELDS * m
        pointer = lanes[b, at + POINTER]
        if pointer >= 0:
            if work[EXPECTED, m] == symbol:
                lanes[b, at + LENGTH] += 1
                if lanes[b, at + MISSES] > 0 and lanes[b, at + LENGTH] & 15 == 15:
                    lanes[b, at + MISSES] -= 1
            else:
                lanes[b, at + LENGTH] = 0
                lanes[b, at + MISSES] += 1
            pointer = next_place(known, room, pointer + 1)
            if pointer < 0 or lanes[b, at + MISSES] > MOST_MISSES:
                pointer = np.int64(-1)
                lanes[b, at + LENGTH] = 0
                lanes[b, at + MISSES] = 0
            lanes[b, at + POINTER] = pointer
        if lanes[b, FILL] < LEAST_BYTES[m]:
            continue
        slot = np.int64(passage_key(lanes, b, m) & np.uint64(heads.shape[1] - 1))
        candidate = np.int64(heads[m, slot])
        heads[m, slot] = here
        length = lanes[b, at + LENGTH]
        if candidate <= 0 or candidate == pointer or (pointer >= 0 and length >= KEPT_LENGTH[m]):
            continue
        n, most = np.int64(0), min(n_symbols, candidate, MOST_VERIFIED)
        while n < most and known[candidate - 1 - n] == known[here - 1 - n]:
            n += 1
        if n > length or (n == length and n > 0 and m == 1):
            candidate = next_place(known, room, candidate)
            if candidate >= 0:
                lanes[b, at + POINTER] = candidate
                lanes[b, at + LENGTH] = n
                lanes[b, at + MISSES] = 0
