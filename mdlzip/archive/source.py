"""Sequential input: an archive read from front to back, from a file or from a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from mdlzip.errors import CorruptArchive
from mdlzip.fileio import Readable, read_block
from mdlzip.limits import READ_BLOCK_BYTES

MAGIC = b"\x93mdz"  # first bytes of every archive
FOLLOWING_BYTES = 512  # looked at to tell what follows an archive


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

    def exactly(self, n: int, what: str) -> bytes | bytearray:
        """Exactly `n` bytes, held once; the caller has compared `n` with a ceiling."""
        if n <= READ_BLOCK_BYTES:
            return b"".join(self.blocks(n, what))
        whole = bytearray()
        for block in self.blocks(n, what):
            whole += block
        return whole

    def seek(self, offset: int) -> None:
        """Go to an offset of the archive; only where the file is one that can."""
        self._file.seek(offset)  # type: ignore[attr-defined]
        self.offset = offset

    def expect_end(self, total: int | None) -> None:
        """CorruptArchive if anything follows; total: bytes of the file, None for a stream."""
        end, head = self.offset, read_block(self._file, FOLLOWING_BYTES)
        if head:
            raise trailing_bytes(end, None if total is None else total - end, head)


def trailing_bytes(end: int, count: int | None, head: bytes) -> CorruptArchive:
    """What to say of bytes behind an archive of `end` bytes, and how to get at its contents.

    count: how many there are, None if that is not known; head: the first of them.
    """
    if head.startswith(MAGIC):
        kind = " (another archive, it seems)"
    elif not any(head):
        kind = " (zeros, as on tapes and devices)"
    else:
        kind = ""
    number = "bytes follow" if count is None else f"{count} bytes follow"
    return CorruptArchive(
        f"{number} the archive, which ends at byte {end}{kind};"
        f" to get at its contents cut it out: head -c {end} FILE > NEW.mdlz"
    )


class SectionSource:
    """The payload of one section as a file of its own; keeps its checksum as it is read."""

    def __init__(self, source: ByteSource, length: int, crc: int, what: str) -> None:
        self._source = source
        self._what = what
        self.left = length
        self.crc = crc

    def exactly(self, n: int, what: str) -> bytes:
        """Exactly `n` bytes; CorruptArchive if the section has less."""
        if n > self.left:
            raise CorruptArchive(f"{self._what}: ends within {what}")
        parts = []
        while n:
            parts.append(self.read(n))
            n -= len(parts[-1])
        return b"".join(parts)

    def skip(self, n: int, what: str) -> None:
        """Read past `n` bytes; CorruptArchive if the section has less."""
        if n > self.left:
            raise CorruptArchive(f"{self._what}: ends within {what}")
        while n:
            n -= len(self.read(n))

    def all(self, begun: bytes = b"") -> bytearray:
        """`begun` and all that is left, held once; the length was compared with a ceiling."""
        whole = bytearray(begun)
        while block := self.read():
            whole += block
        return whole

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (all that is left if negative), at most 1 MiB; b"" at the end."""
        n = self.left if size < 0 else min(size, self.left)
        if not n:
            return b""
        block = self._source.some(n, self._what)
        self.left -= len(block)
        self.crc = crc32(block, self.crc)
        return block
