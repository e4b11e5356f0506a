"""docs/format-data.md: units, chunks, and the range coder of their symbols."""

from collections.abc import Iterable, Iterator
from itertools import chain
from types import SimpleNamespace

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
    text: bytes,
) -> Iterator[bytes]:
    """The bytes of each unit; units: where its groups begin, their bytes, its coded stream.

    text: of the model, which all units know.
    """
    strings, size, known = predictor.m.strings, predictor.m.chunk_size, None
    read = learn_text(predictor, context, text) if context and text else None
    for begins, groups, coded in units:
        fields = Fields(coded, "coded stream")
        cuts = [read_cut(fields, predictor, g) for g in groups]
        stream = fields.take(fields.left())
        if context is None:
            yield decode_unit(predictor, RangeDecoder(stream), groups, cuts, 1)
            continue
        before = known or read or Memory(context.bits)
        if isinstance(before, Experts) and (before is read or context.mode == REFERENCE):
            before = before.copy()
        origins = [b + k * size for b, c in zip(begins, cuts, strict=True) for k in range(len(c))]
        coder = Experts(strings, size, stream, origins, context, before)
        yield decode_unit(predictor, coder, groups, cuts, context.lane)
        if context.mode == SOLID or (context.mode == REFERENCE and not known):
            known = coder


def learn_text(predictor: Predictor, context: Context, text: bytes) -> Experts:
    """What a unit of the text leaves: its symbols are known, its chunks and lanes are as usual."""
    model, chunks, symbols = predictor.m, [[]], merged(predictor.m, text)
    full, filled = model.chunk_size - max(map(len, model.strings)) + 1, 0
    for rank in symbols:
        if filled >= full:
            chunks.append([])
            filled = 0
        chunks[-1].append(rank)
        filled += len(model.strings[rank])
    origins = [k * model.chunk_size for k in range(len(chunks))]
    coder = Experts(model.strings, model.chunk_size, b"", origins, context, Memory(context.bits))
    for first in range(min(context.lane, len(chunks))):
        alive = list(range(first, len(chunks), context.lane))
        at, before = 0, [256] * len(alive)
        predictor.start(len(alive))
        while alive:
            rows = predictor.counts(before)
            for chunk, row in zip(alive, rows, strict=True):
                coder.learn(chunk, chunks[chunk][at], row)
            at += 1
            kept = [j for j, chunk in enumerate(alive) if at < len(chunks[chunk])]
            alive = [alive[j] for j in kept]
            before = [model.in_use[chunks[chunk][at - 1]] for chunk in alive]
            predictor.keep(kept)
    return coder


def merged(model: SimpleNamespace, text: bytes) -> list[int]:
    """The ranks that stand for a text: the merges in their order, each from left to right."""
    ranks = [model.in_use.index(byte) for byte in text]
    first = len(model.in_use) - model.n_merges
    for number, pair in enumerate(model.pairs):
        out, i = [], 0
        while i < len(ranks):
            hit = tuple(ranks[i : i + 2]) == pair
            out.append(first + number if hit else ranks[i])
            i += 1 + hit
        ranks = out
    return ranks


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
