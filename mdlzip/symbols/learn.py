"""Which strings become symbols: the encoder's choice, made from a sample of the file."""

from __future__ import annotations

import numpy as np

from mdlzip.symbols.source import ByteSource
from mdlzip.symbols.vocabulary import FIRST_MERGE, no_merges

_PIECE_BYTES = 1 << 19
_PIECES = 4


def sample_of(source: ByteSource) -> np.ndarray:
    """At most 2 MiB of `source`, uint8, from four places."""
    n = source.size
    if n <= _PIECES * _PIECE_BYTES:
        return source.read(0, n)
    starts = [i * (n - _PIECE_BYTES) // (_PIECES - 1) for i in range(_PIECES)]
    return np.concatenate([source.read(start, start + _PIECE_BYTES) for start in starts])


def learn_merges(
    sample: np.ndarray,
    most: int,
    least_count: float,
    least_gain: float,
    longest: int,
    total_bytes: int | None = None,
) -> np.ndarray:
    """Merges, uint16 (M, 2), M <= most: the most frequent pair of the sample, again and again.

    sample: uint8, of a file of `total_bytes`, itself by default. A pair counts only if it occurs
    `least_count` times in the file, as far as the sample tells, and `least_gain` times as often as
    its symbols would meet by chance, and is at most `longest` bytes long. Takes time in proportion
    to the sample's length times M at most, whatever the sample holds.
    """
    if len(sample) < 2 or most < 1:
        return no_merges()
    from mdlzip.symbols.kernels import best_pair, count_pairs, replace_pair

    scale = 1.0 if total_bytes is None else total_bytes / len(sample)
    rows = FIRST_MERGE + most
    symbols, n = sample.astype(np.int16), len(sample)
    lengths = np.ones(rows, np.int64)
    counts = np.zeros((rows, rows), np.int32)
    left, right, twins = (np.zeros(rows, np.int64) for _ in range(3))
    count_pairs(symbols, counts, left, right, twins)
    merges: list[tuple[int, int]] = []
    while len(merges) < most:
        new = FIRST_MERGE + len(merges)
        count, a, b = best_pair(counts, left, right, twins, lengths[:new], n, least_gain, longest)
        if count * scale < max(least_count, 2):
            break
        lengths[new] = lengths[a] + lengths[b]
        merges.append((a, b))
        n = replace_pair(symbols, n, a, b, new, counts, left, right, twins)
    return np.array(merges, np.uint16).reshape(-1, 2)
