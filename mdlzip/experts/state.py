"""What the experts have learned, and what they know of the text: arrays of fixed size.

Shapes: B chunks of a group, V symbols in use, in the lexicographic order of their strings; a place
in that order is called a *rank* here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from mdlzip.experts import tables as k
from mdlzip.limits import MAX_TABLE_BITS, MIN_TABLE_BITS
from mdlzip.symbols.vocabulary import Vocabulary

# Fields of a lane, int64. FILL: bytes of all its chunks so far. ORIGIN: where it
# begins in the original, if all chunks before are full.
LAST_8, BEFORE_8, WORD, LAST_WORD, COLUMN, LINE, LINE_BEFORE, FIELD, FIELD_HASH, KEY = range(10)
FILL, SYMBOL_1, SYMBOL_2, ORIGIN = range(10, 14)
MATCH = 14  # of match i, from MATCH + 3 i on: pointer or -1, length, misses
POINTER, LENGTH, MISSES = range(3)
MATCH_FIELDS = 3
LANE_FIELDS = MATCH + MATCH_FIELDS * k.N_MATCHES

# Rows of the scratch of the symbol at hand, int64 (WORK_ROWS, WORK_WIDTH).
RECORD, USED, EXPECTED, MATCH_LEVEL, SETS, BUCKET, NODE, TREE_MAP, ENTRY = range(9)
WORK_ROWS = ENTRY + k.N_ENTRIES
WORK_WIDTH = 16
SUM = 8  # of weighed inputs, in the row of `SETS`


@cache
def _fresh_maps() -> np.ndarray:
    return np.concatenate([k.first_maps(), k.first_refinements()])


_LINE_BYTES = 64  # of the caches


def _aligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Zeros from the beginning of a line on, so that no bucket lies in two."""
    n = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(n + _LINE_BYTES, np.uint8)
    first = -memory.ctypes.data % _LINE_BYTES
    return memory[first : first + n].view(dtype).reshape(shape)


def _aligned_copy(a: np.ndarray) -> np.ndarray:
    copy = _aligned(a.shape, a.dtype.type)
    copy[:] = a
    return copy


@dataclass
class Memory:
    """All that adapts. `copy()` is what every group starts from when it has references.

    trees: uint32 (8 * 2**tree_bits,), per bucket a check and 7 nodes; records: uint16
    (2**record_bits, 4); maps: uint32, maps and then refinements; weights: int32 (sets * SET_SIZE,);
    heads: int32 (matches, 2**match_bits), places in the known text.
    """

    trees: np.ndarray
    records: np.ndarray
    maps: np.ndarray
    weights: np.ndarray
    heads: np.ndarray

    @classmethod
    def fresh(cls, tree_bits: int, record_bits: int, match_bits: int) -> Memory:
        """Before anything is known. Raises ValueError for table sizes the format does not have."""
        for bits in (tree_bits, record_bits, match_bits):
            if not MIN_TABLE_BITS <= bits <= MAX_TABLE_BITS:
                raise ValueError(f"a table of 2**{bits} entries is not allowed")
        return cls(
            _aligned((8 << tree_bits,), np.uint32),
            _aligned((1 << record_bits, 1 + k.N_ENTRIES), np.uint16),
            _fresh_maps().copy(),
            k.first_weights().copy(),
            np.zeros((k.N_MATCHES, 1 << match_bits), np.int32),
        )

    def copy(self) -> Memory:
        """An independent copy."""
        return Memory(*map(_aligned_copy, self._arrays()))

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.trees, self.records, self.maps, self.weights, self.heads


@dataclass(frozen=True, eq=False)
class Symbols:
    """The vocabulary in lexicographic order of the strings (a prefix first).

    place: int32 (V,), rank -> place in `Vocabulary.symbols`; rank: int32 (257 + M,), symbol ->
    rank, -1 for those not in use; strings: uint8 (V, longest), zeros behind; lengths: int32 (V,).
    Equal strings (merges that make the same one twice) stand in the order of their symbols.
    """

    place: np.ndarray
    rank: np.ndarray
    strings: np.ndarray
    lengths: np.ndarray

    @cached_property
    def rank_of_place(self) -> np.ndarray:
        """int64 (V,): inverse of `place`."""
        ranks = np.empty(len(self.place), np.int64)
        ranks[self.place] = np.arange(len(self.place))
        return ranks

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Symbols:
        """The order for a vocabulary."""
        used = vocabulary.symbols
        lengths = vocabulary.lengths[used]
        rows = vocabulary.strings[used]
        strings = [row[:n].tobytes() for row, n in zip(rows, lengths, strict=True)]
        place = np.array(sorted(range(len(strings)), key=lambda i: strings[i]), np.int32)
        rank = np.full(vocabulary.n_rows, -1, np.int32)
        rank[used[place]] = np.arange(len(place), dtype=np.int32)
        return cls(place, rank, np.ascontiguousarray(rows[place]), lengths[place].astype(np.int32))


# Fields of a chunk, int64: how much of it is coded.
CHUNK_BYTES, CHUNK_SYMBOLS = range(2)
CHUNK_FIELDS = 2


def new_lanes(origins: np.ndarray) -> np.ndarray:
    """Lanes before their first chunks, int64 (n, LANE_FIELDS); origins: int64 (n,)."""
    lanes = np.zeros((len(origins), LANE_FIELDS), np.int64)
    lanes[:, ORIGIN] = origins
    lanes[:, MATCH + POINTER :: MATCH_FIELDS] = -1
    return lanes
