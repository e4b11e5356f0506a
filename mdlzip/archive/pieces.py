"""What is left of the original in damaged archives: pieces, judged by the checksums of blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

from mdlzip.archive.repair import mended
from mdlzip.limits import CHECK_BLOCK_BYTES


class Piece(NamedTuple):
    """Bytes from `start` on; data: None if the `size` bytes are lost; sure: they are right."""

    start: int
    size: int
    data: bytes | None
    sure: bool


def whole_blocks(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Whole blocks of the first `size` bytes; the last one of the original may be short."""
    block, left = bytearray(), size
    for part in parts:
        block += part[:left]
        left -= len(part[:left])
        while len(block) >= CHECK_BLOCK_BYTES:
            yield bytes(block[:CHECK_BLOCK_BYTES])
            del block[:CHECK_BLOCK_BYTES]
    if block and not left:
        yield bytes(block)


def judged(
    found: Sequence[bytes], sums: Collection[int], *, repair: bool
) -> tuple[bytes | None, bool]:
    """(The bytes, or None; whether they are right) of a block, by the checksums it may have."""
    for data in found:
        if crc32(data) in sums:
            return data, True
    for data in found if sums else ():
        for crc in sums:
            right = mended(data, crc)
            if right is not None and (repair or right[0] == data):
                return right[0], False
    return (found[0] if found and not sums else None), False
