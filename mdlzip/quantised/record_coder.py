"""Short texts, each by itself, through the integer predictor: nothing is known but the network.

Texts of about the same length go through the predictor together; each has a stream of its own, so
which ones they are changes no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

import numpy as np

from mdlzip.coding.range_streams import RangeStreams
from mdlzip.errors import CorruptArchive
from mdlzip.process.cores import thread_count
from mdlzip.quantised.coders import UnitCoder
from mdlzip.quantised.encode_ahead import encode_ahead
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.predictor import Predictor
from mdlzip.quantised.prepared import count_table
from mdlzip.quantised.tiles import LEAST_FILL
from mdlzip.quantised.workers import settle
from mdlzip.symbols.tokenise import tokenise
from mdlzip.symbols.vocabulary import START_SYMBOL

_TILE_TEXTS = 64
_CALL_SYMBOLS = 1024  # of one forward call of an encoder; keeps the gaps near the L2 cache
NEWLINE = 10
R = TypeVar("R")


class _Streams:
    """What `encode_ahead` wants of a coder: one stream for each text."""

    def __init__(self, streams: RangeStreams, n_symbols: int) -> None:
        self.group, self.rank = streams, np.arange(n_symbols)


class RecordCoder:
    """Codes texts of at most `chunk_size` bytes; any number of threads may use it at once.

    threads: of one call, None for one per core. Raises ExportRefused if the network breaks a bound
    of the predictor.
    """

    def __init__(
        self, network: IntegerNetwork, chunk_size: int, threads: int | None = None
    ) -> None:
        self.vocabulary, self._chunk_size = network.vocabulary, chunk_size
        self._predictor = Predictor(network, chunk_size)
        self._counts = count_table().astype(np.int32)
        self._threads = thread_count(threads)
        self.known = np.zeros(256, bool)
        self.known[network.alphabet] = True
        used = self.vocabulary.symbols
        self._with_newline = (self.vocabulary.strings[used] == NEWLINE).any(1)

    def encode(self, texts: Sequence[bytes]) -> list[bytes]:
        """The stream of each text; all must be of bytes that the network knows, see `known`."""
        if not texts:
            return []
        data = np.frombuffer(b"".join(texts), np.uint8)
        symbols, ends = tokenise(self.vocabulary, data, np.cumsum([len(t) for t in texts]))
        counts = np.diff(ends, prepend=0)

        def encode(tile: np.ndarray) -> list[bytes]:
            here = counts[tile]
            lines = np.zeros((len(tile), int(here.max())), np.int16)
            for line, i in zip(lines, tile.tolist(), strict=True):
                line[: counts[i]] = symbols[ends[i] - counts[i] : ends[i]]
            v = self.vocabulary.n_symbols
            coder = _Streams(RangeStreams.encoder(self._counts, v, here), v)
            span, rows = max(1, _CALL_SYMBOLS // len(tile)), np.arange(len(tile))
            encode_ahead(
                self._predictor,
                cast(UnitCoder, coder),
                rows,
                lines,
                here,
                [len(tile)],
                span,
                1,
                lambda: None,
            )
            return coder.group.finish()

        return self._by_tile(encode, counts)

    def decode(
        self, streams: Sequence[bytes | memoryview], sizes: Sequence[int] | None = None
    ) -> list[bytes]:
        """The texts, of so many bytes each (at least 1); None: each ends with its first newline.

        Raises CorruptArchive.
        """
        if not streams:
            return []
        room = np.full(len(streams), self._chunk_size, np.int64)
        if sizes is not None:
            room = np.array(sizes, np.int64)
        ends = self._with_newline if sizes is None else np.zeros_like(self._with_newline)
        v = self.vocabulary.n_symbols

        def decode(tile: np.ndarray) -> list[bytes]:
            coder = RangeStreams.decoder(self._counts, v, [streams[i] for i in tile.tolist()])
            return self._decoded(coder, room[tile], ends)

        lengths = room if sizes is not None else np.array([len(s) for s in streams], np.int64)
        return self._by_tile(decode, lengths)

    def _decoded(self, coder: RangeStreams, sizes: np.ndarray, ends: np.ndarray) -> list[bytes]:
        """The texts of a tile, one symbol of each that has not ended at a time.

        ends: boolean (V,), whether a symbol ends its text, however long that is.
        """
        vocabulary, n = self.vocabulary, len(sizes)
        out, fill = np.zeros((n, int(sizes.max())), np.uint8), np.zeros(n, np.int64)
        lines, going = np.arange(n), np.ones(n, bool)
        previous = np.full((n, 1), START_SYMBOL, np.int16)
        state = self._predictor.new_state(n)
        while going.any():
            if np.count_nonzero(going) < LEAST_FILL * len(lines):
                self._predictor.narrow(state, going)
                lines, previous = lines[going], previous[going]
                going = np.ones(len(lines), bool)
            gaps = self._predictor.forward(previous, state)[:, 0]
            here = np.flatnonzero(going)
            rows = lines[here]
            places = coder.decode(rows, gaps[here])
            new = vocabulary.symbols[places]
            if not vocabulary.append(out, fill, rows, new):
                raise CorruptArchive("a symbol of a record goes beyond its end")
            previous[here, 0] = new
            going[here] = ~ends[places] & (fill[rows] < sizes[rows])
        if not ends.any() and (fill != sizes).any():
            raise CorruptArchive("a record decodes to more bytes than it has")
        return [row[:m].tobytes() for row, m in zip(out, fill.tolist(), strict=True)]

    def _by_tile(self, work: Callable[[np.ndarray], list[R]], lengths: np.ndarray) -> list[R]:
        """work(places of some texts) for all of them, in their own order again."""
        order = np.argsort(lengths, kind="stable")
        most = max(1, min(_TILE_TEXTS, -(-len(order) // self._threads)))
        tiles = [order[i : i + most] for i in range(0, len(order), most)]
        found: list[R | None] = [None] * len(order)
        for tile, done in zip(tiles, self._each(work, tiles), strict=True):
            for place, one in zip(tile.tolist(), done, strict=True):
                found[place] = one
        return cast("list[R]", found)

    def _each(
        self, work: Callable[[np.ndarray], list[R]], tiles: list[np.ndarray]
    ) -> Iterator[list[R]]:
        if self._threads == 1 or len(tiles) == 1:
            yield from map(work, tiles)
            return
        with ThreadPoolExecutor(min(self._threads, len(tiles)), initializer=settle) as pool:
            yield from pool.map(work, tiles)
