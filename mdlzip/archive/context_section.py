"""The context section: what chunks may know of others; absent if they know nothing of them."""

from __future__ import annotations

from dataclasses import replace

from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.errors import CorruptArchive
from mdlzip.limits import MAX_ELEMENT_BYTES, MAX_GROUP_CHUNKS, MAX_ROW_BYTES
from mdlzip.symbols.context import CHUNK, MODES, NO_GRID, REFERENCE, SOLID, Context, Grid
from mdlzip.symbols.layout import Layout

SECTION = "context section"


def pack_context(context: Context) -> bytes:
    """Mode, log2 of the table sizes, chunks of a lane, grid; the reference groups or the waves."""
    out = bytes([MODES.index(context.mode), *context.table_bits])
    out += put_varint(context.lane_chunks - 1) + put_varint(context.grid.row_bytes)
    if context.grid.row_bytes:
        out += put_varint(context.grid.element_bytes - 1)
    numbers: list[int] = []
    if context.mode == REFERENCE:
        before = (-1, *context.references)
        numbers = [r - b - 1 for b, r in zip(before, context.references, strict=False)]
    elif context.mode == SOLID:
        numbers = [n - 1 for n in context.waves]
    if numbers:
        out += put_varint(len(numbers) - 1) + b"".join(map(put_varint, numbers))
    return out


def context_ceiling(layout: Layout) -> int:
    """Most bytes that the section's payload may have."""
    lane, row = len(put_varint(MAX_GROUP_CHUNKS - 1)), len(put_varint(MAX_ROW_BYTES))
    return 4 + lane + row + 1 + (layout.n_groups + 1) * len(put_varint(layout.n_groups))


def unpack_context(payload: bytes | bytearray, layout: Layout, base: int = 0) -> Context:
    """Inverse of `pack_context`; CorruptArchive for what does not fit the layout."""
    cursor = Cursor(payload, SECTION, base)
    number = cursor.u8("mode")
    if not 0 < number < len(MODES):
        raise cursor.fail("mode", f"is {number}, not 1..{len(MODES) - 1}")
    mode, bits = MODES[number], tuple(cursor.u8("table size") for _ in range(3))
    lane_chunks = cursor.varint("chunks of a lane", MAX_GROUP_CHUNKS - 1) + 1
    grid, numbers = NO_GRID, list[int]()
    if row_bytes := cursor.varint("bytes of a row", MAX_ROW_BYTES):
        grid = Grid(row_bytes, cursor.varint("bytes of an element", MAX_ELEMENT_BYTES - 1) + 1)
    if mode in (REFERENCE, SOLID):
        count = cursor.varint("number of entries", layout.n_groups - 1) + 1
        numbers = [cursor.varint("entry", layout.n_groups - 1) for _ in range(count)]
    cursor.finish()
    context = Context(mode, bits, lane_chunks=lane_chunks, grid=grid)  # type: ignore[arg-type]
    if mode == REFERENCE:
        last, references = -1, []
        for n in numbers:
            last += n + 1
            references.append(last)
        context = replace(context, references=tuple(references))
    elif mode == SOLID:
        context = replace(context, waves=tuple(n + 1 for n in numbers))
    problem = context.problem(layout)
    if problem:
        raise CorruptArchive(f"{SECTION}: {problem} (offset {base})")
    return context


def context_bytes(context: Context) -> int:
    """Length of the section's payload; 0 where there is no section."""
    return 0 if context.mode == CHUNK else len(pack_context(context))
