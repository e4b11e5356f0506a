"""Bits of a group: symbols and integer counts -> bytes, and back. Sole importer of constriction.

One range-coder stream per group. Counts reach the coder as float64 (pinned: the same values as
float32 would give another stream) through `Categorical(perfect=False)`; all are integers >= 1 with
sums below 2**53, so float64 carries them unrounded and one fixed recipe of IEEE operations follows.
Symbols are numbered 0..V-1, 2 <= V <= 2304: ranks in the network's vocabulary, not byte values.
Words are stored big-endian without trailing zero bytes. docs/format-data.md writes the arithmetic
out; a test compares it with constriction's.
"""

from __future__ import annotations

import constriction
import numpy as np

from mdlzip.errors import CorruptArchive

_WORD_BYTES = 4
_MODEL = constriction.stream.model.Categorical(perfect=False)


class Encoder:
    """Range encoder of one group."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: np.ndarray, counts: np.ndarray) -> None:
        """Append symbols (n,) int32 under counts (n, P) float64, each a whole number >= 1."""
        self._coder.encode(symbols, _MODEL, counts)

    def finish(self) -> bytes:
        """All bytes of the stream."""
        words = self._coder.get_compressed()
        return bytes(words.astype(">u4").tobytes().rstrip(b"\0"))


class Decoder:
    """Range decoder of one group."""

    def __init__(self, data: bytes | bytearray) -> None:
        if data and not data[-1]:
            raise CorruptArchive("coded group: ends in a zero byte, which is never written")
        # Past the end all is zero; one such word is there, so that reading it can be seen.
        padded = bytes(data) + bytes(-len(data) % _WORD_BYTES + _WORD_BYTES)
        words = np.frombuffer(padded, dtype=">u4").astype(np.uint32)
        try:
            self._coder = constriction.stream.queue.RangeDecoder(words)
        except (AssertionError, ValueError) as error:  # what constriction raises on damage
            raise CorruptArchive(f"coded group: {error}") from None

    @property
    def is_spent(self) -> bool:
        """Whether the stream ends where the encoder's would after the symbols decoded so far.

        False if words are left that no symbol needed, or if the last ones are no encoder's.
        """
        return bool(self._coder.maybe_exhausted())

    def decode(self, counts: np.ndarray) -> np.ndarray:
        """Next n symbols (n,) int32 under counts (n, P) float64."""
        try:
            return self._coder.decode(_MODEL, counts)
        except (AssertionError, ValueError) as error:
            raise CorruptArchive(f"coded group: {error}") from None
