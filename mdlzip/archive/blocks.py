"""CRC-32 of every 64 KiB of the original, so that any part of it can be known to be right."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

from mdlzip.errors import CorruptArchive
from mdlzip.limits import CHECK_BLOCK_BYTES

CRC_BYTES = 4


def n_blocks(size: int) -> int:
    """Blocks of an original of `size` bytes; the last one is what is left."""
    return -(-size // CHECK_BLOCK_BYTES)


def table_bytes(size: int) -> int:
    """Bytes of the block table of an original of `size` bytes."""
    return CRC_BYTES * n_blocks(size)


def pack_table(sums: array[int]) -> bytes:
    """The table as the archive holds it: each checksum as u32, little-endian."""
    return _swapped(sums).tobytes()


def unpack_table(raw: bytes | bytearray | memoryview) -> array[int]:
    """Inverse of `pack_table`."""
    sums = array("I")
    sums.frombytes(raw)
    return _swapped(sums)


def _swapped(sums: array[int]) -> array[int]:
    if sys.byteorder == "little":
        return sums
    other = sums[:]
    other.byteswap()
    return other


class BlockSums:
    """The table of bytes that pass by in pieces of any length."""

    def __init__(self) -> None:
        self._done = array("I")
        self._crc = self._filled = 0

    def update(self, data: bytes) -> None:
        """Take in the next bytes."""
        view = memoryview(data)
        while len(view):
            piece = view[: CHECK_BLOCK_BYTES - self._filled]
            view = view[len(piece) :]
            self._crc = crc32(piece, self._crc)
            self._filled += len(piece)
            if self._filled == CHECK_BLOCK_BYTES:
                self._close()

    def _close(self) -> None:
        self._done.append(self._crc)
        self._crc = self._filled = 0

    def finish(self) -> array[int]:
        """Checksums of all blocks; there must be no `update` afterwards."""
        if self._filled:
            self._close()
        return self._done


def block_sums(blocks: Iterable[bytes]) -> array[int]:
    """The table of all bytes of `blocks`."""
    sums = BlockSums()
    for block in blocks:
        sums.update(block)
    return sums.finish()


def verified(pieces: Iterable[bytes], table: Sequence[int]) -> Iterator[bytes]:
    """The same bytes, cut at block ends; none is given out before its block was compared.

    pieces: all of the original from its beginning, of any lengths. table: checksum of each block.
    """
    block, number = bytearray(), 0
    for piece in pieces:
        block += piece
        while len(block) >= CHECK_BLOCK_BYTES:
            whole = bytes(block[:CHECK_BLOCK_BYTES])
            del block[:CHECK_BLOCK_BYTES]
            yield compared(whole, table[number], number)
            number += 1
    if block:
        yield compared(bytes(block), table[number], number)


def compared(block: bytes, expected: int, number: int) -> bytes:
    """`block`; CorruptArchive unless its checksum is the expected one of block `number`."""
    if crc32(block) != expected:
        raise block_error(number)
    return block


def compare_tables(found: array[int], expected: array[int]) -> None:
    """CorruptArchive naming the first block in which the tables differ."""
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a != b:
            raise block_error(number)


def block_error(number: int) -> CorruptArchive:
    """What is wrong with block `number`."""
    start = number * CHECK_BLOCK_BYTES
    return CorruptArchive(
        f"checksum mismatch in the block of the original that begins at byte {start}"
    )
