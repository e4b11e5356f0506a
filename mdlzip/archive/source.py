"""Sequential input: an archive read from front to back, from a file or from a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from mdlzip.errors import CorruptArchive
from mdlzip.fileio import Readable, read_block
from mdlzip.limits import READ_BLOCK_BYTES


class ByteSource:
    """Counts what it reads; memory grows with what has arrived, never with what was declared."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self.offset = 0

    def some(self, n: int, what: str) -> bytes:
        """Between 1 and `n` bytes (n >= 1); CorruptArchive if the archive ends here."""
        block = read_block(self._file, min(n, READ_BLOCK_BYTES))
        if not block:
            raise CorruptArchive(f"the archive ends within the {what} (offset {self.offset})")
        self.offset += len(block)
        return block

    def blocks(self, n: int, what: str) -> Iterator[bytes]:
        """Exactly `n` bytes in blocks of at most 1 MiB."""
        while n:
            block = self.some(n, what)
            n -= len(block)
            yield block

    def exactly(self, n: int, what: str) -> bytes:
        """Exactly `n` bytes; the caller has compared `n` with a ceiling."""
        return b"".join(self.blocks(n, what))

    def seek(self, offset: int) -> None:
        """Go to an offset of the archive; only where the file is one that can."""
        self._file.seek(offset)  # type: ignore[attr-defined]
        self.offset = offset

    def expect_end(self) -> None:
        """CorruptArchive if anything follows."""
        if read_block(self._file, 1):
            raise CorruptArchive(f"unexpected bytes after the end of the archive ({self.offset})")


class SectionSource:
    """The payload of one section as a file of its own; keeps its checksum as it is read."""

    def __init__(self, source: ByteSource, length: int, crc: int, what: str) -> None:
        self._source = source
        self._what = what
        self.left = length
        self.crc = crc

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (all that is left if negative), at most 1 MiB; b"" at the end."""
        n = self.left if size < 0 else min(size, self.left)
        if not n:
            return b""
        block = self._source.some(n, self._what)
        self.left -= len(block)
        self.crc = crc32(block, self.crc)
        return block
