"""Symbols of bytes that are in memory already."""

from __future__ import annotations

import numpy as np

from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokens import Tokens, prepare
from mdlzip.symbols.vocabulary import Vocabulary


class Held:
    """An array as a source of bytes."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= len(self.data)
        return self.data[start:stop]


def tokens_of(data: np.ndarray, layout: Layout, vocabulary: Vocabulary | None = None) -> Tokens:
    """`data`, uint8, as symbols; of all byte values by default."""
    return prepare(Held(data), layout, vocabulary or Vocabulary(), None, threads=1)


def expand(vocabulary: Vocabulary, symbols: np.ndarray) -> bytes:
    """The bytes of `symbols`."""
    return b"".join(vocabulary.strings[s, : vocabulary.lengths[s]].tobytes() for s in symbols)
