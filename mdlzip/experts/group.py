"""A group of chunks through the experts: symbols and the network's logit gaps <-> bytes.

The order of coding is that of docs/format.md: position by position, and at each position chunk by
chunk. So one step codes one symbol of every chunk that has not ended, with what `gaps` the network
has for them. Groups know nothing of one another but the `Known` they start from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlzip.coding.binary_coder import PENDING, POSITION, finish, new_decoder, new_encoder
from mdlzip.errors import CorruptArchive, UsageError
from mdlzip.experts.kernel import SPENT_FIELDS, code_step
from mdlzip.experts.state import FILL, WORK_ROWS, WORK_WIDTH, Memory, Symbols, new_lanes
from mdlzip.experts.tables import N_INPUTS, N_RECORDS, N_TREES, tables
from mdlzip.limits import MAX_KNOWN_PLACES

_BYTES_PER_SYMBOL = 36  # 13 decisions of at most 18 bits, and what a flush needs
_FLUSH_BYTES = 64
_NO_COSTS = np.zeros(0, np.float32)


@dataclass
class Known:
    """What a group may use from the start: tables that have learned, and text they point into.

    memory: used up by the group that is coded with it (take `memory.copy()` for several); text:
    int16, ranks in rooms of chunk_size places, -1 behind the end of each chunk.
    """

    memory: Memory
    text: np.ndarray


class GroupCoder:
    """Codes one group, a step at a time; `stream` None for an encoder.

    counts: int32, logit gap -> count, the network's; a coder without a network gets no gaps and
    takes all counts as 1. Not for several threads at once. Raises CorruptArchive, or UsageError for
    an encoder, if that makes more known text than places can be numbered.
    """

    def __init__(
        self,
        symbols: Symbols,
        counts: np.ndarray,
        known: Known,
        n_chunks: int,
        chunk_size: int,
        stream: bytes | None = None,
    ) -> None:
        size = len(symbols.place)
        self._symbols, self._counts, self._memory = symbols, counts, known.memory
        self._start = len(known.text)
        self._decoding = stream is not None
        places = self._start + n_chunks * chunk_size
        if places >= MAX_KNOWN_PLACES:
            wrong = CorruptArchive if self._decoding else UsageError
            raise wrong(f"known text of {places} places: must be fewer than {MAX_KNOWN_PLACES}")
        self.known_text = np.full(places, -1, np.int16)
        self.known_text[: self._start] = known.text
        self._lanes = new_lanes(n_chunks)
        self.texts = np.zeros((n_chunks, chunk_size), np.uint8)
        self.spent = np.zeros(SPENT_FIELDS, np.int64)  # decisions, guesses, right guesses
        self._scratch = (
            np.zeros(N_RECORDS + N_TREES, np.uint64),  # keys of the contexts
            np.zeros((WORK_ROWS, WORK_WIDTH), np.int64),
            np.zeros(N_INPUTS, np.int32),
            np.arange(size + 1, dtype=np.int64),  # sums of counts; all are 1 without a network
        )
        self._no_gaps = np.zeros((0, size), np.uint16)
        self._stream = np.frombuffer(stream or b"", np.uint8).copy()
        self._coder = new_decoder(self._stream) if self._decoding else new_encoder()

    def step(
        self,
        rows: np.ndarray,
        gaps: np.ndarray | None,
        ranks: np.ndarray | None = None,
        costs: np.ndarray = _NO_COSTS,
    ) -> np.ndarray:
        """Code one symbol of each of the chunks `rows`, int64 (R,), ascending.

        gaps: uint16 (R, V), by place in `Vocabulary.symbols`, or None. ranks: int64 (R,), what to
        encode; costs: float32 (R,), filled with the bits of each. Returns the ranks. Raises
        CorruptArchive for a symbol that goes beyond its chunk.
        """
        if self._decoding:
            ranks = np.zeros(len(rows), np.int64)
        else:
            assert ranks is not None
            self._make_room(len(rows))
        memory, order = self._memory, self._symbols
        bad = code_step(
            tables(), memory.trees, memory.records, memory.maps, memory.weights, memory.heads,
            *self._scratch, self.spent, self._lanes, self.known_text, self.texts, self._start,
            order.strings, order.lengths, order.place, self._coder, self._stream, self._decoding,
            self._no_gaps if gaps is None else gaps, self._counts, rows, ranks, costs,
        )  # fmt: skip
        if bad >= 0:
            raise CorruptArchive(f"chunk {rows[bad]}: a symbol goes beyond its chunk")
        return ranks

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
    def unread_bytes(self) -> int:
        """Bytes of a decoder's stream that no symbol needed."""
        return max(self._stream.size - int(self._coder[POSITION]), 0)

    def fill(self) -> np.ndarray:
        """int64 (B,): bytes of each chunk so far."""
        return self._lanes[:, FILL]

    def after(self) -> Known:
        """What later groups may know once this one has ended."""
        return Known(self._memory, self.known_text)
