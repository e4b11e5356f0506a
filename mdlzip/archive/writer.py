"""Writing archives, front to back and without seeking, so that the sink may be a pipe."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Protocol
from zlib import crc32

from mdlzip.archive.blocks import BlockSums, n_blocks, pack_table, table_bytes
from mdlzip.archive.config_section import config_bytes, pack_config
from mdlzip.archive.context_section import context_bytes, pack_context
from mdlzip.archive.cursor import put_varint
from mdlzip.archive.header import HEADER_BYTES, Header
from mdlzip.archive.index import UnitTable
from mdlzip.archive.ledger import Ledger, learned_ledger, payload_ledger, stored_ledger
from mdlzip.archive.sections import (
    DIGEST_BYTES,
    SECTION_HEADER_BYTES,
    Kind,
    framed_header,
    pack_section,
    section_head,
)
from mdlzip.errors import MdlzipError
from mdlzip.limits import READ_BLOCK_BYTES
from mdlzip.networks.registry import NetworkConfig
from mdlzip.symbols.context import CHUNK, STRICT, Context, Units
from mdlzip.symbols.layout import Layout


def stored_archive_bytes(size: int) -> int:
    """Size of a stored archive of `size` original bytes."""
    return HEADER_BYTES + size + table_bytes(size) + DIGEST_BYTES


class Writable(Protocol):
    """Anything with a binary `write` that takes all it is given."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""


@dataclass(frozen=True)
class Model:
    """What a learned archive says before its groups; weights: packed, with its three lines."""

    config: NetworkConfig
    layout: Layout
    weights: bytes
    weight_lines: dict[str, int]
    context: Context = STRICT


class _Counting:
    """Passes bytes on and keeps the offset."""

    def __init__(self, sink: Writable) -> None:
        self._sink = sink
        self.offset = 0

    def write(self, data: bytes) -> None:
        self._sink.write(data)
        self.offset += len(data)


def _name_section(name: str | None) -> bytes:
    return pack_section(Kind.NAME, name.encode()) if name else b""


def payload_archive_bytes(name: str | None, payload_bytes: int, size: int) -> int:
    """Size of a zstd or xz archive of `size` original bytes with that payload."""
    sections = len(_name_section(name)) + SECTION_HEADER_BYTES + payload_bytes
    return HEADER_BYTES + sections + table_bytes(size) + DIGEST_BYTES


def write_stored(sink: Writable, header: Header, blocks: Iterable[bytes], digest: bytes) -> Ledger:
    """Header, the original itself, footer; returns the ledger."""
    out, sums = _Counting(sink), BlockSums()
    out.write(header.pack())
    for block in blocks:
        sums.update(block)
        out.write(block)
    _write_footer(out, header, sums.finish(), digest)
    return _balanced(stored_ledger(header.size), out.offset)


def write_payload(
    sink: Writable,
    header: Header,
    name: str | None,
    payload: BinaryIO,
    sums: array[int],
    digest: bytes,
) -> Ledger:
    """An archive around the compressed stream in the seekable file `payload`.

    sums: checksum of each block of the original, see `blocks.block_sums`.
    """
    out = _Counting(sink)
    out.write(header.pack())
    out.write(_name_section(name))
    length = payload.seek(0, 2)
    head = section_head(Kind.PAYLOAD, length)
    crc = crc32(head)
    payload.seek(0)
    while block := payload.read(READ_BLOCK_BYTES):
        crc = crc32(block, crc)
    out.write(head + struct.pack("<I", crc))
    payload.seek(0)
    while block := payload.read(READ_BLOCK_BYTES):
        out.write(block)
    _write_footer(out, header, sums, digest)
    ledger = payload_ledger(len((name or "").encode()), length, header.size)
    return _balanced(ledger, out.offset)


def _write_footer(out: _Counting, header: Header, sums: array[int], digest: bytes) -> None:
    if len(sums) != n_blocks(header.size):
        raise MdlzipError(f"internal error: {len(sums)} block checksums for {header.size} bytes")
    out.write(pack_table(sums) + digest)


def write_learned(
    sink: Writable,
    header: Header,
    name: str | None,
    model: Model,
    units: Iterable[tuple[bytes, int]],
    digest: bytes,
) -> Ledger:
    """A learned archive; units: coded bytes of each unit and CRC-32 of what they decode to.

    Raises MdlzipError if there are more or fewer units than there must be.
    """
    out = _Counting(sink)
    out.write(header.pack())
    out.write(_name_section(name))
    out.write(pack_section(Kind.CONFIGURATION, pack_config(model.config, model.layout)))
    if model.context.mode != CHUNK:
        out.write(pack_section(Kind.CONTEXT, pack_context(model.context)))
    out.write(pack_section(Kind.WEIGHTS, model.weights))
    out.write(framed_header(Kind.GROUPS))
    table = UnitTable.empty()
    expected = Units(model.layout, model.context)
    for coded, crc in units:
        out.write(put_varint(len(coded)) + struct.pack("<I", crc32(coded)))
        out.write(coded)
        table.lengths.append(len(coded))
        table.crcs.append(crc)
    if len(table.lengths) != len(expected):
        raise MdlzipError(f"internal error: {len(table.lengths)} units coded of {len(expected)}")
    index_offset = out.offset
    out.write(pack_section(Kind.INDEX, table.pack()))
    out.write(struct.pack("<Q", index_offset) + digest)
    return _balanced(_ledger_of(name, model, table.lengths), out.offset)


def learned_archive_bytes(name: str | None, model: Model, lengths: Iterable[int]) -> int:
    """Size of a learned archive whose units are coded in so many bytes each."""
    return sum(_ledger_of(name, model, lengths).values())


def _ledger_of(name: str | None, model: Model, lengths: Iterable[int]) -> Ledger:
    return learned_ledger(
        len((name or "").encode()),
        config_bytes(model.config),
        model.weight_lines,
        lengths,
        context_bytes=context_bytes(model.context),
    )


def _balanced(ledger: Ledger, written: int) -> Ledger:
    """The ledger, after checking that its lines add up to the archive to the byte."""
    if sum(ledger.values()) != written:
        raise MdlzipError(f"internal error: ledger {sum(ledger.values())}, archive {written}")
    return ledger
