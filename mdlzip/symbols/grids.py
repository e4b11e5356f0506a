"""Rows and elements that data may have: found by what is equal at the same distance everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlzip.limits import MAX_ELEMENT_BYTES
from mdlzip.symbols.context import Grid

_LEAST_BYTES = 64
_MOST_MATCHED = 1024  # distances that are looked at one by one
_MOST_ROW = 1 << 14
_PEAKS = 8
_NEARLY = 1.1  # as well as by the last two bytes
_STANDS_OUT = 0.02  # share of equal bytes beyond what is usual at any distance


def likely_rows(pieces: Sequence[np.ndarray], most: int) -> list[int]:
    """Distances, at most `most`, at which pieces of the data (uint8) resemble themselves.

    The likeliest first: where a byte is best told by the one before it and the one so far back;
    but those first that are longer than an element, since rows of few bytes may be elements, and
    a short one among them if there is any.
    """
    pieces = [piece for piece in pieces if len(piece) >= _LEAST_BYTES]
    if not pieces:
        return []
    found: set[int] = set()
    for piece in pieces:
        found.update(_equal_at(piece))
        found.update(_peaks(piece))
    costs = {row: sum(_cost(piece, row) for piece in pieces) for row in found}
    alone = sum(_cost(piece, 2) for piece in pieces)
    better = [row for row in costs if costs[row] <= _NEARLY * alone]
    better.sort(key=lambda row: (costs[row], row))
    short = [row for row in better if row <= MAX_ELEMENT_BYTES]
    long = [row for row in better if row > MAX_ELEMENT_BYTES]
    return (long[: most - bool(short)] + short)[:most]


def _equal_at(piece: np.ndarray) -> list[int]:
    most = min(_MOST_MATCHED, len(piece) // 4)
    shares = np.array([np.mean(piece[n:] == piece[:-n]) for n in range(1, most)])
    if not len(shares):
        return []
    order = np.argsort(-shares, kind="stable")[:_PEAKS]
    usual = np.median(shares)
    return [int(n) + 1 for n in order if shares[n] > usual + _STANDS_OUT]


def _peaks(piece: np.ndarray) -> list[int]:
    """Distances at which the numbers go up and down together."""
    centred = piece - piece.mean()
    spectrum = np.fft.rfft(centred, 2 * len(piece))
    likeness = np.fft.irfft(spectrum * np.conj(spectrum))[: min(_MOST_ROW, len(piece) // 4)]
    if len(likeness) < 3 or likeness[0] <= 0:
        return []
    inner = likeness[1:-1]
    tops = 1 + np.flatnonzero((inner > likeness[:-2]) & (inner > likeness[2:]))
    usual = np.median(likeness) / likeness[0]
    tops = tops[likeness[tops] / likeness[0] > usual + _STANDS_OUT]
    return [int(n) for n in tops[np.argsort(-likeness[tops], kind="stable")][:_PEAKS] if n > 1]


def _cost(piece: np.ndarray, row: int) -> float:
    """Bits of a byte given the one before it and the one `row` before, with what is new in them."""
    now, before, above = (piece[row:], piece[row - 1 : -1], piece[:-row])
    known = before.astype(np.int64) * 256 + above
    pairs, uses = np.unique(known * 256 + now, return_counts=True)
    _, place = np.unique(pairs >> 8, return_inverse=True)
    totals, kinds = np.bincount(place, weights=uses), np.bincount(place)
    return float(np.sum(uses * np.log2((totals + kinds)[place] / uses))) / len(now)


def with_elements(row: int) -> list[Grid]:
    """The grids that rows of so many bytes may be, the usual ones first."""
    sizes = [1, 2, 4, 3]
    return [Grid(row, n) for n in sizes if n == 1 or n < row]
