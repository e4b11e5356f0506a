"""docs/format-data.md: units, chunks, and the range coder of their symbols."""

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np

from tests.second_decoder.context import REFERENCE, SOLID, Context
from tests.second_decoder.experts import Experts, Memory
from tests.second_decoder.fields import Fields, require
from tests.second_decoder.predictor import NoNetwork, Predictor


def cumulative_weights(counts: np.ndarray) -> np.ndarray:
    """L[0] .. L[V], int64, for each row of counts (B, V)."""
    v, below = counts.shape[1], np.cumsum(counts, axis=1, dtype=np.float64)
    scale = np.float64(2**24 - v) / below[:, -1:]
    right = np.floor(below * scale).astype(np.int64) + np.arange(1, v + 1)
    right[:, -1] = 2**24
    return np.pad(right, ((0, 0), (1, 0)))


class RangeDecoder:
    """The data coder of one group of an archive whose chunks know nothing of others."""

    def __init__(self, stream: bytes) -> None:
        require(stream[-1:] != b"\0", "coded stream: ends in a zero byte")
        self.words = np.frombuffer(stream + bytes(8 + -len(stream) % 4), ">u4").tolist()
        self.point, self.taken = self.words[0] << 32 | self.words[1], 2
        self.lower, self.range = 0, 2**64 - 1

    def symbols(self, chunks: list[int], counts: np.ndarray) -> list[int]:
        """The next symbol of each of the chunks, as ranks; counts: (B, V)."""
        return [self.symbol(row) for row in cumulative_weights(counts)]

    def symbol(self, weights: np.ndarray) -> int:
        """The next rank; weights: L[0] .. L[V]."""
        scale = self.range >> 24
        q = (self.point - self.lower) % 2**64 // scale
        require(q < 2**24, "coded stream: no symbol is there")
        rank = int(np.searchsorted(weights, q, side="right")) - 1
        left, right = int(weights[rank]), int(weights[rank + 1])
        self.lower, self.range = (self.lower + scale * left) % 2**64, scale * (right - left)
        if self.range < 2**32:
            word = self.words[self.taken] if self.taken < len(self.words) else 0
            self.lower, self.range = (self.lower << 32) % 2**64, self.range << 32
            self.point, self.taken = (self.point << 32 | word) % 2**64, self.taken + 1
        return rank

    def end(self) -> None:
        require(self.taken >= len(self.words) - 1, "coded stream: words that no symbol takes")
        require((self.point - self.lower) % 2**64 < 2**33 - 1, "coded stream: wrong end")


def decode_units(
    predictor: Predictor | NoNetwork,
    context: Context | None,
    units: Iterable[tuple[list[int], list[int], bytes]],
) -> Iterator[bytes]:
    """The bytes of each unit; units: where its groups begin, their bytes, its coded stream."""
    strings, size, known = predictor.m.strings, predictor.m.chunk_size, None
    for begins, groups, coded in units:
        fields = Fields(coded, "coded stream")
        cuts = [read_cut(fields, predictor, g) for g in groups]
        stream = fields.take(fields.left())
        if context is None:
            yield decode_unit(predictor, RangeDecoder(stream), groups, cuts, 1)
            continue
        before = known or Memory(context.bits)
        if known and context.mode == REFERENCE:
            before = known.copy()
        origins = [b + k * size for b, c in zip(begins, cuts, strict=True) for k in range(len(c))]
        coder = Experts(strings, size, stream, origins, context, before)
        yield decode_unit(predictor, coder, groups, cuts, context.lane)
        if context.mode == SOLID or (context.mode == REFERENCE and not known):
            known = coder


def read_cut(fields: Fields, predictor: Predictor | NoNetwork, g: int) -> list[int]:
    """The bytes with which each chunk of a group of g bytes ends."""
    model, size = predictor.m, predictor.m.chunk_size
    if not model.n_merges:
        return [min(size, g - i) for i in range(0, g, size)]
    full = size - max(map(len, model.strings)) + 1
    n, r = fields.number(4, 1), fields.number(2, 1, size)
    require((n - 1) * full <= g - r <= (n - 1) * size, "group: its chunks do not fit")
    return [full] * (n - 1) + [r]


def decode_unit(
    predictor: Predictor | NoNetwork,
    coder: RangeDecoder | Experts,
    groups: list[int],
    cuts: list[list[int]],
    lane: int,
) -> bytes:
    """The bytes of a unit; groups: bytes of each group; cuts: how its chunks end."""
    model, ends = predictor.m, list(chain(*cuts))
    chunks = [bytearray() for _ in ends]
    for first in range(min(lane, len(ends))):
        alive = list(range(first, len(ends), lane))
        before = [256] * len(alive)
        predictor.start(len(alive))
        while alive:
            ranks = coder.symbols(alive, predictor.counts(before))
            for chunk, rank in zip(alive, ranks, strict=True):
                chunks[chunk] += model.strings[rank]
                require(len(chunks[chunk]) <= model.chunk_size, "group: a chunk is too long")
            rows = [j for j, chunk in enumerate(alive) if len(chunks[chunk]) < ends[chunk]]
            before = [model.in_use[ranks[j]] for j in rows]
            alive = [alive[j] for j in rows]
            predictor.keep(rows)
    coder.end()
    first = 0
    for g, cut in zip(groups, cuts, strict=True):
        group, first = chunks[first : first + len(cut)], first + len(cut)
        right = len(group[-1]) == cut[-1] and sum(map(len, group)) == g
        require(right, "group: it, or its last chunk, has other bytes than it says")
    return b"".join(chunks)
