"""The original as it is, no section around it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from mdlzip.archive.blocks import BlockSums, compared
from mdlzip.archive.bodies.general import General, Part, memory_bytes
from mdlzip.archive.header import HEADER_BYTES, Header
from mdlzip.archive.ledger import Ledger, stored_ledger
from mdlzip.archive.pieces import Piece, judged
from mdlzip.archive.writer import Counting, Writable, balanced, write_footer
from mdlzip.errors import CorruptArchive
from mdlzip.limits import CHECK_BLOCK_BYTES
from mdlzip.resources import check_memory

if TYPE_CHECKING:
    from mdlzip.archive.reader import ArchiveReader
    from mdlzip.archive.rescue import Copy


class Stored(General):
    """Bytes as they are; the one body that can hold an empty original, and that holds no name."""

    number = 0
    label = "stored"
    keeps_name = False
    has_sections = False

    def begin(self, reader: ArchiveReader) -> None:
        """Nothing precedes the data."""
        reader.check_end(reader.header.size)

    def window_bytes(self, size: int) -> int:
        """Nothing refers to what came before."""
        return 0

    def ledger(
        self, name: str | None, data_bytes: int, size: int, optional: Iterable[int] = ()
    ) -> Ledger:
        """Lines of the archive; the name has none."""
        return stored_ledger(size)

    def write(
        self,
        sink: Writable,
        header: Header,
        name: str | None,
        original: Iterable[bytes],
        stream: BinaryIO | None,
        digest: bytes,
    ) -> Ledger:
        """Header, the original itself, footer; neither name nor stream are used."""
        out, sums = Counting(sink), BlockSums()
        out.write(header.pack())
        for block in original:
            sums.update(block)
            out.write(block)
        write_footer(out, header, sums.finish(), digest)
        return balanced(stored_ledger(header.size), out.offset)

    def data_bytes(self, reader: ArchiveReader) -> int:
        """All bytes of the original."""
        return reader.header.size

    def decoded(self, reader: ArchiveReader, memory: int | None) -> Iterator[bytes]:
        """The original as it is read."""
        return reader.source.blocks(reader.header.size, "stored data")

    def skip(self, reader: ArchiveReader) -> int:
        """Pass over the data, on a pipe by reading them."""
        size = reader.header.size
        if reader.total is not None:
            reader.source.seek(reader.source.offset + size)
        else:
            for _ in reader.source.blocks(size, "data"):
                pass
        return 0

    def pieces(self, copies: Sequence[Copy], size: int, memory: int | None) -> Iterator[Piece]:
        """Block by block; what lies behind the end of every copy is one gap."""
        tables = [table for copy in copies for table in copy.block_tables(size)]
        there = min(size, max(copy.total for copy in copies) - HEADER_BYTES)
        for start in range(0, there, CHECK_BLOCK_BYTES):
            length = min(CHECK_BLOCK_BYTES, size - start)
            found = [copy.at(HEADER_BYTES + start, length) for copy in copies]
            whole = [data for data in found if len(data) == length]
            number = start // CHECK_BLOCK_BYTES
            sums = [table[number] for table in tables if number < len(table)]
            yield Piece(start, length, *judged(whole, sums, repair=True))
        behind = -(-there // CHECK_BLOCK_BYTES) * CHECK_BLOCK_BYTES
        if behind < size:
            yield Piece(behind, size - behind, None, False)

    def part(self, file: BinaryIO, reader: ArchiveReader, memory: int | None) -> Part:
        """Any block of the file, compared with its checksum."""
        check_memory(memory_bytes(0, reader.header.size), memory)
        return _Blocks(file, reader.header.size, self.block_table(reader))


class _Blocks:
    """Random access to blocks of a stored archive."""

    def __init__(self, file: BinaryIO, size: int, table: array[int]) -> None:
        self._file, self._size, self._table = file, size, table

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        """As `Part`; raises CorruptArchive."""
        for number in range(start // CHECK_BLOCK_BYTES, -(-stop // CHECK_BLOCK_BYTES)):
            base = number * CHECK_BLOCK_BYTES
            length = min(CHECK_BLOCK_BYTES, self._size - base)
            self._file.seek(HEADER_BYTES + base)
            data = self._file.read(length)
            if len(data) != length:
                raise CorruptArchive("the archive ends within the stored data")
            compared(data, self._table[number], number)
            yield data[max(0, start - base) : stop - base]
