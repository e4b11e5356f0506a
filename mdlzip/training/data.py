"""Batches of chunks from a (memory-mapped) corpus, in an order that follows from the seed alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mdlzip.chunks import Layout
from mdlzip.vocabulary import Vocabulary, padded

IGNORE = -100
_POOL_BATCHES = 8


class Batches:
    """Chunks in random order, every epoch a new permutation drawn from (seed, epoch).

    Chunks of about as many symbols share a batch, so that little of it is padding: a pool of a few
    batches is drawn, sorted by length and cut, and its batches come in random order. `batch(step)`
    depends on nothing but the constructor's arguments and `step`, so a resumed run sees the same
    data.
    """

    def __init__(
        self,
        data: np.ndarray,
        layout: Layout,
        batch_symbols: int,
        seed: int,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.data, self.chunk_size, self.seed = data, layout.chunk_size, seed
        self.vocabulary = Vocabulary() if vocabulary is None else vocabulary
        places = self.vocabulary.ranks.astype(np.int64)
        places[places < 0] = 0  # only where a sample of other bytes is looked at
        self._places = places
        self._symbols, self._ends = _cut(data, layout, self.vocabulary)
        self.n_chunks = len(self._ends)
        self.bytes_per_symbol = len(data) / max(len(self._symbols), 1)
        batch_chunks = round(batch_symbols * self.n_chunks / max(len(self._symbols), 1))
        self.batch_chunks = max(1, min(batch_chunks, self.n_chunks))
        self._epoch, self._order = -1, np.zeros(0, np.int64)
        self._pool, self._batches = -1, np.zeros((0, 0), np.int64)

    def _chunk_at(self, index: int) -> int:
        epoch, place = divmod(index, self.n_chunks)
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._epoch, self._order = epoch, rng.permutation(self.n_chunks)
        return int(self._order[place])

    def _spans(self, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.where(chunks > 0, self._ends[chunks - 1], 0), self._ends[chunks]

    def gather(self, chunks: list[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """(symbols, targets), int64 (B, T), T the most symbols that one of the chunks has.

        targets: places of the symbols in the vocabulary, IGNORE beyond the end of a chunk.
        """
        starts, ends = self._spans(np.asarray(chunks))
        symbols, counts = padded(self._symbols, starts, ends)
        targets = self._places[symbols]
        targets[np.arange(symbols.shape[1]) >= counts[:, None]] = IGNORE
        return torch.from_numpy(symbols.astype(np.int64)), torch.from_numpy(targets)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Symbols and targets of training step `step` (from 0)."""
        pool, place = divmod(step, _POOL_BATCHES)
        if pool != self._pool:
            n = _POOL_BATCHES * self.batch_chunks
            drawn = np.array([self._chunk_at(pool * n + i) for i in range(n)])
            if len(self.vocabulary.merges):
                starts, ends = self._spans(drawn)
                drawn = drawn[np.argsort(ends - starts, kind="stable")]
            rng = np.random.Generator(np.random.PCG64([self.seed, pool, 1]))
            batches = drawn.reshape(_POOL_BATCHES, self.batch_chunks)
            self._pool, self._batches = pool, batches[rng.permutation(_POOL_BATCHES)]
        return self.gather(self._batches[place])

    def bytes_of(self, targets: Tensor) -> int:
        """How many bytes the targets stand for."""
        used = targets[targets != IGNORE].cpu().numpy()
        return int(self.vocabulary.lengths[self.vocabulary.symbols[used]].sum())

    def sample(self, n: int) -> list[int]:
        """`n` chunks spread evenly over the corpus, or all of them if there are fewer."""
        n = min(n, self.n_chunks)
        return [i * self.n_chunks // n for i in range(n)]


def _cut(data: np.ndarray, layout: Layout, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The symbols of all groups, and where each chunk ends; bytes are left where they are."""
    if not len(vocabulary.merges):
        ends = np.arange(layout.chunk_size, len(data) + layout.chunk_size, layout.chunk_size)
        return data, np.minimum(ends, len(data))
    pieces: list[np.ndarray] = []
    places: list[np.ndarray] = []
    n = 0
    for group in range(layout.n_groups):
        start, stop = layout.group_span(group)
        symbols, cuts = vocabulary.cut(data[start:stop], layout.chunk_size)
        pieces.append(symbols)
        places.append(cuts + n)
        n += len(symbols)
    return np.concatenate(pieces), np.concatenate(places)
