"""What stands between logit gaps and the bytes of a unit: the range coder, or the experts.

Both code, position by position, one symbol of every chunk that has not ended. Symbols are given
and returned as places in `Vocabulary.symbols`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from mdlzip.coding.range_coder import RangeCoder
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


Group: TypeAlias = RangeCoder | GroupCoder
"""What codes the symbols of one unit. kernel, arguments, counts, tail, problem: for who calls the
compiled code itself."""


class UnitCoder:
    """Codes the symbols of one unit; encoder or decoder.

    place: int32 (V,), rank of a symbol in the order of the group -> place in `Vocabulary.symbols`;
    rank: int64 (V,), the inverse.
    """

    def __init__(self, group: Group, place: np.ndarray, rank: np.ndarray) -> None:
        self.group, self.place, self.rank = group, place, rank

    def encode(self, chunks: np.ndarray, look: Look, places: np.ndarray) -> None:
        """Code the next symbol of `chunks`, int64 (n,), ascending: places, int32 (n,)."""
        self.group.step(chunks, look.values(), self.rank[places])

    def decode(self, chunks: np.ndarray, look: Look) -> np.ndarray:
        """The places of the next symbol of `chunks`."""
        return self.place[self.group.step(chunks, look.values())]

    def finish(self) -> bytes:
        """The stream of an encoder."""
        return self.group.finish()

    @property
    def is_spent(self) -> bool:
        """Whether a decoder's stream ends where its symbols do."""
        return self.group.is_spent


class Strict(UnitCoder):
    """The range coder over the network's counts alone: the protocol of the paper."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        n_chunks: int,
        chunk_size: int,
        stream: bytes | bytearray | None = None,
    ) -> None:
        used, counts = vocabulary.symbols, count_table().astype(np.int32)
        strings = np.ascontiguousarray(vocabulary.strings[used])
        lengths = vocabulary.lengths[used]
        group = RangeCoder(strings, lengths, counts, n_chunks, chunk_size, stream)
        same = np.arange(len(used))
        super().__init__(group, same.astype(np.int32), same)


class Experts(UnitCoder):
    """The experts, with the network as one of them."""

    def __init__(self, group: GroupCoder, symbols: Symbols) -> None:
        super().__init__(group, symbols.place, symbols.rank_of_place)
        self.experts, self.symbols = group, symbols

    def encode_alone(
        self, chunks: np.ndarray, places: np.ndarray, counts: np.ndarray, check: Check
    ) -> None:
        """All symbols of the chunks of a round, without a network; places: chunk by chunk."""
        self.experts.encode(chunks, self.rank[places], counts, check=check)

    def decode_alone(self, chunks: np.ndarray, sizes: np.ndarray, check: Check) -> None:
        """All symbols of the chunks of a round, without a network."""
        self.experts.decode(chunks, sizes, check)


class Priced(Experts):
    """An encoder that notes what each symbol takes.

    bits: float32 (n,), in the order of the chunks; counts: int64 (B,), symbols of each chunk.
    """

    def __init__(self, coder: Experts, counts: np.ndarray) -> None:
        super().__init__(coder.experts, coder.symbols)
        self.bits = np.zeros(int(counts.sum()), np.float32)
        self._ends = np.cumsum(counts)

    def encode_alone(
        self, chunks: np.ndarray, places: np.ndarray, counts: np.ndarray, check: Check
    ) -> None:
        """See `Experts`."""
        costs = np.empty(len(places), np.float32)
        self.experts.encode(chunks, self.rank[places], counts, costs, check)
        self.bits[spread(self._ends[chunks] - counts, counts)] = costs


class Coders:
    """Makes the coders of an archive's units. `known` is what units may know from the start.

    With "reference" and "solid" whoever codes a unit that others know of puts it there.
    """

    def __init__(self, context: Context, vocabulary: Vocabulary, chunk_size: int) -> None:
        self.context, self._chunk_size, self._vocabulary = context, chunk_size, vocabulary
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
            return Strict(self._vocabulary, len(origins), self._chunk_size, stream)
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
