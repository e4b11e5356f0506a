"""Batches of chunks from the symbols of a file, in an order that follows from the seed alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mdlzip.config import Preset
from mdlzip.matches import Matcher
from mdlzip.symbols.column import Column
from mdlzip.symbols.tokens import Tokens

IGNORE = -100
PIECE_BYTES = 512
_POOL_BATCHES = 8
# oneDNN makes and keeps kernels for every new shape. With few lengths a step takes three quarters
# of the time, and a long training half of the memory.
_LENGTH_STEP = 16
_MOST_SHUFFLED = 1 << 22  # pieces; those of about 2 GiB with the default chunk size
_PIECE = np.dtype([("origin", "i8"), ("start", "i8"), ("stop", "i8")])
_PIECES_AT_A_TIME = 1 << 16


class Batch(NamedTuple):
    """Parts of chunks, B x T, padded behind.

    symbols: int64. targets: int64, places of the symbols in the vocabulary; IGNORE in the padding
    and where a symbol is context only. matches: guesses (int16) and their lengths (uint8) as
    `Matcher.advance` gives them, None for a network that does not use them. expert_bits: float32
    (B, T), what each symbol costs the experts alone; None if they did not read the file.
    """

    symbols: Tensor
    targets: Tensor
    matches: tuple[Tensor, Tensor] | None = None
    expert_bits: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same on `device`, without waiting for the copy to a GPU."""
        if not (self.symbols.is_cpu and torch.device(device).type == "cuda"):
            return self._changed(lambda x: x.to(device))

        def sent(x: Tensor) -> Tensor:
            """Only a copy from pinned memory is not waited for; symbols travel as 16 bits."""
            small = x.to(torch.int16) if x.dtype == torch.int64 else x
            return small.pin_memory().to(device, non_blocking=True).to(x.dtype)

        return self._changed(sent)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        matches = self.matches and (change(self.matches[0]), change(self.matches[1]))
        bits = None if self.expert_bits is None else change(self.expert_bits)
        return Batch(change(self.symbols), change(self.targets), matches, bits)


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
        tokens: Tokens,
        batch_symbols: int,
        seed: int,
        *,
        lead: int = 0,
        least_match: int = 0,
    ) -> None:
        self.tokens, self.vocabulary, self.seed = tokens, tokens.vocabulary, seed
        self.chunk_size, self.n_chunks = tokens.layout.chunk_size, tokens.n_chunks
        self._lead, self._least_match = lead, least_match
        places = self.vocabulary.ranks.astype(np.int64)
        places[places < 0] = 0  # only where a sample of other bytes is looked at
        self._places = places
        self._pieces: Column | None = None  # chunks, where those are not cut
        if lead and self.chunk_size >= 2 * PIECE_BYTES:
            self._pieces = tokens.new_column(_PIECE)
            _cut_chunks(tokens, max(PIECE_BYTES / tokens.bytes_per_symbol, 1.0), self._pieces)
        self.n_pieces = self.n_chunks if self._pieces is None else len(self._pieces)
        batch_pieces = round(batch_symbols * self.n_pieces / max(tokens.n_symbols, 1))
        self.batch_pieces = max(1, min(batch_pieces, self.n_pieces))
        self._chunk_bytes = self.chunk_size
        if tokens.records:
            self._chunk_bytes = max(1, tokens.total_bytes // max(self.n_chunks, 1))
        self._round, self._order = -1, np.zeros(0, np.int32)
        self._pool, self._batches = -1, np.zeros((0, 0), np.int64)

    def _piece_at(self, index: int) -> int:
        """The piece that comes `index`-th in all.

        An epoch draws from every k-th piece, then from those next to them, and so on, so that the
        order that is held in memory is never longer than _MOST_SHUFFLED; k is 1 for most files.
        """
        epoch, place = divmod(index, self.n_pieces)
        k = -(-self.n_pieces // _MOST_SHUFFLED)
        offset, length = 0, -(-self.n_pieces // k)
        while place >= length:
            offset, place = offset + 1, place - length
            length = (self.n_pieces - offset + k - 1) // k
        if epoch * k + offset != self._round:
            self._round = epoch * k + offset
            rng = np.random.Generator(np.random.PCG64([self.seed, self._round]))
            self._order = np.arange(length, dtype=np.int32)
            rng.shuffle(self._order)
        return int(self._order[place]) * k + offset

    def _pieces_at(self, places: np.ndarray) -> np.ndarray:
        """Their chunks' beginnings, and where they begin and end, _PIECE (n,)."""
        if self._pieces is not None:
            return self._pieces.take(places)
        chunks = self.tokens.chunks.take(places)
        pieces = np.empty(len(chunks), _PIECE)
        pieces["origin"] = pieces["start"] = chunks["start"]
        pieces["stop"] = chunks["stop"]
        return pieces

    def gather(self, chunks: list[int] | np.ndarray) -> Batch:
        """Whole chunks; T is the most symbols that one of them has."""
        spans = self.tokens.chunks.take(np.asarray(chunks))
        return self._batch(spans["start"], spans["start"], spans["start"], spans["stop"])

    def _gather_pieces(self, places: list[int] | np.ndarray) -> Batch:
        pieces = self._pieces_at(np.asarray(places))
        starts = np.maximum(pieces["origin"], pieces["start"] - self._lead)
        return self._batch(pieces["origin"], starts, pieces["start"], pieces["stop"])

    def _batch(
        self, origins: np.ndarray, starts: np.ndarray, firsts: np.ndarray, stops: np.ndarray
    ) -> Batch:
        """Symbols starts .. stops - 1 of chunks that begin at `origins`, targets from `firsts`."""
        width = self._width(stops - starts)
        symbols = self.tokens.rows(starts, stops, width)
        targets = self._places[symbols]
        columns, counts = np.arange(symbols.shape[1]), stops - starts
        targets[(columns >= counts[:, None]) | (columns < (firsts - starts)[:, None])] = IGNORE
        matches = None
        if self._least_match:
            matches = self._matches(origins, starts, stops, symbols)
        bits = None
        if self.tokens.expert_bits is not None:
            expert_bits = self.tokens.expert_bits.rows(starts, stops, width)
            bits = torch.from_numpy(expert_bits.astype(np.float32))
        inputs = torch.from_numpy(symbols.astype(np.int64))
        return Batch(inputs, torch.from_numpy(targets), matches, bits)

    def _width(self, lengths: np.ndarray) -> int:
        """T for rows of these many symbols: few different ones, and never more than a chunk has."""
        most = max(int(lengths.max(initial=0)), 1)
        padded = -(-most // _LENGTH_STEP) * _LENGTH_STEP
        return padded if padded <= self.chunk_size else most

    def _matches(
        self, origins: np.ndarray, starts: np.ndarray, stops: np.ndarray, symbols: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """Guesses and lengths for `symbols`, those at starts .. stops - 1 of their chunks."""
        cut = (starts > origins).any()
        before = self.tokens.rows(origins, stops) if cut else symbols
        previous = np.zeros_like(before)
        previous[:, 1:] = before[:, :-1]
        matcher = Matcher(len(previous), self.chunk_size, self._least_match)
        found, lengths = matcher.advance(previous)
        if cut:
            columns = (starts - origins)[:, None] + np.arange(symbols.shape[1])
            columns = np.minimum(columns, found.shape[1] - 1)  # the padding holds anything
            found, lengths = (np.take_along_axis(z, columns, axis=1) for z in (found, lengths))
        return torch.from_numpy(found), torch.from_numpy(lengths)

    def batch(self, step: int) -> Batch:
        """The data of training step `step` (from 0)."""
        pool, place = divmod(step, _POOL_BATCHES)
        if pool != self._pool:
            n = _POOL_BATCHES * self.batch_pieces
            drawn = np.array([self._piece_at(pool * n + i) for i in range(n)])
            if len(self.vocabulary.merges) or self.tokens.records:
                pieces = self._pieces_at(drawn)
                drawn = drawn[np.argsort(pieces["stop"] - pieces["start"], kind="stable")]
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
        """`n` pieces (chunks, where those are not cut) spread evenly, a few to a batch.

        Of records as many as hold as much as so many pieces of PIECE_BYTES.
        """
        whole = self.n_pieces == self.n_chunks
        size = max(1, 8 * PIECE_BYTES // self._chunk_bytes) if whole else 8
        pieces = _spread(self.chunks_for(n) if self.tokens.records else n, self.n_pieces)
        return [self._gather_pieces(pieces[i : i + size]) for i in range(0, len(pieces), size)]

    def sample_chunks(self, n: int) -> list[Batch]:
        """Whole chunks spread evenly, as much data as in `n` of PIECE_BYTES but at least four."""
        chunks = self.sample(self.chunks_for(n))
        size = max(1, 8 * PIECE_BYTES // self._chunk_bytes)
        return [self.gather(chunks[i : i + size]) for i in range(0, len(chunks), size)]

    def chunks_for(self, n: int) -> int:
        """How many chunks hold as much as `n` of PIECE_BYTES; at least 4, and at most `n`.

        Of records there may be more.
        """
        count = max(4, n * PIECE_BYTES // self._chunk_bytes)
        return count if self.tokens.records else min(n, count)


def batches_for(tokens: Tokens, preset: Preset, seed: int) -> Batches:
    """The training data for a preset, whose `batch_chunks` counts 512 symbols each.

    Long chunks come in pieces where the network sees a window only and places are relative to one
    another. All layers together see further back than the one window that is put before a piece,
    but every symbol of context is computed and not learned from.
    """
    model = preset.model
    local = 0 < model.window < tokens.layout.chunk_size and model.positions == "rotary"
    return Batches(
        tokens,
        preset.train.batch_chunks * 512,
        seed,
        lead=model.window if local else 0,
        least_match=model.match_min,
    )


def _spread(n: int, total: int) -> list[int]:
    n = min(n, total)
    return [i * total // n for i in range(n)]


def _cut_chunks(tokens: Tokens, size: float, pieces: Column) -> None:
    """Cut each chunk evenly into pieces of about `size` symbols, written to `pieces` (_PIECE)."""
    for first in range(0, tokens.n_chunks, _PIECES_AT_A_TIME):
        spans = tokens.chunks.read(first, min(first + _PIECES_AT_A_TIME, tokens.n_chunks))
        lengths = spans["stop"] - spans["start"]
        counts = np.maximum(np.rint(lengths / size).astype(np.int64), 1)
        chunk = np.repeat(np.arange(len(spans)), counts)
        place = np.arange(len(chunk)) - np.repeat(np.cumsum(counts) - counts, counts)
        out = np.empty(len(chunk), _PIECE)
        out["origin"] = spans["start"][chunk]
        out["start"] = out["origin"] + lengths[chunk] * place // counts[chunk]
        out["stop"] = out["origin"] + lengths[chunk] * (place + 1) // counts[chunk]
        pieces.append(out)
    pieces.flush()
