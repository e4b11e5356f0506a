"""What a chunk may know beside its own past, and which groups are therefore coded together.

Groups that are coded in lockstep, as one stream, are a *unit*. Pure arithmetic, no data.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from mdlzip.limits import (
    MAX_ELEMENT_BYTES,
    MAX_GROUP_CHUNKS,
    MAX_ROW_BYTES,
    MAX_TABLE_BITS,
    MIN_TABLE_BITS,
)
from mdlzip.symbols.layout import Layout

CHUNK, GROUP, REFERENCE, SOLID = "chunk", "group", "reference", "solid"
MODES = (CHUNK, GROUP, REFERENCE, SOLID)  # place = number in the format


class Grid(NamedTuple):
    """Data of rows of equal length: tables of fixed width, images, samples.

    row_bytes: from a place to the one below it; 0 where the data are no grid. element_bytes: from
    an element to the one to its right; of two bytes, the first one is the lower.
    """

    row_bytes: int
    element_bytes: int = 1


NO_GRID = Grid(0)


@dataclass(frozen=True)
class Context:
    """What is known when a symbol is coded.

    mode: "chunk": the chunk's own past; "group": that of its group, too; "reference": the groups
    `references` (ascending numbers) as well; "solid": all groups before, in waves of so many
    groups each. table_bits: log2 of the experts' buckets, records and heads. lane_chunks: how many
    consecutive chunks of a unit one lane of the experts codes, one after the other. grid: see
    `Grid`. "chunk" uses none of these.
    """

    mode: str = CHUNK
    table_bits: tuple[int, int, int] = (MIN_TABLE_BITS,) * 3
    references: tuple[int, ...] = ()
    waves: tuple[int, ...] = ()
    lane_chunks: int = 1
    grid: Grid = NO_GRID

    @property
    def table_bytes(self) -> int:
        """Bytes of buckets, records and heads."""
        buckets, records, heads = self.table_bits
        return (32 << buckets) + (8 << records) + (8 << heads)

    def problem(self, layout: Layout) -> str | None:
        """Why this cannot be the context of a file that is cut like `layout`, or None."""
        if not all(MIN_TABLE_BITS <= bits <= MAX_TABLE_BITS for bits in self.table_bits):
            return f"tables of 2**{self.table_bits} entries are not allowed"
        if not 1 <= self.lane_chunks <= MAX_GROUP_CHUNKS:
            return f"lanes of {self.lane_chunks} chunks are not allowed"
        row, element = self.grid
        if not 0 <= row <= MAX_ROW_BYTES or not 1 <= element <= MAX_ELEMENT_BYTES:
            return f"a grid of {element}-byte elements in {row}-byte rows is not allowed"
        if self.mode == REFERENCE:
            steps = zip(self.references, self.references[1:], strict=False)
            if not self.references or any(a >= b for a, b in steps):
                return "the reference groups do not rise"
            if self.references[0] < 0 or self.references[-1] >= layout.n_groups:
                return f"a reference group is not one of {layout.n_groups}"
        if self.mode == SOLID and (min(self.waves, default=0) < 1):
            return "a wave is empty"
        if self.mode == SOLID and sum(self.waves) != layout.n_groups:
            return f"the waves have {sum(self.waves)} groups of {layout.n_groups}"
        return None


STRICT = Context()


class Units:
    """The units of a file in coding order, and the groups of each.

    "chunk", "group": every group is one. "reference": first the reference groups together, then
    every other group. "solid": the waves.
    """

    def __init__(self, layout: Layout, context: Context) -> None:
        self.layout, self.context = layout, context
        self._references = context.references
        self._before = [r - i for i, r in enumerate(self._references)]
        self._edges = [0, *accumulate(context.waves)]

    def __len__(self) -> int:
        if self.context.mode == REFERENCE:
            return 1 + self.layout.n_groups - len(self._references)
        return len(self._edges) - 1 if self.context.mode == SOLID else self.layout.n_groups

    def groups(self, unit: int) -> Sequence[int]:
        """Numbers of the groups of a unit, ascending."""
        if self.context.mode == SOLID:
            return range(*self._edges[unit : unit + 2])
        if self.context.mode == REFERENCE:
            if unit == 0:
                return self._references
            unit += bisect_right(self._before, unit - 1) - 1
        return range(unit, unit + 1)

    def unit_of(self, group: int) -> int:
        """The unit that `group` belongs to."""
        if self.context.mode == SOLID:
            return bisect_right(self._edges, group) - 1
        if self.context.mode == REFERENCE:
            place = bisect_right(self._references, group)
            return 0 if place and self._references[place - 1] == group else 1 + group - place
        return group

    def n_bytes(self, unit: int) -> int:
        """Bytes of the file in a unit."""
        spans = map(self.layout.group_span, self.groups(unit))
        return sum(stop - start for start, stop in spans)

    def most_bytes(self) -> int:
        """Bytes of the largest unit."""
        group = min(self.layout.group_bytes, self.layout.total_bytes)
        most = {REFERENCE: len(self._references), SOLID: max(self.context.waves, default=0)}
        return min(group * most.get(self.context.mode, 1), self.layout.total_bytes)

    def most_rounds(self) -> int:
        """Most chunks that follow one another in a lane."""
        chunks = -(-self.most_bytes() // self.layout.chunk_size)
        return max(1, min(self.context.lane_chunks, chunks))

    def known_bytes(self) -> int:
        """Bytes of the text that is known, at most, before a unit begins."""
        if self.context.mode == REFERENCE:
            return self.n_bytes(0)
        return self.layout.total_bytes if self.context.mode == SOLID else 0
