"""Whether the input is a grid, tried by what experts make of parts of it."""

from __future__ import annotations

import math

import numpy as np

from mdlzip.codec.job import Job
from mdlzip.errors import Interrupted
from mdlzip.experts.group import GroupCoder, Known
from mdlzip.experts.state import Memory, Symbols
from mdlzip.symbols.context import NO_GRID, Grid
from mdlzip.symbols.grids import likely_rows, with_elements
from mdlzip.symbols.vocabulary import Vocabulary

_PIECES = 3
_PIECE_BYTES = 1 << 17
_LEAST_BYTES = 1 << 12
_TABLE_BITS = (16, 18, 16)
_ROWS = 3  # that are tried
_PAYS = 0.98
_TRIAL_S_PER_BYTE, _TRIALS, _SHARE = 2e-6, 8, 0.1  # of the budget


def find_grid(job: Job) -> Grid:
    """The grid by which experts need the fewest bytes for a sample; NO_GRID if they gain little.

    Raises Interrupted.
    """
    pieces = _pieces(job)
    if not pieces:
        return NO_GRID
    rows = likely_rows([piece for _, piece in pieces], _ROWS)
    if not rows:
        return NO_GRID
    done = 0

    def cost(grid: Grid) -> int:
        nonlocal done
        if job.should_stop():
            raise Interrupted("stopped while rows and elements were looked for")
        job.progress("grid", done, _TRIALS, "")
        done += 1
        return sum(_coded_bytes(start, piece, grid) for start, piece in pieces)

    plain = cost(NO_GRID)
    costs = {grid: cost(grid) for row in rows[:1] for grid in with_elements(row)}
    best = min(costs, key=lambda grid: costs[grid])
    for row in rows[1:]:
        grid = Grid(row, min(best.element_bytes, max(row - 1, 1)))
        costs[grid] = cost(grid)
    job.progress("grid", _TRIALS, _TRIALS, "")
    best = min(costs, key=lambda grid: costs[grid])
    return best if costs[best] <= _PAYS * plain else NO_GRID


def _pieces(job: Job) -> list[tuple[int, np.ndarray]]:
    """Parts of the input, (place, uint8); fewer and shorter where time is short."""
    size, options = job.corpus.size, job.options
    seconds = math.inf if options.steps else options.seconds(size)
    most = min(_PIECES * _PIECE_BYTES, seconds * _SHARE / (_TRIAL_S_PER_BYTE * _TRIALS))
    length = int(min(_PIECE_BYTES, most, size))
    if length < _LEAST_BYTES:
        return []
    count = max(1, min(int(most) // length, size // length))
    starts = [(size - length) * (2 * i + 1) // (2 * count) for i in range(count)]
    return [(start, np.array(job.corpus.read(start, start + length))) for start in starts]


def _coded_bytes(start: int, piece: np.ndarray, grid: Grid) -> int:
    """What the experts alone make of the bytes."""
    order = Symbols.of(Vocabulary(np.unique(piece)))
    known = Known(Memory.fresh(*_TABLE_BITS), np.zeros(0, np.int16))
    counts, lengths = np.ones(1, np.int32), np.array([len(piece)])
    coder = GroupCoder(order, counts, known, np.array([start]), len(piece), grid=grid)
    coder.encode(np.zeros(1, np.int64), order.rank[piece].astype(np.int64), lengths)
    return len(coder.finish())
