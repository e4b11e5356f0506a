"""Chunks that go through the predictor together, and their symbols through the coders.

A tile may hold several small units, each with a coder of its own, or a part of a large one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlzip.errors import CorruptArchive
from mdlzip.quantised.coders import Gaps, Look, UnitCoder
from mdlzip.quantised.predictor import Predictor
from mdlzip.symbols.vocabulary import START_SYMBOL, Vocabulary

LEAST_FILL = 0.75  # share of unfinished chunks below which the others leave the batch


@dataclass
class Segment:
    """Consecutive chunks of one unit; name: what errors call it.

    chunks: int64 (n,), their numbers in the unit; sizes: int64 (n,), bytes that each holds at
    least.
    """

    name: str
    coder: UnitCoder
    chunks: np.ndarray
    sizes: np.ndarray


class DecodeTile:
    """Decodes a symbol of every unfinished chunk at each `look` and `code`.

    room: bytes of the longest chunk. out: uint8 (B, room); fill: int64 (B,), bytes so far; B chunks
    of all segments.
    """

    def __init__(
        self,
        predictor: Predictor,
        vocabulary: Vocabulary,
        room: int,
        segments: list[Segment],
    ) -> None:
        self._predictor, self._vocabulary, self._segments = predictor, vocabulary, segments
        self.edges = np.cumsum([0, *(len(s.chunks) for s in segments)])
        self._sizes = np.concatenate([s.sizes for s in segments])
        n = len(self._sizes)
        self.out, self.fill = np.zeros((n, room), np.uint8), np.zeros(n, np.int64)
        self._lines = np.arange(n)  # the chunk of each line of the state
        self._previous = np.full((n, 1), START_SYMBOL, np.int16)
        self._state = predictor.new_state(n)
        self._gaps: Gaps = None
        self._unfinished = self._sizes > 0

    @property
    def is_done(self) -> bool:
        """Whether all chunks are full."""
        return not self._unfinished.any()

    def look(self) -> None:
        """Predict the next symbol of every chunk; may run while other tiles code."""
        if np.count_nonzero(self._unfinished) < LEAST_FILL * len(self._lines):
            self._predictor.narrow(self._state, self._unfinished)
            self._lines = self._lines[self._unfinished]
            self._previous = self._previous[self._unfinished]
            self._unfinished = np.ones(len(self._lines), bool)
        self._gaps = self._predictor.forward(self._previous, self._state)

    def code(self) -> None:
        """Decode them. Raises CorruptArchive."""
        edges = np.searchsorted(self._lines, self.edges)
        for i, segment in enumerate(self._segments):
            rows = edges[i] + np.flatnonzero(self._unfinished[edges[i] : edges[i + 1]])
            if not len(rows):
                continue
            lines = self._lines[rows]
            chunks = segment.chunks[lines - self.edges[i]]
            places = segment.coder.decode(chunks, Look(self._gaps, 0, rows))
            new = self._vocabulary.symbols[places]
            if not self._vocabulary.append(self.out, self.fill, lines, new):
                raise CorruptArchive(f"{segment.name}: a symbol goes beyond its chunk")
            self._previous[rows, 0] = new
        self._unfinished = self.fill[self._lines] < self._sizes[self._lines]
