"""What the network predicts: the byte values of the file, and strings of them as one symbol each.

A frequent string takes one step of the network instead of several, so training sees more of the
file in the same time, decoding is faster, and the window reaches further. Strings are built by
merging pairs (byte-pair encoding, Gage 1994; Sennrich et al. 2016). A decoder only expands symbols;
which symbols stand for a group is the encoder's choice: `Vocabulary.tokenise` makes it.

Symbols: 0 .. 255 are bytes, 256 stands before every chunk, 257 + i is merge i.
Shapes: B chunks, T positions, M merges, P byte values, V = P + M symbols in use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np

from mdlzip.errors import ExportRefused
from mdlzip.limits import MAX_MERGES, MAX_SYMBOL_BYTES, MIN_ALPHABET
from mdlzip.process.kernels import compiled

N_BYTES = 256
START_SYMBOL = 256
FIRST_MERGE = 257
_NO_MERGE = -1
_SAMPLE_PIECE_BYTES = 1 << 19
_SAMPLE_PIECES = 4


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


def bytes_present(data: np.ndarray) -> np.ndarray:
    """Boolean (256,): which byte values occur in `data`, uint8. Reads it once, block by block."""
    counts = np.zeros(N_BYTES, np.int64)
    for start in range(0, len(data), 1 << 24):
        counts += np.bincount(data[start : start + (1 << 24)], minlength=N_BYTES)
    return counts > 0


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
    def _pairs(self) -> np.ndarray:
        table = np.full((self.n_rows, self.n_rows), _NO_MERGE, np.int16)
        for i in range(len(self.merges) - 1, -1, -1):
            table[tuple(self.merges[i])] = i  # of two equal merges the first is used
        return table

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest string."""
        return int(self.lengths.max())

    def tokenise(self, data: np.ndarray) -> np.ndarray:
        """`data` (uint8) as symbols, int16: merges applied in their order, each left to right."""
        symbols = data.astype(np.int16)
        if not len(self.merges):
            return symbols
        return symbols[: _tokenise()(symbols, self._pairs)]

    def cut(self, data: np.ndarray, chunk_size: int) -> tuple[np.ndarray, np.ndarray]:
        """One group as (symbols, int16; ends, int64: where in the symbols each chunk ends).

        A chunk ends with the first symbol that leaves it less room than the longest string takes,
        so none is longer than `chunk_size` bytes, and a chunk begins where a symbol begins.
        """
        symbols = self.tokenise(data)
        if not len(self.merges):
            starts = np.arange(chunk_size, len(data) + chunk_size, chunk_size)
            return symbols, np.minimum(starts, len(data))
        ends = np.empty(len(symbols), np.int64)
        full = chunk_size - self.longest + 1
        return symbols, ends[: _cut()(symbols, self.lengths, full, ends)]

    def append(self, out: np.ndarray, fill: np.ndarray, rows: np.ndarray, new: np.ndarray) -> bool:
        """Write the strings of symbols `new` (n,) at `fill` of the chunks `rows` (n,).

        out: uint8 (B, chunk_size); fill: int64 (B,), grows by what was written. False if a string
        does not fit.
        """
        return bool(_append()(out, fill, rows, new, self.strings, self.lengths))


def padded(flat: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces starts..ends - 1 of `flat` as (rows int16 (B, T), zeros behind; counts int64 (B,))."""
    counts = (ends - starts).astype(np.int64)
    rows = np.zeros((len(counts), max(int(counts.max(initial=0)), 1)), np.int16)
    for row, start, end in zip(rows, starts, ends, strict=True):
        row[: end - start] = flat[start:end]
    return rows, counts


def sample_of(data: np.ndarray) -> np.ndarray:
    """At most 2 MiB of `data` (uint8), from four places."""
    n, piece = len(data), _SAMPLE_PIECE_BYTES
    if n <= _SAMPLE_PIECES * piece:
        return data
    starts = [i * (n - piece) // (_SAMPLE_PIECES - 1) for i in range(_SAMPLE_PIECES)]
    return np.concatenate([data[i : i + piece] for i in starts])


def learn_merges(
    data: np.ndarray,
    alphabet: np.ndarray,
    most: int,
    least_count: float,
    least_gain: float,
    longest: int,
) -> np.ndarray:
    """Merges for `data` (uint8), uint16 (M, 2), M <= most: the most frequent pair, again and again.

    A pair counts only if it occurs `least_count` times in the file, as far as a sample of it tells,
    and `least_gain` times as often as its symbols would meet by chance, and is at most `longest`
    bytes long.
    """
    sample = sample_of(data)
    if len(sample) < 2 or most < 1:
        return no_merges()
    rows = FIRST_MERGE + most
    symbols = sample.astype(np.int16)
    counts = np.zeros((rows, rows), np.int32)
    merges: list[tuple[int, int]] = []
    lengths = np.ones(rows, np.int64)
    a = b = -1
    length = len(symbols)
    while True:
        length = _merge()(symbols, length, a, b, FIRST_MERGE + len(merges) - 1, counts)
        if len(merges) == most:
            break
        singles = counts.sum(1)
        chance = np.multiply.outer(singles.astype(np.float64), counts.sum(0)) / max(length, 1)
        fits = lengths[:, None] + lengths[None] <= longest
        usable = np.where((counts >= least_gain * chance) & fits, counts, 0)
        best = int(usable.argmax())
        if usable.flat[best] * (len(data) / len(sample)) < max(least_count, 2):
            break
        a, b = divmod(best, rows)
        lengths[FIRST_MERGE + len(merges)] = lengths[a] + lengths[b]
        merges.append((a, b))
    return np.array(merges, np.uint16).reshape(-1, 2)


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


@cache
def _tokenise() -> Any:
    @compiled()
    def tokenise(symbols, pairs):  # type: ignore[no-untyped-def]
        n = symbols.shape[0]
        while True:
            first = 32767
            for i in range(n - 1):
                found = pairs[symbols[i], symbols[i + 1]]
                if 0 <= found < first:
                    first = found
            if first == 32767:
                return n
            kept = i = 0
            while i < n:
                symbol = symbols[i]
                if i + 1 < n and pairs[symbol, symbols[i + 1]] == first:
                    symbol = 257 + first
                    i += 1
                symbols[kept] = symbol
                kept += 1
                i += 1
            n = kept

    return tokenise


@cache
def _cut() -> Any:
    @compiled()
    def cut(symbols, lengths, full, ends):  # type: ignore[no-untyped-def]
        n = size = 0
        for i in range(symbols.shape[0]):
            size += lengths[symbols[i]]
            if size >= full:
                ends[n] = i + 1
                n += 1
                size = 0
        if size > 0:
            ends[n] = symbols.shape[0]
            n += 1
        return n

    return cut


@cache
def _append() -> Any:
    @compiled()
    def append(out, fill, rows, new, strings, lengths):  # type: ignore[no-untyped-def]
        for i in range(rows.shape[0]):
            row, symbol = rows[i], new[i]
            n, start = lengths[symbol], fill[row]
            if start + n > out.shape[1]:
                return False
            for j in range(n):
                out[row, start + j] = strings[symbol, j]
            fill[row] = start + n
        return True

    return append


@cache
def _merge() -> Any:
    @compiled()
    def merge(symbols, n, a, b, new, counts):  # type: ignore[no-untyped-def]
        """Replace pairs (a, b) of the first n symbols by `new`; count the pairs that are left."""
        counts[:] = 0
        kept = i = 0
        doubled = False  # "aaa" holds one pair (a, a), not two
        while i < n:
            s = symbols[i]
            if s == a and i + 1 < n and symbols[i + 1] == b:
                s = new
                i += 1
            i += 1
            if kept > 0:
                before = symbols[kept - 1]
                doubled = before == s and not doubled and kept > 1 and symbols[kept - 2] == s
                if not doubled:
                    counts[before, s] += 1
            symbols[kept] = s
            kept += 1
        return kept

    return merge
