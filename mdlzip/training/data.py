"""Batches of chunks from a (memory-mapped) corpus, in an order that follows from the seed alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mdlzip.chunks import Layout
from mdlzip.matches import Matcher
from mdlzip.vocabulary import Vocabulary, padded

IGNORE = -100
PIECE_BYTES = 512
_POOL_BATCHES = 8


class Batch(NamedTuple):
    """Parts of chunks, B x T, padded behind.

    symbols: int64. targets: int64, places of the symbols in the vocabulary; IGNORE in the padding
    and where a symbol is context only. matches: guesses (int16) and their lengths (uint8) as
    `Matcher.advance` gives them, None for a network that does not use them.
    """

    symbols: Tensor
    targets: Tensor
    matches: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same on `device`, without waiting for the copy."""
        matches = self.matches
        if matches is not None:
            found, lengths = (z.to(device, non_blocking=True) for z in matches)
            matches = found, lengths
        symbols, targets = (z.to(device, non_blocking=True) for z in self[:2])
        return Batch(symbols, targets, matches)


class Batches:
    """Chunks in random order, every epoch a new permutation drawn from (seed, epoch).

    Chunks of about as many symbols share a batch, so that little of it is padding: a pool of a few
    batches is drawn, sorted by length and cut, and its batches come in random order. `batch(step)`
    depends on nothing but the constructor's arguments and `step`, so a resumed run sees the same
    data.

    lead: with lead > 0 a long chunk is not one unit of a batch but cut into pieces of about
    PIECE_BYTES, each with `lead` symbols before it as context; so the steps of training are as
    small and as varied as with short chunks. Matches are those of the whole chunk. 0: never.
    least_match: as for `Matcher`; 0: no matches.
    """

    def __init__(
        self,
        data: np.ndarray,
        layout: Layout,
        batch_symbols: int,
        seed: int,
        vocabulary: Vocabulary | None = None,
        *,
        lead: int = 0,
        least_match: int = 0,
    ) -> None:
        self.data, self.chunk_size, self.seed = data, layout.chunk_size, seed
        self.vocabulary = Vocabulary() if vocabulary is None else vocabulary
        self._lead, self._least_match = lead, least_match
        places = self.vocabulary.ranks.astype(np.int64)
        places[places < 0] = 0  # only where a sample of other bytes is looked at
        self._places = places
        self._symbols, self._ends = _cut(data, layout, self.vocabulary)
        self.n_chunks = len(self._ends)
        self.bytes_per_symbol = len(data) / max(len(self._symbols), 1)
        self._piece_ends, self._origins = self._ends, np.concatenate([[0], self._ends[:-1]])
        if lead and self.chunk_size >= 2 * PIECE_BYTES:
            size = max(PIECE_BYTES / self.bytes_per_symbol, 1.0)
            self._piece_ends, self._origins = _pieces(self._origins, self._ends, size)
        self.n_pieces = len(self._piece_ends)
        batch_pieces = round(batch_symbols * self.n_pieces / max(len(self._symbols), 1))
        self.batch_pieces = max(1, min(batch_pieces, self.n_pieces))
        self._epoch, self._order = -1, np.zeros(0, np.int64)
        self._pool, self._batches = -1, np.zeros((0, 0), np.int64)

    def _piece_at(self, index: int) -> int:
        epoch, place = divmod(index, self.n_pieces)
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._epoch, self._order = epoch, rng.permutation(self.n_pieces)
        return int(self._order[place])

    def gather(self, chunks: list[int] | np.ndarray) -> Batch:
        """Whole chunks; T is the most symbols that one of them has."""
        ends = self._ends[np.asarray(chunks)]
        starts = _starts(self._ends, chunks)
        return self._batch(starts, starts, starts, ends)

    def _gather_pieces(self, pieces: list[int] | np.ndarray) -> Batch:
        origins, ends = self._origins[np.asarray(pieces)], self._piece_ends[np.asarray(pieces)]
        firsts = _starts(self._piece_ends, pieces)
        return self._batch(origins, np.maximum(origins, firsts - self._lead), firsts, ends)

    def _batch(
        self, origins: np.ndarray, starts: np.ndarray, firsts: np.ndarray, ends: np.ndarray
    ) -> Batch:
        """Symbols starts..ends - 1 of chunks that begin at `origins`; targets from `firsts` on."""
        symbols, counts = padded(self._symbols, starts, ends)
        targets = self._places[symbols]
        columns = np.arange(symbols.shape[1])
        targets[(columns >= counts[:, None]) | (columns < (firsts - starts)[:, None])] = IGNORE
        matches = None
        if self._least_match:
            matches = self._matches(origins, starts, ends, symbols.shape)
        return Batch(torch.from_numpy(symbols.astype(np.int64)), torch.from_numpy(targets), matches)

    def _matches(
        self, origins: np.ndarray, starts: np.ndarray, ends: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Guesses and lengths at starts..ends - 1, from the chunk's beginning."""
        before, _ = padded(self._symbols, origins, ends)
        previous = np.zeros_like(before)
        previous[:, 1:] = before[:, :-1]
        matcher = Matcher(len(previous), self.chunk_size, self._least_match)
        found, lengths = matcher.advance(previous)
        if (starts > origins).any():
            columns = (starts - origins)[:, None] + np.arange(shape[1])
            columns = np.minimum(columns, found.shape[1] - 1)  # the padding holds anything
            found, lengths = (np.take_along_axis(z, columns, axis=1) for z in (found, lengths))
        return torch.from_numpy(found), torch.from_numpy(lengths)

    def batch(self, step: int) -> Batch:
        """The data of training step `step` (from 0)."""
        pool, place = divmod(step, _POOL_BATCHES)
        if pool != self._pool:
            n = _POOL_BATCHES * self.batch_pieces
            drawn = np.array([self._piece_at(pool * n + i) for i in range(n)])
            if len(self.vocabulary.merges):
                sizes = self._piece_ends[drawn] - _starts(self._piece_ends, drawn)
                drawn = drawn[np.argsort(sizes, kind="stable")]
            rng = np.random.Generator(np.random.PCG64([self.seed, pool, 1]))
            batches = drawn.reshape(_POOL_BATCHES, self.batch_pieces)
            self._pool, self._batches = pool, batches[rng.permutation(_POOL_BATCHES)]
        return self._gather_pieces(self._batches[place])

    @property
    def passes_per_step(self) -> float:
        """Share of the corpus in one step, on average."""
        return self.batch_pieces / max(self.n_pieces, 1)

    def bytes_of(self, targets: Tensor) -> int:
        """How many bytes the targets stand for."""
        used = targets[targets != IGNORE].cpu().numpy()
        return int(self.vocabulary.lengths[self.vocabulary.symbols[used]].sum())

    def sample(self, n: int) -> list[int]:
        """`n` chunks spread evenly over the corpus, or all of them if there are fewer."""
        return _spread(n, self.n_chunks)

    def sample_pieces(self, n: int) -> list[Batch]:
        """`n` pieces (chunks, where those are not cut) spread evenly, a few to a batch."""
        pieces = _spread(n, self.n_pieces)
        whole = self.n_pieces == self.n_chunks
        size = max(1, 8 * PIECE_BYTES // self.chunk_size) if whole else 8
        return [self._gather_pieces(pieces[i : i + size]) for i in range(0, len(pieces), size)]

    def sample_chunks(self, n: int) -> list[Batch]:
        """Whole chunks spread evenly, as much data as in `n` of PIECE_BYTES but at least four."""
        chunks = self.sample(self.chunks_for(n))
        size = max(1, 8 * PIECE_BYTES // self.chunk_size)
        return [self.gather(chunks[i : i + size]) for i in range(0, len(chunks), size)]

    def chunks_for(self, n: int) -> int:
        """How many chunks hold as much as `n` of PIECE_BYTES; between 4 and `n`."""
        return min(n, max(4, n * PIECE_BYTES // self.chunk_size))


def _spread(n: int, total: int) -> list[int]:
    n = min(n, total)
    return [i * total // n for i in range(n)]


def _starts(ends: np.ndarray, which: list[int] | np.ndarray) -> np.ndarray:
    """Where the pieces `which` begin that follow each other and end at `ends`."""
    places = np.asarray(which)
    return np.where(places > 0, ends[places - 1], 0)


def _pieces(starts: np.ndarray, ends: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut each chunk evenly into pieces of about `size` symbols: their ends, and the start of the
    chunk that each is of; int64.
    """
    counts = np.maximum(np.rint((ends - starts) / size).astype(np.int64), 1)
    chunk = np.repeat(np.arange(len(ends)), counts)
    place = np.arange(len(chunk)) - np.repeat(np.cumsum(counts) - counts, counts)
    piece_ends = starts[chunk] + (ends - starts)[chunk] * (place + 1) // counts[chunk]
    return piece_ends, starts[chunk]


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
