"""What followed the last time the same few symbols stood in this chunk: a guess for the next.

The network sees a window of a chunk and forgets exact words; names, numbers and tags come back
word by word. The guess costs no weights, and the network learns how far to trust it. Everything
here is integer arithmetic and normative: docs/format-predictor.md, "Matches".

Shapes: B chunks, T positions.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mdlzip.process.kernels import compiled

MAX_LENGTH = 31
N_LENGTHS = MAX_LENGTH + 1
NO_MATCH = -1
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def table_bits(chunk_size: int) -> int:
    """log2 of the hash table's size: the first power of two that is twice the chunk or more."""
    return (2 * chunk_size - 1).bit_length()


def state_bytes(chunk_size: int, positions: int) -> int:
    """Memory of one chunk's matcher."""
    return 2 * positions + 2 * (1 << table_bits(chunk_size)) + 8


class Matcher:
    """The guesses for a batch of chunks, from their beginning, any number of positions at a time.

    least: symbols that must agree before a guess is made, 2..8. positions: symbols of the longest
    chunk; chunk_size unless the data are shorter.
    """

    def __init__(
        self, batch: int, chunk_size: int, least: int, positions: int | None = None
    ) -> None:
        self.least = least
        self.position = 0
        self._history = np.zeros((batch, positions or chunk_size), np.int16)
        self._table = np.zeros((batch, 1 << table_bits(chunk_size)), np.uint16)
        self._state = np.full((batch, 2), (NO_MATCH, 0), np.int32)

    def narrow(self, rows: np.ndarray) -> None:
        """Go on with the chunks `rows` (boolean (B,)) alone."""
        self._history = self._history[rows]
        self._table = self._table[rows]
        self._state = self._state[rows]

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `advance_kernel` reads and writes: symbols so far, hash table, guess at hand."""
        return self._history, self._table, self._state

    def advance(self, previous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Guesses for the next T positions.

        previous: int16 (B, T), the symbol before each position (anything at position 0). Returns
        (symbols int16 (B, T), NO_MATCH where there is none; lengths uint8 (B, T), 0 there, else how
        many symbols before agree, at most MAX_LENGTH).
        """
        symbols = np.empty(previous.shape, np.int16)
        lengths = np.empty(previous.shape, np.uint8)
        advance_kernel()(previous, self.position, self.least, *self.arrays, symbols, lengths)
        self.position += previous.shape[1]
        return symbols, lengths


@cache
def advance_kernel() -> Any:
    """The compiled loop of `Matcher.advance`."""
    return compiled()(_advance)


def _advance(previous, start, least, history, table, state, symbols, lengths):  # type: ignore[no-untyped-def]
    shift = np.uint64(64)
    size = table.shape[1]
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    for b in range(previous.shape[0]):
        seen, last = history[b], table[b]
        pointer, length = np.int64(state[b, 0]), np.int64(state[b, 1])
        for j in range(previous.shape[1]):
            t = start + j
            if t > 0:
                seen[t - 1] = previous[b, j]
                if pointer >= 0:
                    if seen[pointer] == seen[t - 1]:
                        pointer += 1
                        length += length < MAX_LENGTH
                    else:
                        pointer, length = np.int64(NO_MATCH), np.int64(0)
                if t >= least:
                    key = np.uint64(0)
                    for i in range(t - 1, t - 1 - least, -1):
                        key = (key << np.uint64(12)) ^ np.uint64(seen[i])
                    slot = np.int64((key * _MULTIPLIER) >> shift)
                    candidate = np.int64(last[slot])
                    last[slot] = t
                    if pointer < 0 and candidate > 0:
                        n, most = np.int64(0), np.int64(MAX_LENGTH)
                        most = candidate if candidate < most else most
                        while n < most and (seen[candidate - 1 - n] == seen[t - 1 - n]):
                            n += 1
                        if n >= least:
                            pointer, length = candidate, n
            symbols[b, j] = seen[pointer] if pointer >= 0 else np.int16(NO_MATCH)
            lengths[b, j] = np.uint8(length)
        state[b, 0], state[b, 1] = np.int32(pointer), np.int32(length)
