"""A unit of chunks through the experts: symbols and the network's logit gaps <-> bytes.

The order of coding is that of docs/format-data.md: round by round, in each position by position,
and at each position chunk by chunk. So one step codes one symbol of every chunk of the round that
has not ended, with what `gaps` the network has for them. Units know nothing of one another but the
`Known` they start from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdlzip.coding.binary_coder import PENDING, POSITION, finish, new_decoder, new_encoder
from mdlzip.coding.range_coder import TOO_LONG
from mdlzip.errors import CorruptArchive, UsageError
from mdlzip.experts.kernel import SPENT_FIELDS, code_rows
from mdlzip.experts.state import (
    CHUNK_BYTES,
    CHUNK_FIELDS,
    FILL,
    WORK_ROWS,
    WORK_WIDTH,
    Memory,
    Symbols,
    new_lanes,
)
from mdlzip.experts.tables import N_INPUTS, N_RECORDS, N_TREES, tables
from mdlzip.limits import MAX_KNOWN_PLACES

_BYTES_PER_SYMBOL = 36  # 13 decisions of at most 18 bits, and what a flush needs
_FLUSH_BYTES = 64
_CALL_SYMBOLS = 1 << 14  # some 50 ms
NO_COSTS = np.zeros(0, np.float32)  # of symbols that nobody prices


@dataclass
class Known:
    """What a group may use from the start: tables that have learned, and text they point into.

    memory: used up by the group that is coded with it (take `memory.copy()` for several); text:
    int16, ranks in rooms of chunk_size places, -1 behind the end of each chunk.
    """

    memory: Memory
    text: np.ndarray


class GroupCoder:
    """Codes one unit, some symbols at a time; `stream` None for an encoder.

    counts: int32, logit gap -> count, the network's; a coder without a network gets no gaps and
    takes all counts as 1. origins: int64, where each chunk begins in the original, if those before
    it in its group are full. lane_chunks: how many chunks follow one another in a lane; of two
    chunks of a lane the first must be coded before the second begins. grid: bytes of a row, 0 for
    none, and of an element. Not for several threads at once.
    Raises CorruptArchive, or UsageError for an encoder, if that makes more known text than places
    can be numbered.
    """

    def __init__(
        self,
        symbols: Symbols,
        counts: np.ndarray,
        known: Known,
        origins: np.ndarray,
        chunk_size: int,
        stream: bytes | None = None,
        *,
        lane_chunks: int = 1,
        grid: tuple[int, int] = (0, 1),
    ) -> None:
        size, n_chunks = len(symbols.place), len(origins)
        self._symbols, self.counts, self._memory = symbols, counts, known.memory
        self._start, self._room = len(known.text), chunk_size
        self._decoding = stream is not None
        places = self._start + n_chunks * chunk_size
        if places >= MAX_KNOWN_PLACES:
            wrong = CorruptArchive if self._decoding else UsageError
            raise wrong(f"known text of {places} places: must be fewer than {MAX_KNOWN_PLACES}")
        self.known_text = np.full(places, -1, np.int16)
        self.known_text[: self._start] = known.text
        self._grid = grid
        self.lane_chunks = min(lane_chunks, max(n_chunks, 1))
        self._lanes = new_lanes(origins[:: self.lane_chunks])
        self._texts = np.zeros(n_chunks * chunk_size, np.uint8)
        self._chunks = np.zeros((n_chunks, CHUNK_FIELDS), np.int64)
        self.spent = np.zeros(SPENT_FIELDS, np.int64)  # decisions, guesses, right guesses
        self._scratch = (
            np.zeros(2 * (N_RECORDS + N_TREES), np.uint64),  # keys of the contexts, of two lanes
            np.zeros((WORK_ROWS, WORK_WIDTH), np.int64),
            np.zeros(N_INPUTS, np.int32),
            np.arange(size + 1, dtype=np.int64),  # sums of counts; all are 1 without a network
        )
        self._places = np.arange(n_chunks + 1)
        self._full = np.full(n_chunks, chunk_size, np.int64)
        self._no_gaps = np.zeros((0, size), np.uint16)
        self._stream = np.frombuffer(stream or b"", np.uint8).copy()
        self._coder = new_decoder(self._stream) if self._decoding else new_encoder()

    def step(
        self, rows: np.ndarray, gaps: np.ndarray | None, ranks: np.ndarray | None = None
    ) -> np.ndarray:
        """Code one symbol of each of the chunks `rows`, int64 (R,), ascending.

        gaps: uint16 (R, V), by place in `Vocabulary.symbols`, or None. ranks: int64 (R,), what to
        encode. Returns the ranks. Raises CorruptArchive for a symbol that goes beyond its chunk.
        """
        n = len(rows)
        if ranks is None:
            ranks = np.zeros(n, np.int64)
        at = self._places[:n].copy()
        ends, full = self._places[1 : n + 1], self._full[:n]
        self._code(rows, full, at, ends, ranks, self._no_gaps if gaps is None else gaps)
        return ranks

    def encode_lines(
        self, rows: np.ndarray, ranks: np.ndarray, counts: np.ndarray, gaps: np.ndarray
    ) -> None:
        """Encode several symbols of the chunks `rows`, int64 (R,), ascending, one of each in turn.

        ranks: int64 (R, T); counts: int64 (R,), how many of a line are there; gaps: uint16
        (R, T, V).
        """
        n, t = ranks.shape
        at = np.arange(n) * t
        full, lines = self._full[:n], gaps.reshape(n * t, gaps.shape[2])
        self._code(rows, full, at, at + counts, ranks.reshape(-1), lines)

    def encode(
        self,
        rows: np.ndarray,
        ranks: np.ndarray,
        counts: np.ndarray,
        costs: np.ndarray = NO_COSTS,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Encode the chunks `rows` without a network, one symbol of each in turn.

        ranks: int64, counts[r] of row r, one row after the other; costs: float32, filled with the
        bits of each. check: called several times a second, and may raise.
        """
        last = np.cumsum(counts)
        at, full = last - counts, np.full(len(rows), self._room, np.int64)
        while (at < last).any():
            check()
            ends = np.minimum(at + self._at_a_time(rows), last)
            self._code(rows, full, at, ends, ranks, self._no_gaps, costs)

    def decode(
        self, rows: np.ndarray, sizes: np.ndarray, check: Callable[[], None] = lambda: None
    ) -> None:
        """Decode the chunks `rows` without a network, until row r holds sizes[r] bytes.

        check: as for `encode`. Raises CorruptArchive for a symbol that goes beyond its chunk.
        """
        n = self._at_a_time(rows)
        ranks = np.zeros(len(rows) * n, np.int64)
        while (self._chunks[rows, CHUNK_BYTES] < sizes).any():
            check()
            at = np.arange(len(rows)) * n
            self._code(rows, sizes, at, at + n, ranks, self._no_gaps)

    def _at_a_time(self, rows: np.ndarray) -> int:
        """Symbols of each row in one call of the kernel, which nothing interrupts."""
        return min(max(1, _CALL_SYMBOLS // max(len(rows), 1)), self._room)

    def _code(
        self,
        rows: np.ndarray,
        sizes: np.ndarray,
        at: np.ndarray,
        ends: np.ndarray,
        ranks: np.ndarray,
        gaps: np.ndarray,
        costs: np.ndarray = NO_COSTS,
    ) -> None:
        if not self._decoding:
            self._make_room(int((ends - at).sum()))
        arguments = (*self.arguments, gaps, self.counts, rows, sizes, at, ends, ranks, costs)
        bad = code_rows(*arguments)
        if bad >= 0:
            raise CorruptArchive(f"chunk {rows[bad]}: {self.problem}")

    @property
    def kernel(self) -> Any:
        """What codes: takes `arguments`, then what is said of the symbols, and `tail`."""
        return code_rows

    @property
    def tail(self) -> tuple[np.ndarray]:
        """The last argument of `code_rows`: costs that nobody wants."""
        return (NO_COSTS,)

    @property
    def problem(self) -> str:
        """Why the kernel has given up."""
        return TOO_LONG

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The first ones of `code_rows`, up to `decoding`."""
        memory, order = self._memory, self._symbols
        return (
            tables(), memory.trees, memory.records, memory.maps, memory.weights, memory.heads,
            *self._scratch, self.spent, self._lanes, self.lane_chunks, *self._grid, self._chunks,
            self.known_text, self._texts, self._start, self._room, order.strings, order.lengths,
            order.place, self._coder, self._stream, self._decoding,
        )  # fmt: skip

    def _make_room(self, n: int) -> None:
        position = int(self._coder[POSITION] + self._coder[PENDING])
        needed = position + n * _BYTES_PER_SYMBOL + _FLUSH_BYTES
        if needed > self._stream.size:
            grown = np.zeros(2 * needed, np.uint8)
            grown[:position] = self._stream[:position]
            self._stream = grown

    def finish(self) -> bytes:
        """The coded bytes of an encoder."""
        self._make_room(0)
        return self._stream[: finish(self._coder, self._stream)].tobytes()

    @property
    def is_spent(self) -> bool:
        """Whether a decoder's symbols have needed all bytes of its stream."""
        return self._stream.size <= int(self._coder[POSITION])

    def fill(self) -> np.ndarray:
        """int64 (B,): bytes of each chunk so far."""
        return self._chunks[:, CHUNK_BYTES]

    def text(self) -> bytes:
        """The bytes of all chunks so far; they must have been coded as far as they go."""
        width = self.lane_chunks * self._room
        fill = self._lanes[:, FILL].tolist()
        return b"".join(
            self._texts[i * width : i * width + n].tobytes() for i, n in enumerate(fill)
        )

    def after(self) -> Known:
        """What later groups may know once this one has ended."""
        return Known(self._memory, self.known_text)
