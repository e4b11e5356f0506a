"""Bodies that are decoded without a network: checksums of the original's blocks follow the data."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Protocol

from mdlzip.archive.blocks import BlockSums, compare_tables, table_bytes, verified
from mdlzip.archive.bodies.base import Body
from mdlzip.archive.header import Header
from mdlzip.archive.ledger import Ledger
from mdlzip.archive.sections import DIGEST_BYTES
from mdlzip.archive.writer import Writable
from mdlzip.errors import CorruptArchive
from mdlzip.resources import GENERAL_PROGRAM_BYTES, check_memory

if TYPE_CHECKING:
    from mdlzip.archive.pieces import Piece
    from mdlzip.archive.reader import ArchiveReader
    from mdlzip.archive.rescue import Copy

DECODER_OVERHEAD_BYTES = 3 << 20  # blocks, tables and the like, beside window or dictionary


class Part(Protocol):
    """A way of getting at any range of the original."""

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes start .. stop - 1, in order; 0 <= start < stop <= size."""


class General(Body):
    """A body that every machine decodes alike and that competes with the learned one.

    keeps_name: whether an archive with this body can hold the name of the original.
    """

    keeps_name: ClassVar[bool] = True

    def footer_bytes(self, size: int) -> int:
        """The block checksums and the digest."""
        return table_bytes(size) + DIGEST_BYTES

    @abstractmethod
    def window_bytes(self, size: int) -> int:
        """Most bytes of history that decoding `size` bytes may take."""

    @abstractmethod
    def ledger(
        self, name: str | None, data_bytes: int, size: int, optional: Iterable[int] = ()
    ) -> Ledger:
        """Lines of an archive whose data are so long.

        optional: payload bytes of each optional section.
        """

    @abstractmethod
    def write(
        self,
        sink: Writable,
        header: Header,
        name: str | None,
        original: Iterable[bytes],
        stream: BinaryIO | None,
        digest: bytes,
    ) -> Ledger:
        """Write the archive; returns its ledger.

        original: its bytes in blocks; stream: a seekable file of what `Compressed.compress` made
        of them, None for a body that does not compress; digest: SHA-256 of the original.
        """

    @abstractmethod
    def data_bytes(self, reader: ArchiveReader) -> int:
        """Bytes that hold the original, as the archive's headers declare."""

    @abstractmethod
    def decoded(self, reader: ArchiveReader, memory: int | None) -> Iterator[bytes]:
        """The original in pieces; its blocks are not compared with their checksums."""

    @abstractmethod
    def skip(self, reader: ArchiveReader) -> int:
        """Go to the end of the data without decoding; bytes of history that decoding takes."""

    @abstractmethod
    def pieces(self, copies: Sequence[Copy], size: int, memory: int | None) -> Iterator[Piece]:
        """All of the original, in order, of copies any of which may be damaged."""

    def archive_bytes(self, name: str | None, data_bytes: int, size: int) -> int:
        """Size of an archive of `size` original bytes with so many bytes of data."""
        return sum(self.ledger(name, data_bytes, size).values())

    def most_memory_bytes(self, size: int) -> int:
        """Most that decoding an archive of `size` original bytes may take, the program included."""
        return memory_bytes(self.window_bytes(size), size)

    def content(self, reader: ArchiveReader, memory: int | None) -> Generator[bytes]:
        """The original in pieces; LimitExceeded if `memory` bytes do not suffice.

        Ends with the SHA-256 in `reader.digest`, uncompared. On a file no piece is given out before
        the checksum of its block was compared; on a pipe the checksums come last, and so does the
        comparison.
        """
        check_memory(memory_bytes(0, reader.header.size), memory)
        if reader.total is not None:
            table = self.block_table(reader)
            yield from verified(self.decoded(reader, memory), table)
            return
        sums = BlockSums()
        for piece in self.decoded(reader, memory):
            sums.update(piece)
            yield piece
        compare_tables(sums.finish(), reader.footer())

    def block_table(self, reader: ArchiveReader) -> array[int]:
        """The checksums behind data that begin here; only on a seekable file.

        Leaves the reader where the data begin.
        """
        mark = reader.source.offset
        reader.source.seek(mark + self.data_bytes(reader))
        table = reader.footer()
        reader.source.seek(mark)
        return table

    def part(self, file: BinaryIO, reader: ArchiveReader, memory: int | None) -> Part:
        """Random access to an archive in a seekable file that the reader has begun to read."""
        return Sequential(self, reader, memory)

    def survey(self, reader: ArchiveReader) -> tuple[Ledger, int]:
        """Ledger, and predicted peak of decoding in bytes; looks at the headers alone.

        Then the reader stands at the end, the digest read. On a file the data are not even read.
        """
        size, length = reader.header.size, self.data_bytes(reader)
        window = self.skip(reader)
        reader.footer()
        ledger = self.ledger(reader.name, length, size, reader.optional)
        return ledger, memory_bytes(window, size)


def memory_bytes(window: int, size: int) -> int:
    """Peak of decoding with that much history; the checksums of the blocks are held, too."""
    return GENERAL_PROGRAM_BYTES + window + DECODER_OVERHEAD_BYTES + table_bytes(size)


class Sequential:
    """A decoder that only runs forward; it starts anew for a read before its position."""

    def __init__(self, body: General, reader: ArchiveReader, memory: int | None) -> None:
        self._body, self._reader, self._memory = body, reader, memory
        self._start()

    def _start(self) -> None:
        self._content = self._body.content(self._reader.again(), self._memory)
        self._block, self._block_start = b"", 0

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        """As `Part`; raises CorruptArchive."""
        if start < self._block_start:
            self._start()
        while start < stop:
            inside = start - self._block_start
            if inside < len(self._block):
                piece = self._block[inside : inside + stop - start]
                start += len(piece)
                yield piece
            else:
                self._block_start += len(self._block)
                self._block = b""
                self._block = next(self._content, b"")
                if not self._block:
                    raise CorruptArchive("the compressed stream ends too soon")
