"""A tile's positions in compiled code: predict one, wait for the turn, decode it, pass the turn on.

What `tiles.DecodeTile` does for any predictor and coder, for the compiled ones. Two threads that
share a unit hand the turn to each other twice a position. Through the interpreter that takes as
long as the work on sixteen chunks, through a word of memory next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from mdlzip.errors import CorruptArchive, MdlzipError
from mdlzip.matches import advance_kernel
from mdlzip.process.kernels import NOT_CALLED, called_at, compiled, entry
from mdlzip.process.shared_words import words
from mdlzip.quantised.backend import MOMENT_MACS
from mdlzip.quantised.backend_cpu import CpuBackend
from mdlzip.quantised.coders import UnitCoder
from mdlzip.quantised.predictor import Predictor
from mdlzip.quantised.tiles import LEAST_FILL
from mdlzip.quantised.turns import on_threads
from mdlzip.quantised.workers import Stopped
from mdlzip.symbols.vocabulary import START_SYMBOL

# Words that the threads share: the tile whose turn it is, whether one has failed, and for each
# whether it goes on. Only who has the turn touches those behind the second.
_TURN, _FAILED, _GOES_ON = range(3)
# Why a call ends.
_MORE, _DONE, _NARROW, _WAITING, _STOPPED, _BAD, _OTHER_TYPES = range(7)
_POSITION, _IS_LOOKED = range(2)  # fields of `_Lines.state`
_MOST_POSITIONS = 64  # of one call: the caller asks in between whether to go on
_LOOKS = 1 << 13  # at whose turn it is, before the thread lets others run: below a millisecond
_NAP_S = 5e-5
_CONTENDED = 0.1  # naps a position; on a quiet machine there are none
_ROUNDS_ALONE = 16  # until several threads are tried again


class _Lines(NamedTuple):
    """The chunks of a tile that are not finished, and some that are; n of them.

    state: int64 (2,). previous: int16 (n, 1), gaps: uint16 (n, 1, V), gap_rows: the same memory,
    (n, V). chunks, sizes: int64 (n,), see `Segment`; own: int64 (n + 1,), 0 to n; at, ranks: int64
    (n,), to work in. symbols: int32 (V,), by rank.
    """

    state: np.ndarray
    previous: np.ndarray
    gaps: np.ndarray
    gap_rows: np.ndarray
    chunks: np.ndarray
    sizes: np.ndarray
    own: np.ndarray
    at: np.ndarray
    ranks: np.ndarray
    symbols: np.ndarray


class _Guesses(NamedTuple):
    """A `Matcher` and what it last said; without one arrays of no size, and least is 0."""

    least: int
    history: np.ndarray
    table: np.ndarray
    state: np.ndarray
    symbols: np.ndarray
    lengths: np.ndarray


def can_decode(predictor: Predictor, n_chunks: int) -> bool:
    """Whether the predictor is compiled, and a position of so many chunks takes but a moment."""
    backend = predictor.backend
    return isinstance(backend, CpuBackend) and n_chunks * backend.row_macs <= MOMENT_MACS


class CompiledTile:
    """Decodes chunks of one unit in lockstep; what they hold is then in the coder's group.

    chunks: int64 (n,), their numbers in the unit; sizes: int64 (n,), bytes that each holds at
    least; name: of the unit, for errors.
    """

    def __init__(
        self,
        predictor: Predictor,
        coder: UnitCoder,
        chunks: np.ndarray,
        sizes: np.ndarray,
        name: str,
    ) -> None:
        backend = predictor.backend
        assert isinstance(backend, CpuBackend)
        self._predictor, self._backend, self._name = predictor, backend, name
        self._coder = coder.group
        self._symbols = predictor.vocabulary.symbols[coder.place]
        self._state = predictor.new_state(len(chunks))
        previous = np.full((len(chunks), 1), START_SYMBOL, np.int16)
        self._lines = self._new_lines(np.zeros(2, np.int64), previous, chunks, sizes)
        self._where: Any = None
        self.naps = 0
        self._most = max(1, min(_MOST_POSITIONS, MOMENT_MACS // (len(chunks) * backend.row_macs)))

    def _new_lines(
        self, state: np.ndarray, previous: np.ndarray, chunks: np.ndarray, sizes: np.ndarray
    ) -> _Lines:
        n, v = len(chunks), self._predictor.vocabulary.n_symbols
        gaps, own = np.empty((n, 1, v), np.uint16), np.arange(n + 1)
        at, ranks = np.zeros(n, np.int64), np.zeros(n, np.int64)
        rows = gaps.reshape(n, v)
        return _Lines(state, previous, gaps, rows, chunks, sizes, own, at, ranks, self._symbols)

    def _unfinished(self) -> np.ndarray:
        return self._coder.fill()[self._lines.chunks] < self._lines.sizes

    @property
    def is_done(self) -> bool:
        """Whether all chunks are full."""
        return not self._unfinished().any()

    @property
    def positions(self) -> int:
        """How many have been decoded."""
        return int(self._lines.state[_POSITION])

    def run(self, turns: np.ndarray, number: int, most: int, check: Callable[[], None]) -> None:
        """Decode some positions, `most` at the most; `number` is this tile's in `turns`.

        check: called several times a second. Raises CorruptArchive; Stopped if another tile failed.
        """
        while True:
            check()
            why = self._call(turns, number, min(most, self._most))
            if why == _WAITING:
                self.naps += 1
                time.sleep(_NAP_S)
                continue
            if why == _STOPPED:
                raise Stopped
            if why == _BAD:
                raise CorruptArchive(f"{self._name}: {self._coder.problem}")
            if why == _OTHER_TYPES:
                raise MdlzipError("internal error: a kernel was found for other types")
            if why == _NARROW:
                self._narrow()
            return

    def _call(self, turns: np.ndarray, number: int, most: int) -> int:
        lines, guesses, cache, coder = self._lines, self._guesses(), self._state.cache, self._coder
        network = self._backend.net, cache.arrays, cache.work
        if self._where is None:  # the first time; types never change
            span = 0, 0, 0, 0
            looks = lines.previous, 0, span, guesses.symbols, guesses.lengths, *network, lines.gaps
            rows = lines.gap_rows, coder.counts, lines.chunks, lines.sizes, lines.at, lines.at
            self._where = (
                entry(self._backend.kernel, *looks),
                entry(coder.kernel, *coder.arguments, *rows, lines.ranks, *coder.tail),
                entry(advance_kernel(), lines.previous, 0, *guesses),
            )
        return int(
            _kernel(self._backend.kind, coder.kernel)(
                turns, number, most, _LOOKS, lines, guesses, network, coder.arguments,
                coder.counts, coder.tail, coder.fill(), self._where,
            )
        )  # fmt: skip

    def _guesses(self) -> _Guesses:
        n, matcher = len(self._lines.chunks), self._state.matcher
        if matcher is None:
            empty = np.zeros((0, 0), np.int16), np.zeros((0, 0), np.uint8)
            table = np.zeros((0, 0), np.uint16), np.zeros((0, 0), np.int32)
            return _Guesses(0, empty[0], *table, *empty)
        said = np.empty((n, 1), np.int16), np.empty((n, 1), np.uint8)
        return _Guesses(matcher.least, *matcher.arrays, *said)

    def _narrow(self) -> None:
        """Go on without the chunks that are full."""
        keep, lines = self._unfinished(), self._lines
        self._predictor.narrow(self._state, keep)
        self._lines = self._new_lines(
            lines.state, lines.previous[keep], lines.chunks[keep], lines.sizes[keep]
        )


@cache
def _kernel(kind: str, coder: Any) -> Any:
    """The compiled `decode` for a kind of `int8_products` and what codes; see `CompiledTile`."""
    from mdlzip.quantised.forward_cpu import forward_kernel

    forward, code = called_at(forward_kernel(kind)), called_at(coder)
    advance, (read, write, rest) = called_at(advance_kernel()), words()

    def decode(  # type: ignore[no-untyped-def]
        turns, me, most, looks, lines, guesses, network, coder, counts, tail, fill, where
    ):
        shared, n_tiles = turns.ctypes.data, turns.shape[0] - _GOES_ON
        state, chunks, sizes, n = lines.state, lines.chunks, lines.sizes, len(lines.chunks)
        zero, one, ends = np.int64(0), np.int64(1), lines.own[1:]
        for _ in range(most):
            if not state[_IS_LOOKED]:
                at = state[_POSITION]
                said, span = (guesses.symbols, guesses.lengths), (zero, n, zero, one)
                if guesses.least:
                    seen = guesses.history, guesses.table, guesses.state
                    if advance(where[2], (lines.previous, at, guesses.least, *seen, *said)):
                        return _OTHER_TYPES
                if forward(where[0], (lines.previous, at, span, *said, *network, lines.gaps)):
                    return _OTHER_TYPES
                state[_POSITION], state[_IS_LOOKED] = at + 1, 1
            looked = 0
            while read(shared, _TURN) != me:
                if read(shared, _FAILED):
                    return _STOPPED
                looked += 1
                if looked > looks:
                    return _WAITING
                rest()
            for i in range(n):
                lines.at[i] = i
            rows = lines.gap_rows, counts, chunks, sizes, lines.at, ends, lines.ranks
            bad = code(where[1], (*coder, *rows, *tail))
            if bad == NOT_CALLED:
                return _OTHER_TYPES
            if bad >= 0:
                write(shared, _FAILED, 1)
                return _BAD
            left = 0
            for i in range(n):
                if lines.at[i] > i:
                    lines.previous[i, 0] = lines.symbols[lines.ranks[i]]
                left += fill[chunks[i]] < sizes[i]
            state[_IS_LOOKED] = 0
            if not left:
                turns[_GOES_ON + me] = 0
            following = me
            for i in range(1, n_tiles):
                other = (me + i) % n_tiles
                if turns[_GOES_ON + other]:
                    following = other
                    break
            write(shared, _TURN, following)
            if not left:
                return _DONE
            if left < LEAST_FILL * n:
                return _NARROW
        return _MORE

    decode.__qualname__ += f"_{kind}_{coder.__name__}"
    return compiled(error_model="numpy", _nrt=False)(decode)


class Sharing:
    """How many threads share a round: one where other programs keep them from handing over.

    A thread whose turn it is may not be running then, for milliseconds, and so does none.
    """

    def __init__(self) -> None:
        self._rounds_alone = 0

    def threads(self, most: int) -> int:
        """For the next round, `most` at the most."""
        if self._rounds_alone:
            self._rounds_alone -= 1
            return 1
        return most

    def learn(self, tiles: Sequence[CompiledTile]) -> None:
        """From the tiles of a round."""
        if sum(tile.naps for tile in tiles) > _CONTENDED * sum(tile.positions for tile in tiles):
            self._rounds_alone = _ROUNDS_ALONE


def decode_in_turn(tiles: Sequence[CompiledTile], threads: int, check: Callable[[], None]) -> None:
    """Like `turns.run_in_turn`, for compiled tiles."""
    going = [tile for tile in tiles if not tile.is_done]
    turns = np.ones(_GOES_ON + len(going), np.int64)
    turns[:_GOES_ON] = 0
    most = _MOST_POSITIONS if len(going) <= threads else 1

    def work(numbers: Sequence[int]) -> None:
        try:
            while numbers:
                for number in numbers:
                    going[number].run(turns, number, most, check)
                numbers = [number for number in numbers if not going[number].is_done]
        except BaseException:
            turns[_FAILED] = 1
            raise

    def fail() -> None:
        turns[_FAILED] = 1

    on_threads(work, range(len(going)), threads, fail)
