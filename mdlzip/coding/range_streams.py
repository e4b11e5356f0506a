"""Many short streams of the range coder side by side, each as short as it can be.

The arithmetic is that of `range_coder`; only both ends of a stream differ. A unit of an archive
ends with a whole word, a record with the fewest bytes that tell it from all others; and the first
byte of a record's stream is never 255, so that who stores it may use that for something else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlzip.coding.range_kernel import (
    LOWER,
    POINT,
    RANGE,
    STATE_FIELDS,
    WORD_BITS,
    WORDS,
    carry,
    code_streams,
    work_shape,
)
from mdlzip.errors import CorruptArchive

_STATE_BITS = 2 * WORD_BITS
_STATE_BYTES = _STATE_BITS // 8
_WORD_BYTES = WORD_BITS // 8
_FIRST_RANGE = 255 << (_STATE_BITS - 8)
_SPARE_WORDS = 2  # of an encoder, beside one for each symbol


class RangeStreams:
    """Encodes or decodes B streams under the network's counts. Not for several threads at once.

    counts: int32, logit gap -> count; n_symbols: V. Symbols are ranks, 0 .. V - 1. edges: int64
    (B + 1,), where in `words` each stream begins.
    """

    def __init__(
        self, counts: np.ndarray, n_symbols: int, words: np.ndarray, edges: np.ndarray
    ) -> None:
        self._counts, self._words, self._edges = counts, words, edges
        self._states = np.zeros((len(edges) - 1, STATE_FIELDS), np.uint64)
        self._states[:, RANGE] = _FIRST_RANGE
        self._work = np.empty(work_shape(n_symbols), np.int64)
        self._decoding = False

    @classmethod
    def encoder(cls, counts: np.ndarray, n_symbols: int, lengths: np.ndarray) -> RangeStreams:
        """For streams of so many symbols each, int64 (B,)."""
        edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths + _SPARE_WORDS)])
        return cls(counts, n_symbols, np.zeros(edges[-1], np.uint32), edges)

    @classmethod
    def decoder(
        cls, counts: np.ndarray, n_symbols: int, streams: Sequence[bytes | memoryview]
    ) -> RangeStreams:
        """For what `finish` of an encoder gave."""
        sizes = np.array([max(-(-len(s) // _WORD_BYTES), 2) for s in streams], np.int64)
        edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        padded = b"".join(
            bytes(s).ljust(n * _WORD_BYTES, b"\0")
            for s, n in zip(streams, sizes.tolist(), strict=True)
        )
        words = np.frombuffer(padded, ">u4").astype(np.uint32)
        coder = cls(counts, n_symbols, words, edges)
        first, second = (words[edges[:-1] + i].astype(np.uint64) for i in range(2))
        coder._states[:, POINT] = first << np.uint64(WORD_BITS) | second
        coder._states[:, WORDS] = 2
        coder._decoding = True
        return coder

    def encode_lines(
        self, rows: np.ndarray, ranks: np.ndarray, counts: np.ndarray, gaps: np.ndarray
    ) -> None:
        """Encode the next symbols of the streams `rows`, int64 (R,).

        ranks: int64 (R, T); counts: int64 (R,), how many of a line are there; gaps: uint16
        (R, T, V).
        """
        self._code(rows, counts, ranks, gaps)

    def decode(self, rows: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """The next symbol of each of the streams `rows`, int64 (R,); gaps: uint16 (R, V).

        Raises CorruptArchive for a stream that no encoder writes.
        """
        ranks = np.empty((len(rows), 1), np.int64)
        self._code(rows, np.ones(len(rows), np.int64), ranks, gaps[:, None])
        return ranks[:, 0]

    def _code(
        self, rows: np.ndarray, lengths: np.ndarray, ranks: np.ndarray, gaps: np.ndarray
    ) -> None:
        bad = code_streams(
            self._states,
            self._words,
            self._edges,
            self._decoding,
            self._work,
            np.ascontiguousarray(gaps),
            self._counts,
            rows,
            lengths,
            ranks,
        )
        if bad >= 0:
            raise CorruptArchive(f"record {rows[bad]}: the coded data are no encoder's")

    def finish(self) -> list[bytes]:
        """The streams of an encoder: the shortest that decode to the symbols, zeros behind them.

        A decoder takes bytes of zero behind the last one, so none ends in one.
        """
        return [self._finished(b) for b in range(len(self._states))]

    def _finished(self, b: int) -> bytes:
        start, state = int(self._edges[b]), self._states[b]
        n, lower, width = int(state[WORDS]), int(state[LOWER]), int(state[RANGE])
        own = self._words[start : start + n]
        for kept in range(_STATE_BYTES + 1):
            step = 1 << (_STATE_BITS - 8 * kept)
            point = -(-lower // step) * step
            if point < lower + width:
                break
        if point >> _STATE_BITS:
            carry(own, n)
            point -= 1 << _STATE_BITS
        tail = point.to_bytes(_STATE_BYTES, "big")
        return (own.astype(">u4").tobytes() + tail).rstrip(b"\0")
