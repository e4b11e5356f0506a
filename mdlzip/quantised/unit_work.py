"""What encoder and decoder of units share: predictor, coders, threads, and the rounds of a unit.

Lanes of the experts may hold several chunks, one after the other. So the chunks of a unit are coded
in rounds: first those that begin the lanes, then those that follow them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np

from mdlzip.errors import ExportRefused
from mdlzip.process.cores import thread_count
from mdlzip.quantised.coders import Coders, Experts, Look, UnitCoder, spread
from mdlzip.quantised.encode_ahead import encode_ahead
from mdlzip.quantised.memory import DECODE_TILE_CHUNKS, longest_chunk
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.predictor import Predictor
from mdlzip.quantised.workers import Workers
from mdlzip.symbols.context import CHUNK, REFERENCE, SOLID, Context, Units
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokenise import cut_group
from mdlzip.symbols.vocabulary import START_SYMBOL, Vocabulary

ENCODE_TILE_SYMBOLS = 1024  # positions of one forward call; keeps the gaps near the L2 cache
_LEAST_SHARED = 8  # chunks of a tile that is one of several in turn
_ZEROS = np.zeros(1, np.int64)


class Work:
    """Predictor and coders of one archive, for encoder and decoder alike."""

    def __init__(
        self,
        network: IntegerNetwork | None,
        vocabulary: Vocabulary,
        layout: Layout,
        context: Context,
        device: str,
        threads: int | None,
        memory: int | None = None,
        tile_chunks: int = DECODE_TILE_CHUNKS,
    ) -> None:
        self.layout, self.units, self.vocabulary = layout, Units(layout, context), vocabulary
        self.context, self.device = context, device
        self.threads = thread_count(threads)
        self.tile_chunks, self.call_symbols = tile_chunks, ENCODE_TILE_SYMBOLS
        if network is not None and network.tensors and device != "cpu":
            from mdlzip.quantised.device_memory import device_limit, fit_tiles

            limit = device_limit(device, memory)
            tiles = fit_tiles(
                network.shape, layout, vocabulary.n_symbols, threads=self.threads, limit=limit
            )
            self.threads, self.tile_chunks = tiles.threads, tiles.chunks
            self.call_symbols = tiles.symbols
        self.workers = Workers(self.threads)
        if context.mode == CHUNK and (network is None or not network.tensors):
            raise ExportRefused("without a network chunks must know of others")
        self.coders = Coders(context, vocabulary, layout.chunk_size)
        self.predictor, text = None, b"" if network is None else network.text
        if network is not None and network.tensors:
            self.predictor = Predictor(
                network,
                layout.chunk_size,
                positions=max(longest_chunk(layout), min(len(text), layout.chunk_size)),
                device=device,
                check=lambda: self.workers.check(),
            )
        self._load_kernels()
        if text and context.mode != CHUNK:
            self._read(text)

    def _load_kernels(self) -> None:
        """Here a signal can end that, in a thread it cannot."""
        coder = Coders(self.context, self.vocabulary, self.layout.chunk_size).new(_ZEROS)
        gaps = None
        if self.predictor:
            start = np.full((1, 1), START_SYMBOL, np.int16)
            gaps = self.predictor.forward(start, self.predictor.new_state(1))
        coder.encode(_ZEROS, Look(gaps, 0, _ZEROS), _ZEROS.astype(np.int32))

    def _read(self, text: bytes) -> None:
        """What every unit knows from the start: the text that came with the model.

        It is coded as a unit before all others, and the code is thrown away.
        """
        data = np.frombuffer(text, np.uint8)
        symbols, ends = cut_group(self.vocabulary, data, self.layout.chunk_size)
        coder = self.coders.new(self.layout.chunk_size * np.arange(len(ends)))
        encode_chunks(
            self.predictor,
            self.vocabulary,
            coder,
            symbols,
            np.diff(ends, prepend=0),
            self.threads,
            self.workers.check,
            lane_chunks=self.lane_chunks,
            call_symbols=self.call_symbols,
        )
        self.coders.known = cast("Experts", coder).experts.after()

    def is_shared(self, unit: int) -> bool:
        """Whether all threads work on this unit because others need what it teaches."""
        return self.context.mode == SOLID or (self.context.mode == REFERENCE and unit == 0)

    def learned(self, coder: UnitCoder, unit: int) -> None:
        """Keep what later units start from."""
        if self.is_shared(unit):
            self.coders.known = cast("Experts", coder).experts.after()

    @property
    def lane_chunks(self) -> int:
        """How many chunks follow one another in a lane."""
        return 1 if self.context.mode == CHUNK else self.context.lane_chunks

    def new_coder(
        self, groups: Sequence[int], chunks: Sequence[int], stream: bytes | bytearray | None
    ) -> UnitCoder:
        """That of a unit of so many chunks of these groups; `stream` None for an encoder."""
        origins = [
            self.layout.group_span(group)[0] + self.layout.chunk_size * np.arange(n)
            for group, n in zip(groups, chunks, strict=True)
        ]
        return self.coders.new(np.concatenate(origins), stream, last=self.context.mode == SOLID)


def rounds(n: int, lane_chunks: int) -> Iterator[np.ndarray]:
    """The chunks 0 .. n - 1 of a unit that are coded in lockstep, round by round."""
    for first in range(min(lane_chunks, n)):
        yield np.arange(first, n, lane_chunks)


def shares(chunks: np.ndarray, most: int, threads: int) -> list[np.ndarray]:
    """`chunks` in equal shares of at most `most`, as many for each thread unless they are few."""
    count = -(-len(chunks) // (most * threads)) * threads
    fewest = min(_LEAST_SHARED, most)
    return np.array_split(chunks, max(1, min(count, len(chunks) // fewest)))


def encode_chunks(
    predictor: Predictor | None,
    vocabulary: Vocabulary,
    coder: UnitCoder,
    flat: np.ndarray,
    counts: np.ndarray,
    threads: int = 1,
    check: Callable[[], None] = lambda: None,
    *,
    lane_chunks: int = 1,
    call_symbols: int = ENCODE_TILE_SYMBOLS,
) -> None:
    """Feed all symbols of a unit to `coder`, in coding order.

    flat: int16, its symbols; counts: int64, symbols of each of its chunks; call_symbols: that the
    predictor is asked for at once. Raises ExportRefused.
    """
    starts = np.cumsum(counts) - counts
    places = vocabulary.ranks[flat]
    if places.min(initial=0) < 0:
        value = flat[places < 0][0]
        raise ExportRefused(f"byte value {value} is not in the alphabet of the network")
    for chunks in rounds(len(counts), lane_chunks):
        if predictor is None:
            own = spread(starts[chunks], counts[chunks])
            cast("Experts", coder).encode_alone(chunks, places[own], counts[chunks], check)
            continue
        here = counts[chunks]
        symbols = np.zeros((len(chunks), int(here.max())), np.int16)
        symbols[np.arange(symbols.shape[1]) < here[:, None]] = flat[spread(starts[chunks], here)]
        cut = shares(np.arange(len(chunks)), DECODE_TILE_CHUNKS, threads)
        sizes = [len(share) for share in cut]
        span = max(1, call_symbols // max(sizes))
        encode_ahead(predictor, coder, chunks, symbols, here, sizes, span, threads, check)
