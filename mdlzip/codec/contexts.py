"""Which context an encoder takes, and how large its tables are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from mdlzip.codec.options import AUTO
from mdlzip.errors import UsageError
from mdlzip.limits import MAX_GROUP_CHUNKS, MAX_KNOWN_PLACES
from mdlzip.symbols.context import CHUNK, GROUP, NO_GRID, REFERENCE, SOLID, STRICT, Context, Grid
from mdlzip.symbols.layout import Layout

REFERENCE_BYTES = 1 << 21  # of text that all groups know
_REFERENCE_SHARE = 8  # at most this part of the file
_FIRST_WAVE = 64  # part of the file that the first wave is
SOLID_CHUNK_BYTES = 4096  # usual where a first read decodes all before it anyway
# Bytes of a lane where there is a network: that predicts for all lanes of a unit at once, so more
# are faster. In a grid few rows may have none above them.
_LANE_BYTES, _GRID_LANE_BYTES = 4096, 32768
_WAVE_LANES = 32  # at most; they know little of one another, but few of them are slow
_LEAST_PER_LANE = 1 << 14  # bytes of the whole file
_WAVES = 8  # at least so many
_WAVE_BYTES = 1 << 12  # at least so many: each takes some ten bytes of the index
_LEAST_BITS = 10
_BITS = (21, 23, 22)  # of the tables at most: 160 MiB
_COPIED_BITS = (20, 22, 20)  # 72 MiB, for each unit that is decoded at a time
SOLID_BYTES = 1 << 24  # up to here a first read may decode all, unless it is bounded
MOST_SOLID_BYTES = MAX_KNOWN_PLACES // 2  # chunks may not be full
_READ_BYTES_PER_S = 150e3  # decoded for a read, on a slow machine


def choose_context(
    mode: str,
    layout: Layout,
    fits: Callable[[Context], bool] = lambda context: True,
    access_s: float | None = None,
    *,
    alone: bool = False,
    grid: Grid = NO_GRID,
    text_bytes: int = 0,
) -> Context:
    """The context of an archive; "auto" is settled by the size of the file.

    alone: without a network; then a unit is a single lane, since experts code one symbol after the
    other anyway. grid: of the data; lanes are long then, so that most rows have one above them.
    text_bytes: of the model's text, which all units know.

    fits: whether an archive of a context could be decoded; until one is found that can be, the
    tables get smaller. access_s: the time that the first read of an open archive may take; it
    decides between the modes and how many reference groups there are. Raises UsageError for a file
    that is too large for the mode.
    """
    if mode == SOLID and layout.total_bytes > MOST_SOLID_BYTES:
        raise UsageError(f"--context solid takes files of up to {MOST_SOLID_BYTES:,} bytes")
    context = _wanted(mode, layout, access_s, grid, text_bytes)
    if context.mode != CHUNK:
        lane = MAX_GROUP_CHUNKS if alone else _lane_chunks(layout, context)
        context = replace(context, lane_chunks=lane, grid=grid)
    while not fits(context) and max(context.table_bits) > _LEAST_BITS:
        trees, records, heads = (max(n - 1, _LEAST_BITS) for n in context.table_bits)
        context = replace(context, table_bits=(trees, records, heads))
    return context if mode != AUTO or fits(context) else STRICT


def _wanted(
    mode: str, layout: Layout, access_s: float | None, grid: Grid, text_bytes: int
) -> Context:
    most = math.inf if access_s is None else access_s * _READ_BYTES_PER_S
    if mode == AUTO:
        mode = SOLID if layout.total_bytes <= min(most, SOLID_BYTES) else REFERENCE
    if mode == REFERENCE and most < 2 * layout.group_bytes:
        mode = GROUP
    if layout.n_groups < 2 and mode in (REFERENCE, SOLID):
        mode = GROUP
    if mode == CHUNK:
        return STRICT
    if mode == REFERENCE:
        references = _spread(layout, min(most - layout.group_bytes, REFERENCE_BYTES))
        known = min(len(references) * layout.group_bytes, layout.total_bytes)
        bits = _table_bits(known + layout.group_bytes + text_bytes, _COPIED_BITS)
        return Context(mode, bits, references=references)
    if mode == SOLID:
        bits = _table_bits(layout.total_bytes + text_bytes, _BITS)
        return Context(mode, bits, waves=_waves(layout, grid))
    own = min(layout.group_bytes, layout.total_bytes)
    return Context(mode, _table_bits(own + text_bytes, _COPIED_BITS))


def reads_all(mode: str, layout: Layout) -> bool:
    """Whether the first read of a part may decode the whole file anyway."""
    return mode == SOLID or (mode != CHUNK and layout.n_groups < 2)


def _lane_chunks(layout: Layout, context: Context) -> int:
    """Few lanes where the file is small: they know little of one another."""
    if not reads_all(context.mode, layout):
        return max(1, _LANE_BYTES // layout.chunk_size)
    chunks = min(max(context.waves, default=1) * layout.group_chunks, layout.n_chunks)
    lanes = max(1, min(layout.total_bytes // _LEAST_PER_LANE, _WAVE_LANES))
    return max(1, -(-chunks // lanes))


def _spread(layout: Layout, n_bytes: float) -> tuple[int, ...]:
    """Groups at even distances that hold `n_bytes`, at the most."""
    most = layout.n_groups // _REFERENCE_SHARE
    count = max(1, min(most, int(n_bytes // layout.group_bytes)))
    edges = [layout.n_groups * (2 * i + 1) // (2 * count) for i in range(count)]
    return tuple(edges)


def _waves(layout: Layout, grid: Grid) -> tuple[int, ...]:
    """Each as large as all before it, but not too large."""
    least = max(1, _WAVE_BYTES // layout.group_bytes)
    lane = max(layout.chunk_size, _GRID_LANE_BYTES if grid.row_bytes else _LANE_BYTES)
    wanted = _WAVE_LANES * lane
    most = max(least, min(wanted // layout.group_bytes, layout.n_groups // _WAVES))
    edges, size = [0], max(least, layout.n_groups // _FIRST_WAVE)
    while edges[-1] < layout.n_groups:
        edges.append(min(edges[-1] + min(size, most), layout.n_groups))
        size = max(size, edges[-1])
    return tuple(b - a for a, b in pairwise(edges))


def _table_bits(known_bytes: int, most: tuple[int, int, int]) -> tuple[int, int, int]:
    """Log2 of buckets, records and heads for so many bytes of text."""
    bits = max(known_bytes - 1, 1).bit_length()
    wanted = (bits, bits + 2, bits)
    trees, records, heads = (max(_LEAST_BITS, min(pair)) for pair in zip(wanted, most, strict=True))
    return trees, records, heads
