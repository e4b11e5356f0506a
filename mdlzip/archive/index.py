"""The index: length of every coded unit and checksum of every decoded one."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from mdlzip.archive.blocks import CRC_BYTES, pack_table, unpack_table
from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.errors import CorruptArchive
from mdlzip.limits import CODED_SLACK_BYTES, MAX_CODED_BYTES_PER_BYTE
from mdlzip.symbols.context import Units

MIN_UNIT_BYTES = 2 * (1 + 4)  # one varint and one checksum, in the frame and in the index


@dataclass
class UnitTable:
    """Per unit, in order: bytes of its coded stream and CRC-32 of the bytes it decodes to."""

    lengths: array[int]
    crcs: array[int]

    @classmethod
    def empty(cls) -> UnitTable:
        """A table to be filled unit by unit."""
        return cls(array("Q"), array("I"))

    def pack(self) -> bytes:
        """Payload of the index section: all lengths as varints, then all checksums as u32."""
        return b"".join(map(put_varint, self.lengths)) + pack_table(self.crcs)


def coded_ceiling(n_bytes: int) -> int:
    """Most bytes the coded stream of a unit of `n_bytes` may have."""
    return MAX_CODED_BYTES_PER_BYTE * n_bytes + CODED_SLACK_BYTES


def index_ceiling(units: Units) -> int:
    """Most bytes the index section's payload may have."""
    return len(units) * (4 + len(put_varint(coded_ceiling(units.most_bytes()))))


def unpack_index(payload: bytes | bytearray, units: Units, base: int = 0) -> UnitTable:
    """Parse the index of `units`; CorruptArchive unless it fits exactly."""
    if len(payload) < 5 * len(units):
        raise CorruptArchive(
            f"index section: {len(payload)} bytes for {len(units)} units (offset {base})"
        )
    cursor = Cursor(payload, "index section", base)
    table = UnitTable.empty()
    for unit in range(len(units)):
        ceiling = coded_ceiling(units.n_bytes(unit))
        table.lengths.append(cursor.varint("coded length", ceiling))
    table.crcs = unpack_table(cursor.take(CRC_BYTES * len(units), "unit checksums"))
    cursor.finish()
    return table
