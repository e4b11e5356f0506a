"""The group index: length of every coded group and checksum of every decoded one."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from mdlzip.archive.blocks import CRC_BYTES, pack_table, unpack_table
from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.errors import CorruptArchive
from mdlzip.limits import CODED_SLACK_BYTES, MAX_CODED_BYTES_PER_BYTE
from mdlzip.symbols.layout import Layout

MIN_GROUP_BYTES = 2 * (1 + 4)  # one varint and one checksum, in the frame and in the index


@dataclass
class GroupTable:
    """Per group, in order: bytes of its coded stream and CRC-32 of the bytes it decodes to."""

    lengths: array[int]
    crcs: array[int]

    @classmethod
    def empty(cls) -> GroupTable:
        """A table to be filled group by group."""
        return cls(array("Q"), array("I"))

    def pack(self) -> bytes:
        """Payload of the index section: all lengths as varints, then all checksums as u32."""
        return b"".join(map(put_varint, self.lengths)) + pack_table(self.crcs)


def coded_ceiling(layout: Layout, group: int) -> int:
    """Most bytes the coded stream of `group` may have."""
    start, stop = layout.group_span(group)
    return MAX_CODED_BYTES_PER_BYTE * (stop - start) + CODED_SLACK_BYTES


def index_ceiling(layout: Layout) -> int:
    """Most bytes the index section's payload may have."""
    if not layout.n_groups:
        return 0
    return layout.n_groups * (4 + len(put_varint(coded_ceiling(layout, 0))))


def unpack_index(payload: bytes | bytearray, layout: Layout, base: int = 0) -> GroupTable:
    """Parse the index of `layout`; CorruptArchive unless it fits exactly."""
    if len(payload) < 5 * layout.n_groups:
        raise CorruptArchive(
            f"index section: {len(payload)} bytes for {layout.n_groups} groups (offset {base})"
        )
    cursor = Cursor(payload, "index section", base)
    table = GroupTable.empty()
    for group in range(layout.n_groups):
        table.lengths.append(cursor.varint("coded length", coded_ceiling(layout, group)))
    table.crcs = unpack_table(cursor.take(CRC_BYTES * layout.n_groups, "group checksums"))
    cursor.finish()
    return table
