"""Which symbols stand for the bytes of a group: the encoder's choice.

Merges apply to the whole group in their order, each from left to right (byte-pair encoding); a
group of more than UNIT_BYTES is cut into units of as many, each by itself, to bound memory.
"""

from __future__ import annotations

import numpy as np

from mdlzip.symbols.vocabulary import Vocabulary

UNIT_BYTES = 1 << 18


def tokenise(
    vocabulary: Vocabulary, data: np.ndarray, edges: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`data`, uint8 (n,), as (symbols, int16; where in them each unit ends, int64 (units,)).

    edges: int64 (units,), where in `data` each unit ends, the last one at n; by default all is one.
    """
    if edges is None:
        edges = np.array([len(data)], np.int64)
    if not len(vocabulary.merges):
        return data.astype(np.int16), edges
    from mdlzip.symbols.kernels import tokenise as kernel

    symbols, ends = np.empty(len(data), np.int16), np.empty(len(edges), np.int64)
    n = kernel(data, edges, vocabulary.pairs, len(vocabulary.merges), symbols, ends)
    return symbols[:n], ends


class Cutter:
    """Cuts symbols into chunks, in order, across the units of a group.

    A chunk ends with the first symbol that leaves it less room than the longest string takes, so
    none is longer than `chunk_size` bytes, and a chunk begins where a symbol begins.
    """

    def __init__(self, vocabulary: Vocabulary, chunk_size: int) -> None:
        self._lengths = vocabulary.lengths
        self._full = chunk_size - vocabulary.longest + 1
        self._open_bytes = 0

    def cut(
        self, symbols: np.ndarray, units: np.ndarray, closes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(Where in `symbols` chunks end, int64; how many by the end of each unit, int64).

        symbols: int16 (n,), those that follow what was cut before; units, closes: where units end
        in them, int64 (m,), and whether a group ends there, boolean (m,).
        """
        from mdlzip.symbols.kernels import cut

        ends = np.empty(len(symbols), np.int64)
        chunks = np.empty(len(units), np.int64)
        n, self._open_bytes = cut(
            symbols, units, closes, self._lengths, self._full, self._open_bytes, ends, chunks
        )
        return ends[:n], chunks


def cut_group(
    vocabulary: Vocabulary, data: np.ndarray, chunk_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """One group as (symbols, int16; ends, int64: where in the symbols each chunk ends)."""
    edges = np.minimum(np.arange(UNIT_BYTES, len(data) + UNIT_BYTES, UNIT_BYTES), len(data))
    symbols, units = tokenise(vocabulary, data, edges)
    closes = np.arange(1, len(units) + 1) == len(units)
    return symbols, Cutter(vocabulary, chunk_size).cut(symbols, units, closes)[0]
