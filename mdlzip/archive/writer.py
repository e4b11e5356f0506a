"""What writing any archive takes: front to back, without seeking, so the sink may be a pipe."""

from __future__ import annotations

from array import array
from typing import Protocol

from mdlzip.archive.blocks import n_blocks, pack_table
from mdlzip.archive.header import Header
from mdlzip.archive.ledger import Ledger
from mdlzip.archive.sections import Kind, pack_section
from mdlzip.errors import MdlzipError


class Writable(Protocol):
    """Anything with a binary `write` that takes all it is given."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""


class Counting:
    """Passes bytes on and keeps the offset."""

    def __init__(self, sink: Writable) -> None:
        self._sink = sink
        self.offset = 0

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self._sink.write(data)
        self.offset += len(data)


def name_section(name: str | None) -> bytes:
    """The section that holds the original's name; nothing where there is none."""
    return pack_section(Kind.NAME, name.encode()) if name else b""


def write_footer(out: Counting, header: Header, sums: array[int], digest: bytes) -> None:
    """Block checksums and SHA-256; MdlzipError unless there is a checksum for every block."""
    if len(sums) != n_blocks(header.size):
        raise MdlzipError(f"internal error: {len(sums)} block checksums for {header.size} bytes")
    out.write(pack_table(sums) + digest)


def balanced(ledger: Ledger, written: int) -> Ledger:
    """The ledger, after checking that its lines add up to the archive to the byte."""
    if sum(ledger.values()) != written:
        raise MdlzipError(f"internal error: ledger {sum(ledger.values())}, archive {written}")
    return ledger
