"""Batches of chunks from a (memory-mapped) corpus, in an order that follows from the seed alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mdlzip.quantised.network import alphabet_of

IGNORE = -100


class Batches:
    """Chunks in random order, every epoch a new permutation drawn from (seed, epoch).

    `batch(step)` depends on nothing but the constructor's arguments and `step`, so a resumed run
    sees the same data.
    """

    def __init__(
        self,
        data: np.ndarray,
        chunk_size: int,
        batch_chunks: int,
        seed: int,
        alphabet: np.ndarray | None = None,
    ) -> None:
        self.data, self.chunk_size, self.seed = data, chunk_size, seed
        self._places = np.arange(256)
        if alphabet is not None:
            self._places[alphabet] = np.arange(len(alphabet))
        self.n_chunks = -(-len(data) // chunk_size)
        self.batch_chunks = max(1, min(batch_chunks, self.n_chunks))
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def _chunk_at(self, index: int) -> int:
        epoch, place = divmod(index, self.n_chunks)
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._epoch, self._order = epoch, rng.permutation(self.n_chunks)
        return int(self._order[place])

    def gather(self, chunks: list[int]) -> tuple[Tensor, Tensor]:
        """(symbols, targets), int64 (B, T).

        symbols: byte values; targets: their places in the alphabet (by default the values too),
        IGNORE beyond the end of a short chunk.
        """
        symbols = np.zeros((len(chunks), self.chunk_size), np.int64)
        targets = np.full((len(chunks), self.chunk_size), IGNORE, np.int64)
        for row, chunk in enumerate(chunks):
            piece = self.data[chunk * self.chunk_size : (chunk + 1) * self.chunk_size]
            symbols[row, : len(piece)] = piece
            targets[row, : len(piece)] = self._places[piece]
        return torch.from_numpy(symbols), torch.from_numpy(targets)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Symbols and targets of training step `step` (from 0)."""
        first = step * self.batch_chunks
        return self.gather([self._chunk_at(first + i) for i in range(self.batch_chunks)])

    def sample(self, n: int) -> list[int]:
        """`n` chunks spread evenly over the corpus, or all of them if there are fewer."""
        n = min(n, self.n_chunks)
        return [i * self.n_chunks // n for i in range(n)]


def corpus_alphabet(data: np.ndarray) -> np.ndarray:
    """The byte values that the network shall predict, uint8, ascending, at least two."""
    return alphabet_of(symbols_present(data))


def symbols_present(data: np.ndarray) -> np.ndarray:
    """Boolean (256,): which byte values occur. Reads the corpus once, block by block."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(data), 1 << 24):
        counts += np.bincount(data[start : start + (1 << 24)], minlength=256)
    return counts > 0
