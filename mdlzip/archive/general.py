"""The data of stored, zstd and xz archives: every block of the original against its checksum."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator

from mdlzip.archive import payload
from mdlzip.archive.blocks import BlockSums, compare_tables, verified
from mdlzip.archive.header import Method
from mdlzip.archive.reader import ArchiveReader
from mdlzip.resources import check_memory


def content(reader: ArchiveReader, memory: int | None) -> Generator[bytes]:
    """The original in pieces; LimitExceeded if `memory` bytes do not suffice.

    Ends with the SHA-256 in `reader.digest`, uncompared. On a file no piece is given out before
    the checksum of its block was compared; on a pipe the checksums come last, and so does the
    comparison.
    """
    check_memory(payload.memory_bytes(0, reader.header.size), memory)
    if reader.total is not None:
        table = block_table(reader)
        yield from verified(_decoded(reader, memory), table)
        return
    sums = BlockSums()
    for piece in _decoded(reader, memory):
        sums.update(piece)
        yield piece
    compare_tables(sums.finish(), reader.footer())


def _decoded(reader: ArchiveReader, memory: int | None) -> Iterator[bytes]:
    """The original; only the section's own checksum is compared, at the end."""
    method, size = reader.header.method, reader.header.size
    if method is Method.STORED:
        yield from reader.source.blocks(size, "stored data")
        return
    part = reader.payload()
    yield from payload.decode(method, part, size, memory)
    reader.end_of(part)


def block_table(reader: ArchiveReader) -> array[int]:
    """The checksums behind data that begin here; only on a seekable file. Returns to the data."""
    mark = reader.source.offset
    reader.source.seek(mark + reader.data_bytes)
    table = reader.footer()
    reader.source.seek(mark)
    return table


def survey(reader: ArchiveReader) -> int:
    """Predicted peak of decoding in bytes; then the reader stands at the end, the digest read.

    Looks at the headers alone; on a file the data are not even read.
    """
    method, size = reader.header.method, reader.header.size
    if method is Method.STORED:
        window = 0
        _skip(reader, size)
    else:
        part = reader.payload()
        window = payload.declared_window(method, part, size)
        if reader.total is None:
            reader.end_of(part)
        else:
            _skip(reader, part.left)
    reader.footer()
    return payload.memory_bytes(window, size)


def _skip(reader: ArchiveReader, n: int) -> None:
    if reader.total is not None:
        reader.source.seek(reader.source.offset + n)
        return
    for _ in reader.source.blocks(n, "data"):
        pass
