"""The symbols of a network: byte values, and strings of them that are one symbol each.

A frequent string takes one step of the network instead of several, so training sees more of the
file in the same time, decoding is faster, and the window reaches further. Strings are built by
merging pairs (byte-pair encoding, Gage 1994; Sennrich et al. 2016). A decoder only expands symbols;
which symbols stand for a group is the encoder's choice (`mdlzip.symbols.tokenise`).

Symbols: 0 .. 255 are bytes, 256 stands before every chunk, 257 + i is merge i.
Shapes: B chunks, M merges, P byte values, V = P + M symbols in use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mdlzip.errors import ExportRefused
from mdlzip.limits import MAX_MERGES, MAX_SYMBOL_BYTES, MIN_ALPHABET

N_BYTES = 256
START_SYMBOL = 256
FIRST_MERGE = 257
NO_MERGE = -1


def all_bytes() -> np.ndarray:
    """The alphabet of all byte values, uint8 (256,)."""
    return np.arange(N_BYTES, dtype=np.uint8)


def no_merges() -> np.ndarray:
    """uint16 (0, 2)."""
    return np.zeros((0, 2), np.uint16)


def alphabet_of(present: np.ndarray) -> np.ndarray:
    """Ascending byte values, uint8, for a file with those of `present`, boolean (256,).

    A file of a single value gets a neighbour as well, an empty one 0 and 1: two are the least.
    """
    values = np.flatnonzero(present)
    if values.size < MIN_ALPHABET:
        only = int(values[0]) if values.size else 0
        values = np.array(sorted((only, only ^ 1)))
    return values.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The symbols of a network.

    alphabet: uint8, 2..256 byte values, strictly ascending; the file holds no others. merges:
    uint16 (M, 2), the two symbols whose strings, one after the other, are that of symbol 257 + i;
    each is a byte of the alphabet or an earlier merge. Raises ExportRefused for anything else.
    """

    alphabet: np.ndarray = field(default_factory=all_bytes)
    merges: np.ndarray = field(default_factory=no_merges)

    def __post_init__(self) -> None:
        if self.alphabet.dtype != np.uint8 or self.alphabet.ndim != 1:
            raise ExportRefused("the alphabet must be a vector of uint8")
        if self.alphabet.size < MIN_ALPHABET:
            raise ExportRefused(f"the alphabet has less than {MIN_ALPHABET} byte values")
        if (self.alphabet[1:] <= self.alphabet[:-1]).any():
            raise ExportRefused("the alphabet does not rise strictly")
        m = self.merges
        if m.dtype != np.uint16 or m.ndim != 2 or m.shape[1] != 2 or len(m) > MAX_MERGES:
            raise ExportRefused(f"merges must be at most {MAX_MERGES} pairs of uint16")
        known = np.zeros(FIRST_MERGE + len(m), bool)
        known[self.alphabet] = True
        size = known.astype(np.int64)
        for i, pair in enumerate(m):
            new = FIRST_MERGE + i
            if (pair >= new).any() or not known[pair].all():
                raise ExportRefused(f"merge {i} joins symbols that are not known")
            known[new], size[new] = True, size[pair].sum()
            if size[new] > MAX_SYMBOL_BYTES:
                raise ExportRefused(f"merge {i} stands for more than {MAX_SYMBOL_BYTES} bytes")

    @property
    def n_symbols(self) -> int:
        """V, the symbols that can be predicted."""
        return self.alphabet.size + len(self.merges)

    @property
    def n_rows(self) -> int:
        """257 + M: symbols of any kind, in use or not."""
        return FIRST_MERGE + len(self.merges)

    @cached_property
    def symbols(self) -> np.ndarray:
        """int32 (V,): the symbols that can be predicted, ascending."""
        merged = np.arange(FIRST_MERGE, self.n_rows, dtype=np.int32)
        return np.concatenate([self.alphabet.astype(np.int32), merged])

    @cached_property
    def ranks(self) -> np.ndarray:
        """int32 (257 + M,): place of each symbol in `symbols`, -1 for those outside."""
        ranks = np.full(self.n_rows, -1, np.int32)
        ranks[self.symbols] = np.arange(self.n_symbols, dtype=np.int32)
        return ranks

    @cached_property
    def lengths(self) -> np.ndarray:
        """int32 (257 + M,): bytes that a symbol stands for; 0 for the one before the chunk."""
        lengths = np.ones(self.n_rows, np.int32)
        lengths[START_SYMBOL] = 0
        for i, pair in enumerate(self.merges):
            lengths[FIRST_MERGE + i] = lengths[pair].sum()
        return lengths

    @cached_property
    def strings(self) -> np.ndarray:
        """uint8 (257 + M, longest): the bytes of each symbol, zeros behind."""
        strings = np.zeros((self.n_rows, int(self.lengths.max())), np.uint8)
        strings[:N_BYTES, 0] = all_bytes()
        for i, (a, b) in enumerate(self.merges):
            n, m = self.lengths[a], self.lengths[b]
            strings[FIRST_MERGE + i, :n] = strings[a, :n]
            strings[FIRST_MERGE + i, n : n + m] = strings[b, :m]
        return strings

    @cached_property
    def pairs(self) -> np.ndarray:
        """int16 (257 + M, 257 + M): the merge of each pair of symbols, NO_MERGE without one."""
        table = np.full((self.n_rows, self.n_rows), NO_MERGE, np.int16)
        for i in range(len(self.merges) - 1, -1, -1):
            table[tuple(self.merges[i])] = i  # of two equal merges the first is used
        return table

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest string."""
        return int(self.lengths.max())

    def append(self, out: np.ndarray, fill: np.ndarray, rows: np.ndarray, new: np.ndarray) -> bool:
        """Write the strings of symbols `new` (n,) at `fill` of the chunks `rows` (n,).

        out: uint8 (B, chunk_size); fill: int64 (B,), grows by what was written. False if a string
        does not fit.
        """
        from mdlzip.symbols.kernels import append

        return bool(append(out, fill, rows, new, self.strings, self.lengths))


def pack_merges(vocabulary: Vocabulary) -> bytes:
    """The merges as one number: each symbol is a digit, its place in `symbols`, of base P + i.

    Big-endian, in as many bytes as the largest such number needs.
    """
    number, ranks = 0, vocabulary.ranks
    for i, (a, b) in enumerate(vocabulary.merges):
        base = vocabulary.alphabet.size + i
        number = (number * base + int(ranks[a])) * base + int(ranks[b])
    return number.to_bytes(merges_bytes(vocabulary.alphabet.size, len(vocabulary.merges)), "big")


def unpack_merges(data: bytes, alphabet: np.ndarray, n_merges: int) -> Vocabulary:
    """The vocabulary behind `pack_merges`; ExportRefused if `data` is nothing that it makes."""
    number = int.from_bytes(data, "big")
    merges = np.zeros((n_merges, 2), np.uint16)
    for i in range(n_merges - 1, -1, -1):
        for side in (1, 0):
            number, digit = divmod(number, alphabet.size + i)
            after = FIRST_MERGE + digit - alphabet.size
            merges[i, side] = alphabet[digit] if digit < alphabet.size else after
    if number:
        raise ExportRefused("the merges are a number that is too large")
    return Vocabulary(alphabet, merges)


def merges_bytes(n_alphabet: int, n_merges: int) -> int:
    """Length of `pack_merges` for P = n_alphabet and M = n_merges."""
    largest = 1
    for i in range(n_merges):
        largest *= (n_alphabet + i) ** 2
    return ((largest - 1).bit_length() + 7) // 8
