"""The parts of a damaged archive that can be found and are what their checksums say.

Where the ordinary reader stops at the first error, this one looks for each part by itself: sections
by the headers before them, the index by the footer, by its own length or behind the last frame,
coded units by the index from the front and from the back, or by their own lengths. A single flipped
bit in any of them is put right (`repair`).
"""

from __future__ import annotations

import io
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO
from zlib import crc32

from mdlzip.archive.blocks import CRC_BYTES, table_bytes, unpack_table
from mdlzip.archive.bodies import body_of
from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.archive.header import HEADER_BYTES, unpack_header
from mdlzip.archive.index import UnitTable, coded_ceiling, index_ceiling, unpack_index
from mdlzip.archive.reader import frame_bytes
from mdlzip.archive.repair import mended
from mdlzip.archive.sections import (
    DIGEST_BYTES,
    FIRST_OPTIONAL_KIND,
    INDEX_OFFSET_BYTES,
    SECTION_HEADER_BYTES,
    Kind,
)
from mdlzip.errors import CorruptArchive, UnsupportedVersion
from mdlzip.symbols.context import Units

_INDEX = bytes([Kind.INDEX, 0])  # kind and flags
_BEFORE_GROUPS = (Kind.WEIGHTS, Kind.MODEL)
_LAST = (*_BEFORE_GROUPS, Kind.PAYLOAD)  # the last section whose header tells its length


@dataclass(frozen=True)
class Section:
    """A section that is what its checksum says; end: where the next one begins."""

    kind: int
    payload: bytes
    end: int
    repaired: bool


class Copy:
    """One file with an archive in it, damaged or not.

    most: bytes of a section that is looked at. Attributes: header (26 bytes, None if it is lost),
    sections by kind (whole ones), damaged (kinds of the others, as they say), places (where any of
    them begin), data_at (where frames, payload or the stored original do; None if not known).
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self.total = file.seek(0, io.SEEK_END)
        self._most = most
        self.sections: dict[int, Section] = {}
        self.damaged: list[int] = []
        self.data_at: int | None = None
        self.places: set[int] = set()
        self._payload_bytes = 0
        self.header, self.header_repaired = self._read_header()
        if self.header is not None and not body_of(unpack_header(self.header).method).has_sections:
            self.data_at = HEADER_BYTES
        else:
            self._read_sections()

    def at(self, offset: int, n: int) -> bytes:
        """Up to `n` bytes; fewer where the file ends."""
        there = min(n, self.total - offset)
        if there <= 0:
            return b""
        self._file.seek(offset)
        return self._file.read(there)

    def _read_header(self) -> tuple[bytes | None, bool]:
        raw = self.at(0, HEADER_BYTES)
        body, crc = raw[: HEADER_BYTES - CRC_BYTES], raw[HEADER_BYTES - CRC_BYTES :]
        if len(crc) < CRC_BYTES:
            return None, False
        found = mended(body, int.from_bytes(crc, "little"))
        if found is None:
            return None, False
        whole = found[0] + struct.pack("<I", crc32(found[0]))
        try:
            unpack_header(whole)
        except (CorruptArchive, UnsupportedVersion):
            if not found[1]:  # its checksum is right: it is what its writer wanted
                raise
            return None, False
        return whole, found[1]

    def _read_sections(self) -> None:
        offset: int | None = HEADER_BYTES
        while offset is not None:
            self.places.add(offset)
            section = self._keep(offset)
            offset = self._behind_damaged(offset) if section is None else section.end
            if section is not None and section.kind in _LAST:
                return

    def look_at(self, places: set[int]) -> None:
        """Look for sections where another copy has some."""
        for offset in sorted(places - self.places):
            self._keep(offset)

    def _keep(self, offset: int) -> Section | None:
        """The section here, remembered."""
        section = self.section_at(offset)
        if section is not None:
            if section.kind < FIRST_OPTIONAL_KIND:
                self.sections.setdefault(section.kind, section)
            if section.kind in _LAST:
                framed = section.kind in _BEFORE_GROUPS
                self.data_at = section.end + framed * SECTION_HEADER_BYTES
        return section

    def _behind_damaged(self, offset: int) -> int | None:
        """Where the section behind a damaged one begins, by the length that it declares."""
        head = self.at(offset, SECTION_HEADER_BYTES)
        if len(head) < SECTION_HEADER_BYTES:
            return None
        kind, length = head[0], int.from_bytes(head[2:8], "little")
        end = offset + SECTION_HEADER_BYTES + length
        self.damaged.append(kind)
        if kind == Kind.PAYLOAD:
            self.data_at, self._payload_bytes = offset + SECTION_HEADER_BYTES, length
            return None
        if end + SECTION_HEADER_BYTES > self.total:
            return None
        if kind in _BEFORE_GROUPS:
            self.data_at = end + SECTION_HEADER_BYTES
            return None
        return end

    def section_at(self, offset: int) -> Section | None:
        """The section that begins here, put right if that takes one bit; None if it is none."""
        head = self.at(offset, SECTION_HEADER_BYTES)
        if len(head) < SECTION_HEADER_BYTES:
            return None
        stored = int.from_bytes(head[8:], "little")
        for right in _one_flip(head[:8]):
            payload = self._declared(right, offset)
            if payload is not None and crc32(payload, crc32(right)) == stored:
                end = offset + SECTION_HEADER_BYTES + len(payload)
                return Section(right[0], payload, end, right != head[:8])
        payload = self._declared(head[:8], offset)
        found = None if payload is None else mended(head[:8] + payload, stored)
        if payload is None or found is None:
            return None
        return Section(head[0], found[0][8:], offset + SECTION_HEADER_BYTES + len(payload), True)

    def _declared(self, head: bytes, offset: int) -> bytes | None:
        """The bytes that a section header announces, if there can be so many."""
        n, start = int.from_bytes(head[2:], "little"), offset + SECTION_HEADER_BYTES
        if head[1] or n > min(self._most, self.total - start):
            return None
        return self.at(start, n)

    # --- learned archives ---------------------------------------------------------------------

    def index(self, units: Units) -> tuple[UnitTable | None, int | None]:
        """The index, None if it is lost; and where it begins, so that units end before it."""
        for offset in self._index_places(units):
            section = self.section_at(offset)
            if section is not None and section.kind == Kind.INDEX:
                try:
                    return unpack_index(section.payload, units), offset
                except CorruptArchive:
                    continue
        return None, None

    def _index_places(self, units: Units) -> Iterator[int]:
        """Where the index may begin, best first."""
        end = self.total - DIGEST_BYTES - INDEX_OFFSET_BYTES
        told = int.from_bytes(self.at(end, INDEX_OFFSET_BYTES), "little")
        for bit in (None, *range(64)):
            offset = told if bit is None else told ^ 1 << bit
            if HEADER_BYTES < offset < end and self.at(offset, 1) == _INDEX[:1]:
                yield offset
        start = max(HEADER_BYTES, end - SECTION_HEADER_BYTES - index_ceiling(units))
        tail, at = self.at(start, end - start), 0
        while (at := tail.find(_INDEX, at)) >= 0:
            length = int.from_bytes(tail[at + 2 : at + 8], "little")
            if start + at + SECTION_HEADER_BYTES + length == end:
                yield start + at
            at += 1
        offsets = self.walked(units)
        if len(offsets) == len(units):
            last, length = offsets[-1]
            yield last + frame_bytes(length)

    def walked(self, units: Units) -> list[tuple[int, int]]:
        """(Offset of the frame, coded length), of as many units as their own lengths tell."""
        offset, found = self.data_at, []
        for unit in range(len(units) if offset is not None else 0):
            assert offset is not None
            ceiling = coded_ceiling(units.n_bytes(unit))
            try:
                length = Cursor(self.at(offset, 8), "frame").varint("length", ceiling)
            except CorruptArchive:
                break
            if offset + frame_bytes(length) > self.total:
                break
            found.append((offset, length))
            offset += frame_bytes(length)
        return found

    def frames(
        self, units: Units, table: UnitTable | None, index_at: int | None
    ) -> list[list[tuple[int, int]]]:
        """For each unit the places where its frame may be: (offset, coded length).

        By the lengths in the index from the front and from the back (so that bytes that are missing
        in one frame, or too many, cost no other), else by the frames' own lengths.
        """
        walked = [[place] for place in self.walked(units)]
        if table is None:
            return walked + [[] for _ in range(len(units) - len(walked))]
        sizes = [frame_bytes(length) for length in table.lengths]
        places: list[list[tuple[int, int]]] = [[] for _ in sizes]
        for start in (self.data_at, None if index_at is None else index_at - sum(sizes)):
            for unit, offset in enumerate(accumulate(sizes[:-1], initial=start or 0)):
                place = offset, table.lengths[unit]
                if start is not None and place not in places[unit]:
                    places[unit].append(place)
        return places

    def coded(self, offset: int, length: int) -> tuple[bytes, bool] | None:
        """The coded stream of the frame here, and whether a bit was flipped; None if it is lost."""
        head = len(put_varint(length))
        frame = self.at(offset + head, CRC_BYTES + length)
        if len(frame) < CRC_BYTES + length:
            return None
        return mended(frame[CRC_BYTES:], int.from_bytes(frame[:CRC_BYTES], "little"))

    @property
    def digest(self) -> bytes:
        """The last bytes of the file: the SHA-256 of the original, if nothing is missing."""
        return self.at(max(0, self.total - DIGEST_BYTES), DIGEST_BYTES)

    # --- the other archives -------------------------------------------------------------------

    def payload_file(self) -> tuple[BinaryIO, int] | None:
        """The compressed stream of a zstd or xz archive, and its length; None if it is lost."""
        if Kind.PAYLOAD in self.sections:
            payload = self.sections[Kind.PAYLOAD].payload
            return io.BytesIO(payload), len(payload)
        if self.data_at is None:
            return None
        self._file.seek(self.data_at)
        return self._file, min(self._payload_bytes, self.total - self.data_at)

    def block_tables(self, size: int) -> list[array[int]]:
        """The checksums of the blocks, as they may stand behind the data or before the end.

        Fewer than there are blocks if some are cut off.
        """
        places = {self.total - DIGEST_BYTES - table_bytes(size), self._data_end(size)}
        tables: list[array[int]] = []
        for start in sorted(place for place in places if place is not None and place > 0):
            raw = self.at(start, table_bytes(size))
            tables.append(unpack_table(raw[: len(raw) // CRC_BYTES * CRC_BYTES]))
        return tables

    def _data_end(self, size: int) -> int | None:
        if Kind.PAYLOAD in self.sections:
            return self.sections[Kind.PAYLOAD].end
        if self.data_at == HEADER_BYTES:
            return HEADER_BYTES + size
        return None if self.data_at is None else self.data_at + self._payload_bytes


def _one_flip(head: bytes) -> Iterator[bytes]:
    """The eight bytes, then those with one bit flipped."""
    yield head
    number = int.from_bytes(head, "little")
    for bit in range(64):
        yield (number ^ 1 << bit).to_bytes(8, "little")
