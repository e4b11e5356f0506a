"""Streams of general-purpose compressors, without container bytes that would be paid twice."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, ClassVar
from zlib import crc32

from mdlzip.archive.blocks import block_sums
from mdlzip.archive.bodies.general import General
from mdlzip.archive.header import Header
from mdlzip.archive.ledger import Ledger, payload_ledger
from mdlzip.archive.pieces import Piece, judged, whole_blocks
from mdlzip.archive.sections import Kind, section_head
from mdlzip.archive.source import ByteSource, SectionSource
from mdlzip.archive.writer import Counting, Writable, balanced, name_section, write_footer
from mdlzip.errors import CorruptArchive
from mdlzip.limits import CHECK_BLOCK_BYTES, READ_BLOCK_BYTES

if TYPE_CHECKING:
    from mdlzip.archive.reader import ArchiveReader
    from mdlzip.archive.rescue import Copy

Sink = Callable[[bytes], object]


class Compressed(General):
    """A body whose payload section is a stream of a general-purpose compressor.

    levels: the first is what archives are made with, the others are for when time is short, the
    quickest last.
    """

    levels: ClassVar[tuple[int, ...]]

    @abstractmethod
    def compress(self, blocks: Iterable[bytes], size: int, sink: Sink, level: int) -> None:
        """Compress `size` bytes given in blocks into `sink`."""

    @abstractmethod
    def compression_memory_bytes(self, size: int, level: int) -> int:
        """What `compress` takes at its peak for `size` bytes, about."""

    @abstractmethod
    def declared_window(self, payload: SectionSource, size: int) -> int:
        """Bytes of history that the payload asks for; reads its first bytes.

        CorruptArchive if they are more than `window_bytes`.
        """

    @abstractmethod
    def decompress(self, payload: SectionSource, size: int, memory: int | None) -> Iterator[bytes]:
        """What the stream decodes to, in blocks of at most 1 MiB.

        memory: limit in bytes, None for none. Raises LimitExceeded, or CorruptArchive if the
        stream is damaged.
        """

    def begin(self, reader: ArchiveReader) -> None:
        """Name, optional sections, and the header of the payload."""
        reader.begin_sections()
        reader.begin_payload()

    def ledger(
        self, name: str | None, data_bytes: int, size: int, optional: Iterable[int] = ()
    ) -> Ledger:
        """Lines of the archive."""
        return payload_ledger(len((name or "").encode()), data_bytes, size, optional)

    def write(
        self,
        sink: Writable,
        header: Header,
        name: str | None,
        original: Iterable[bytes],
        stream: BinaryIO | None,
        digest: bytes,
    ) -> Ledger:
        """Header, name, the stream as payload, footer."""
        if stream is None:
            raise TypeError(f"no compressed stream for {self.label}")
        out = Counting(sink)
        out.write(header.pack())
        out.write(name_section(name))
        length = stream.seek(0, 2)
        head = section_head(Kind.PAYLOAD, length)
        crc = crc32(head)
        stream.seek(0)
        while block := stream.read(READ_BLOCK_BYTES):
            crc = crc32(block, crc)
        out.write(head + struct.pack("<I", crc))
        stream.seek(0)
        while block := stream.read(READ_BLOCK_BYTES):
            out.write(block)
        write_footer(out, header, block_sums(original), digest)
        return balanced(self.ledger(name, length, header.size), out.offset)

    def data_bytes(self, reader: ArchiveReader) -> int:
        """Bytes of the payload."""
        return reader.payload().left

    def decoded(self, reader: ArchiveReader, memory: int | None) -> Iterator[bytes]:
        """The original's bytes; the payload's own checksum is compared at the end.

        CorruptArchive also if the stream is longer or shorter than the original; never more than
        one block above its size is given out.
        """
        size, part, total = reader.header.size, reader.payload(), 0
        for block in self.decompress(part, size, memory):
            total += len(block)
            if total > size:
                raise CorruptArchive(f"payload section: holds more than the {size} bytes declared")
            yield block
        if total != size:
            raise CorruptArchive(f"payload section: holds {total} bytes, {size} were declared")
        if part.left:
            raise CorruptArchive(f"payload section: {part.left} bytes follow the compressed stream")
        reader.end_of(part)

    def pieces(self, copies: Sequence[Copy], size: int, memory: int | None) -> Iterator[Piece]:
        """As far as the stream can be decoded, block by block."""
        tables = [table for copy in copies for table in copy.block_tables(size)]
        best = sorted(copies, key=lambda copy: Kind.PAYLOAD not in copy.sections)
        opened = next(filter(None, (copy.payload_file() for copy in best)), None)
        start = 0
        for block in whole_blocks(self._decodable(opened, size, memory), size):
            number = start // CHECK_BLOCK_BYTES
            sums = [table[number] for table in tables if number < len(table)]
            yield Piece(start, len(block), *judged([block], sums, repair=False))
            start += len(block)
        if start < size:
            yield Piece(start, size - start, None, False)

    def _decodable(
        self, opened: tuple[BinaryIO, int] | None, size: int, memory: int | None
    ) -> Iterator[bytes]:
        if opened is None:
            return
        file, length = opened
        section = SectionSource(ByteSource(file), length, 0, "payload section")
        try:
            yield from self.decompress(section, size, memory)
        except CorruptArchive:
            return

    def skip(self, reader: ArchiveReader) -> int:
        """Read the head of the stream, then pass over the rest."""
        part = reader.payload()
        window = self.declared_window(part, reader.header.size)
        if reader.total is None:
            reader.end_of(part)
        else:
            reader.source.seek(reader.source.offset + part.left)
        return window
