"""What an archive says of itself; no data is decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mdlzip.archive.header import Method
from mdlzip.archive.ledger import learned_ledger, payload_ledger, stored_ledger
from mdlzip.archive.payload import DECODER_OVERHEAD_BYTES, window_bytes
from mdlzip.archive.reader import ArchiveReader, n_cells
from mdlzip.codec.decode import open_source, predicted_memory
from mdlzip.codec.options import ArchiveInfo
from mdlzip.fileio import spool


def inspect(src: str | Path) -> ArchiveInfo:
    """Header, configuration, sizes and ledger of an archive; the data stay coded.

    Every checksum but those of the data is verified. Raises CorruptArchive, UnsupportedVersion.
    """
    with _seekable(src) as (file, total):
        reader = ArchiveReader(file, total)
        if reader.header.method is Method.LEARNED:
            return _learned(str(src), reader, total)
        return _general(str(src), reader, total)


@contextlib.contextmanager
def _seekable(src: str | Path) -> Iterator[tuple[BinaryIO, int]]:
    """The archive as a seekable file; a pipe is copied to a temporary file first."""
    with open_source(src) as (file, total):
        if total is not None:
            yield file, total
            return
        with spool(file, str(src)) as copy:
            size = copy.tell()
            copy.seek(0)
            yield copy, size


def _info(
    src: str, reader: ArchiveReader, total: int, ledger: dict[str, int], memory: int, **more: object
) -> ArchiveInfo:
    header = reader.header
    return ArchiveInfo(
        source=src,
        method=header.method.label,
        original_bytes=header.size,
        archive_bytes=total,
        name=reader.name,
        mode=header.mode if header.has_metadata else None,
        mtime_ns=header.mtime_ns if header.has_metadata else None,
        sha256=reader.digest.hex(),
        ledger=ledger,
        decode_memory_bytes=memory,
        **more,  # type: ignore[arg-type]
    )


def _general(src: str, reader: ArchiveReader, total: int) -> ArchiveInfo:
    header, name_bytes = reader.header, len((reader.name or "").encode())
    if header.method is Method.STORED:
        reader.jump_to_footer(header.size)
        return _info(src, reader, total, stored_ledger(header.size), DECODER_OVERHEAD_BYTES)
    length = reader.payload_bytes()
    memory = DECODER_OVERHEAD_BYTES + window_bytes(header.method, header.size)
    reader.jump_to_footer(length)
    ledger = payload_ledger(name_bytes, length, reader.optional)
    return _info(src, reader, total, ledger, memory)


def _learned(src: str, reader: ArchiveReader, total: int) -> ArchiveInfo:
    from mdlzip.archive.weights import weights_summary

    memory = predicted_memory(reader)
    weights = weights_summary(reader.weights(), reader.config)
    table, _ = reader.jump_to_index()
    name_bytes = len((reader.name or "").encode())
    ledger = learned_ledger(name_bytes, weights.ledger, table.lengths, reader.optional)
    layout = reader.layout
    return _info(
        src,
        reader,
        total,
        ledger,
        memory,
        config=reader.config,
        chunk_size=layout.chunk_size,
        group_chunks=layout.group_chunks,
        n_groups=layout.n_groups,
        nnz=weights.nnz,
        n_weights=n_cells(reader.config),
    )
