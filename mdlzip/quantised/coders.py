"""What stands between logit gaps and the bytes of a unit: the range coder, or the experts.

Both code, position by position, one symbol of every chunk that has not ended. Symbols are given
and returned as places in `Vocabulary.symbols`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from mdlzip.coding.range_coder import Decoder, Encoder
from mdlzip.errors import CorruptArchive
from mdlzip.experts.group import GroupCoder, Known
from mdlzip.experts.state import Memory, Symbols
from mdlzip.quantised.prepared import count_table
from mdlzip.symbols.context import CHUNK, Context
from mdlzip.symbols.vocabulary import Vocabulary

Check: TypeAlias = Callable[[], None]
Gaps: TypeAlias = np.ndarray | None
"""uint16 (B, T, V) from a predictor; None without a network."""


class Look(NamedTuple):
    """Gaps at position t of `gaps`, for its lines `rows` (n,), int64."""

    gaps: Gaps
    t: int
    rows: np.ndarray

    def counts(self) -> np.ndarray:
        """Counts, float64 (n, V), of whole numbers."""
        from mdlzip.quantised.kernels_cpu import take_counts

        assert self.gaps is not None
        out = np.empty((len(self.rows), self.gaps.shape[2]))
        take_counts(self.gaps, count_table(), self.t, self.rows, out)
        return out

    def values(self) -> np.ndarray | None:
        """The gaps themselves, uint16 (n, V)."""
        if self.gaps is None:
            return None
        return self.gaps[:, self.t] if len(self.rows) == len(self.gaps) else self._some()

    def _some(self) -> np.ndarray:
        assert self.gaps is not None
        return self.gaps[self.rows, self.t]


def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Places start, start + 1 ... of counts[i] each, one run after the other; int64."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)


class UnitCoder(Protocol):
    """Codes the symbols of one unit; encoder or decoder."""

    def encode(self, chunks: np.ndarray, look: Look, places: np.ndarray) -> None:
        """Code the next symbol of `chunks`, int64 (n,), ascending: places, int32 (n,)."""

    def decode(self, chunks: np.ndarray, look: Look) -> np.ndarray:
        """The places of the next symbol of `chunks`."""

    def finish(self) -> bytes:
        """The stream of an encoder."""

    @property
    def is_spent(self) -> bool:
        """Whether a decoder's stream ends where its symbols do."""


class Strict:
    """The range coder over the network's counts alone: the protocol of the paper."""

    def __init__(self, stream: bytes | bytearray | None = None) -> None:
        self._coder: Any = Encoder() if stream is None else Decoder(stream)

    def encode(self, chunks: np.ndarray, look: Look, places: np.ndarray) -> None:
        """See `UnitCoder`."""
        self._coder.encode(places, look.counts())

    def decode(self, chunks: np.ndarray, look: Look) -> np.ndarray:
        """See `UnitCoder`."""
        return self._coder.decode(look.counts())

    def finish(self) -> bytes:
        """See `UnitCoder`."""
        return self._coder.finish()

    @property
    def is_spent(self) -> bool:
        """See `UnitCoder`."""
        return self._coder.is_spent


class Experts:
    """The experts, with the network as one of them."""

    def __init__(self, group: GroupCoder, symbols: Symbols) -> None:
        self.group, self.symbols = group, symbols

    def encode(self, chunks: np.ndarray, look: Look, places: np.ndarray) -> None:
        """See `UnitCoder`."""
        self.group.step(chunks, look.values(), self.symbols.rank_of_place[places])

    def decode(self, chunks: np.ndarray, look: Look) -> np.ndarray:
        """See `UnitCoder`."""
        return self.symbols.place[self.group.step(chunks, look.values())]

    def encode_alone(
        self, chunks: np.ndarray, places: np.ndarray, counts: np.ndarray, check: Check
    ) -> None:
        """All symbols of the chunks of a round, without a network; places: chunk by chunk."""
        self.group.encode(chunks, self.symbols.rank_of_place[places], counts, check=check)

    def decode_alone(self, chunks: np.ndarray, sizes: np.ndarray, check: Check) -> None:
        """All symbols of the chunks of a round, without a network."""
        self.group.decode(chunks, sizes, check)

    def finish(self) -> bytes:
        """See `UnitCoder`."""
        return self.group.finish()

    @property
    def is_spent(self) -> bool:
        """See `UnitCoder`."""
        return self.group.unread_bytes == 0


class Priced(Experts):
    """An encoder that notes what each symbol takes.

    bits: float32 (n,), in the order of the chunks; counts: int64 (B,), symbols of each chunk.
    """

    def __init__(self, coder: Experts, counts: np.ndarray) -> None:
        super().__init__(coder.group, coder.symbols)
        self.bits = np.zeros(int(counts.sum()), np.float32)
        self._ends = np.cumsum(counts)

    def encode_alone(
        self, chunks: np.ndarray, places: np.ndarray, counts: np.ndarray, check: Check
    ) -> None:
        """See `Experts`."""
        costs = np.empty(len(places), np.float32)
        self.group.encode(chunks, self.symbols.rank_of_place[places], counts, costs, check)
        self.bits[spread(self._ends[chunks] - counts, counts)] = costs


class Coders:
    """Makes the coders of an archive's units. `known` is what units may know from the start.

    With "reference" and "solid" whoever codes a unit that others know of puts it there.
    """

    def __init__(self, context: Context, vocabulary: Vocabulary, chunk_size: int) -> None:
        self.context, self._chunk_size = context, chunk_size
        self._symbols = Symbols.of(vocabulary) if context.mode != CHUNK else None
        self._counts = count_table().astype(np.int32)
        self.known: Known | None = None

    def new(
        self, origins: np.ndarray, stream: bytes | bytearray | None = None, *, last: bool = False
    ) -> UnitCoder:
        """A coder for a unit of so many chunks; `stream` None for an encoder.

        origins: see `GroupCoder`. last: what the units before it have learned is not needed again.
        """
        if self._symbols is None:
            return Strict(stream)
        if self.known is None:
            known = Known(Memory.fresh(*self.context.table_bits), np.zeros(0, np.int16))
        elif last:
            known = self.known
        else:
            known = Known(self.known.memory.copy(), self.known.text)
        data = None if stream is None else bytes(stream)
        if data and not data[-1]:
            raise CorruptArchive("coded unit: ends in a zero byte, which is never written")
        group = GroupCoder(
            self._symbols,
            self._counts,
            known,
            origins,
            self._chunk_size,
            data,
            lane_chunks=self.context.lane_chunks,
            grid=self.context.grid,
        )
        return Experts(group, self._symbols)
