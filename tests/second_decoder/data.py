"""docs/format-data.md: chunks, and the range coder of their symbols."""

import numpy as np

from tests.second_decoder.fields import Fields, require
from tests.second_decoder.predictor import Predictor


def cumulative_weights(counts: np.ndarray) -> np.ndarray:
    """L[0] .. L[V], int64, for each row of counts (B, V)."""
    v, below = counts.shape[1], np.cumsum(counts, axis=1, dtype=np.float64)
    scale = np.float64(2**24 - v) / below[:, -1:]
    right = np.floor(below * scale).astype(np.int64) + np.arange(1, v + 1)
    right[:, -1] = 2**24
    return np.pad(right, ((0, 0), (1, 0)))


class RangeDecoder:
    """The data coder of one group."""

    def __init__(self, stream: bytes) -> None:
        require(stream[-1:] != b"\0", "coded stream: ends in a zero byte")
        self.words = np.frombuffer(stream + bytes(8 + -len(stream) % 4), ">u4").tolist()
        self.point, self.taken = self.words[0] << 32 | self.words[1], 2
        self.lower, self.range = 0, 2**64 - 1

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


def decode_group(predictor: Predictor, coded: bytes, g: int) -> bytes:
    """The g bytes of a group."""
    fields, size, model = Fields(coded, "coded stream"), predictor.m.chunk_size, predictor.m
    ends = [min(size, g - i) for i in range(0, g, size)]
    if predictor.m.n_merges:
        full = size - max(map(len, model.strings)) + 1
        n, r = fields.number(4, 1), fields.number(2, 1, size)
        require((n - 1) * full <= g - r <= (n - 1) * size, "group: its chunks do not fit")
        ends = [full] * (n - 1) + [r]
    coder = RangeDecoder(fields.take(fields.left()))
    chunks = [bytearray() for _ in ends]
    alive, before = list(range(len(ends))), [256] * len(ends)
    predictor.start(len(ends))
    while alive:
        weights = cumulative_weights(predictor.counts(before))
        ranks = [coder.symbol(row) for row in weights]
        for chunk, rank in zip(alive, ranks, strict=True):
            chunks[chunk] += model.strings[rank]
            require(len(chunks[chunk]) <= size, "group: a chunk is too long")
        rows = [j for j, chunk in enumerate(alive) if len(chunks[chunk]) < ends[chunk]]
        before = [model.in_use[ranks[j]] for j in rows]
        alive = [alive[j] for j in rows]
        predictor.keep(rows)
    coder.end()
    right = len(chunks[-1]) == ends[-1] and sum(map(len, chunks)) == g
    require(right, "group: it, or its last chunk, has other bytes than it says")
    return b"".join(chunks)
