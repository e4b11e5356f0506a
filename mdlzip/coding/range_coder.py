"""Symbols of a unit under the network's counts alone: the protocol of the paper.

Sole importer of constriction, whose streams these are, bit for bit.

One range-coder stream per unit, in whose order and arithmetic docs/format-data.md is normative.
Symbols are numbered 0..V-1, 2 <= V <= 2304: ranks in the network's vocabulary, not byte values.
Words are stored big-endian without trailing zero bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdlzip.coding.range_kernel import (
    LOWER,
    POINT,
    RANGE,
    REFUSED,
    STATE_FIELDS,
    WORD_BITS,
    WORDS,
    carry,
    code_lines,
    work_shape,
)
from mdlzip.errors import CorruptArchive

_WORD_BYTES = WORD_BITS // 8
_WORD = (1 << WORD_BITS) - 1
_SPENT = (1 << (WORD_BITS + 1)) - 1
_SPARE_WORDS = 64
TOO_LONG = "a symbol goes beyond its chunk"


class RangeCoder:
    """Codes the chunks of one unit; `stream` None for an encoder. Not for several threads at once.

    strings: uint8 (V, longest), lengths: int32 (V,), of the symbols by rank; counts: int32, logit
    gap -> count. Raises CorruptArchive.
    """

    def __init__(
        self,
        strings: np.ndarray,
        lengths: np.ndarray,
        counts: np.ndarray,
        n_chunks: int,
        chunk_size: int,
        stream: bytes | bytearray | None = None,
    ) -> None:
        self.counts, self._strings, self._lengths = counts, strings, lengths
        self._decoding, self._room = stream is not None, chunk_size
        if stream and not stream[-1]:
            raise CorruptArchive("coded group: ends in a zero byte, which is never written")
        padded = bytes(stream or b"") + bytes(-len(stream or b"") % _WORD_BYTES)
        self._words = np.frombuffer(padded, ">u4").astype(np.uint32)
        self._state = np.zeros(STATE_FIELDS, np.uint64)
        self._state[RANGE] = (1 << 2 * WORD_BITS) - 1
        if self._decoding:
            first, second = [*self._words[:2].tolist(), 0, 0][:2]
            self._state[POINT], self._state[WORDS] = first << WORD_BITS | second, 2
        self._fill = np.zeros(n_chunks, np.int64)
        self._texts = np.zeros((n_chunks if self._decoding else 0, chunk_size), np.uint8)
        self._work = np.empty(work_shape(len(lengths)), np.int64)

    def step(
        self, rows: np.ndarray, gaps: np.ndarray | None, ranks: np.ndarray | None = None
    ) -> np.ndarray:
        """Code one symbol of each of the chunks `rows`, int64 (R,), ascending.

        gaps: uint16 (R, V). ranks: int64 (R,), what to encode. Returns the ranks. Raises
        CorruptArchive for a stream that no encoder writes, or a symbol that goes beyond its chunk.
        """
        assert gaps is not None, "there are no counts without a network"
        if ranks is None:
            ranks = np.zeros(len(rows), np.int64)
        at = np.arange(len(rows))
        self._code(rows, at, at + 1, ranks, np.ascontiguousarray(gaps))
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
        self._code(rows, at, at + counts, ranks.reshape(-1), gaps.reshape(n * t, gaps.shape[2]))

    def _code(
        self,
        rows: np.ndarray,
        at: np.ndarray,
        ends: np.ndarray,
        ranks: np.ndarray,
        gaps: np.ndarray,
    ) -> None:
        if not self._decoding:
            self._make_room(int((ends - at).sum()))
        sizes = np.full(len(rows), self._room)
        bad = self.kernel(*self.arguments, gaps, self.counts, rows, sizes, at, ends, ranks)
        if bad >= 0:
            raise CorruptArchive(f"chunk {rows[bad]}: {self.problem}")

    @property
    def kernel(self) -> Any:
        """What codes: takes `arguments`, then what is said of the symbols, and `tail`."""
        return code_lines

    @property
    def tail(self) -> tuple[()]:
        """The last arguments of `code_lines`."""
        return ()

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The first ones of `code_lines`, up to `work`."""
        return (
            self._state, self._words, self._decoding, self._fill, self._texts, self._room,
            self._strings, self._lengths, self._work,
        )  # fmt: skip

    @property
    def problem(self) -> str:
        """Why the kernel has given up."""
        return "the coded data are no encoder's" if self._state[REFUSED] else TOO_LONG

    def _make_room(self, n: int) -> None:
        """For n more symbols: none takes more than a word."""
        needed = int(self._state[WORDS]) + n + 1
        if needed > len(self._words):
            grown = np.zeros(2 * needed + _SPARE_WORDS, np.uint32)
            grown[: len(self._words)] = self._words
            self._words = grown

    def finish(self) -> bytes:
        """All bytes of an encoder's stream."""
        self._make_room(0)
        n, last = int(self._state[WORDS]), int(self._state[LOWER]) + _WORD
        if last >> 2 * WORD_BITS:
            carry(self._words, n)
        self._words[n] = last >> WORD_BITS & _WORD
        return self._words[: n + 1].astype(">u4").tobytes().rstrip(b"\0")

    @property
    def is_spent(self) -> bool:
        """Whether the stream ends where the encoder's would after the symbols decoded so far.

        False if words are left that no symbol needed, or if the last ones are no encoder's.
        """
        left = (int(self._state[POINT]) - int(self._state[LOWER])) % (1 << 2 * WORD_BITS)
        return int(self._state[WORDS]) > len(self._words) and left < _SPENT

    def fill(self) -> np.ndarray:
        """int64 (B,): bytes of each chunk so far."""
        return self._fill

    def text(self) -> bytes:
        """The bytes of all chunks that a decoder has so far."""
        return b"".join(
            row[:n].tobytes() for row, n in zip(self._texts, self._fill.tolist(), strict=True)
        )


def constricted(ranks: np.ndarray, counts: np.ndarray) -> bytes:
    """What constriction makes of symbols (n,) under counts (n, V): the yardstick of this coder."""
    import constriction

    model = constriction.stream.model.Categorical(perfect=False)
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(ranks.astype(np.int32), model, counts.astype(np.float64))
    return bytes(coder.get_compressed().astype(">u4").tobytes().rstrip(b"\0"))
