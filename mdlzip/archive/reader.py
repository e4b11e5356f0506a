"""Reading archives from front to back; works on pipes, checks everything on the way."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from zlib import crc32

from mdlzip.archive.blocks import table_bytes, unpack_table
from mdlzip.archive.bodies import body_of
from mdlzip.archive.config_section import unpack_config
from mdlzip.archive.context_section import context_ceiling, unpack_context
from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.archive.header import HEADER_BYTES, unpack_header
from mdlzip.archive.index import (
    MIN_UNIT_BYTES,
    UnitTable,
    coded_ceiling,
    index_ceiling,
    unpack_index,
)
from mdlzip.archive.sections import (
    DIGEST_BYTES,
    FIRST_OPTIONAL_KIND,
    INDEX_OFFSET_BYTES,
    MODEL_ID_BYTES,
    Kind,
    SectionHeader,
    check_crc,
    check_framed,
    check_length,
    read_payload,
    read_section_header,
    skip_payload,
    unpack_name,
)
from mdlzip.archive.source import ByteSource, SectionSource
from mdlzip.errors import CorruptArchive
from mdlzip.fileio import Readable
from mdlzip.limits import (
    EXPANSION_SLACK,
    MAX_CARD_BYTES,
    MAX_CONFIG_BYTES,
    MAX_EXPANSION,
    MAX_NAME_BYTES,
    MAX_OPTIONAL_SECTION_BYTES,
    WEIGHT_BYTES_PER_CELL,
    WEIGHT_SLACK_BYTES,
)
from mdlzip.networks.none import NoNetwork
from mdlzip.networks.registry import NetworkConfig, n_cells
from mdlzip.symbols.context import CHUNK, STRICT, Context, Units
from mdlzip.symbols.layout import Layout


class ArchiveReader:
    """One pass over an archive.

    Attributes after construction: header, body, name (None if not stored), card (of a model file,
    else empty), and for learned archives config, layout, context, units, and model_id: of the model
    file that has the weights; empty if they are here. Then, in this order: `weights()`, `frames()`
    to its end, `finish()` for learned archives, which puts the original's SHA-256 into `digest`;
    for the others see `bodies.general`.

    total: size of the archive if known (a seekable file), so that truncation is seen at once.
    Every method raises CorruptArchive (the header also UnsupportedVersion).
    """

    def __init__(self, file: Readable, total: int | None = None) -> None:
        self._file = file
        self.source = ByteSource(file)
        self.total = total
        head = self.source.exactly(HEADER_BYTES, "header") if total is None else self._head()
        self.header = unpack_header(head)
        self.body = body_of(self.header.method)
        self._footer_bytes = self.body.footer_bytes(self.header.size)
        self.name: str | None = None
        self.optional: list[int] = []
        self.card = b""
        self.model_id = b""
        self.table = UnitTable.empty()
        self.digest = b""
        self.body.begin(self)

    def again(self) -> ArchiveReader:
        """A fresh reader of the archive; only on a seekable file."""
        self.source.seek(0)
        return ArchiveReader(self._file, self.total)

    def _head(self) -> bytes | bytearray:
        """The header of a file; what is too short to be an archive is named by its first bytes."""
        return self.source.exactly(min(HEADER_BYTES, self.total or 0), "header")

    def _check_total(self, need: int) -> None:
        if self.total is not None and self.total < need:
            raise CorruptArchive(
                f"the archive has {self.total} bytes, its header asks for at least {need}:"
                " truncated or damaged"
            )

    def check_end(self, data_bytes: int) -> None:
        """After the header of the data: compare where they end with the size of the file.

        CorruptArchive says how many bytes are missing or follow.
        """
        end = self.source.offset + data_bytes + self._footer_bytes
        self._check_total(end)
        if self.total is not None and self.total > end:
            self.source.seek(end)
            self.source.expect_end(self.total)

    def begin_sections(self) -> None:
        """Read the name and skip optional sections, up to the header that follows them."""
        if self.header.size == 0:
            raise CorruptArchive(f"header: nothing is kept as {self.body.label}; it must be stored")
        section = read_section_header(self.source)
        if section.kind == Kind.NAME:
            self.name = unpack_name(read_payload(self.source, section, MAX_NAME_BYTES))
            section = read_section_header(self.source)
        last = FIRST_OPTIONAL_KIND - 1
        while section.kind >= FIRST_OPTIONAL_KIND:
            if section.kind <= last:
                raise CorruptArchive(f"{section.label}: repeated or out of order")
            if section.kind == Kind.CARD:
                self.card = bytes(read_payload(self.source, section, MAX_CARD_BYTES))
            else:
                skip_payload(self.source, section, MAX_OPTIONAL_SECTION_BYTES)
            last = section.kind
            self.optional.append(section.length)
            section = read_section_header(self.source)
        self._section = section

    def _expect(self, section: SectionHeader, kind: Kind) -> None:
        if section.kind != kind:
            raise CorruptArchive(
                f"found {section.label} where the {kind.name.lower()} section must be"
                f" (offset {section.offset})"
            )

    def begin_configuration(self) -> None:
        """Read configuration, context and model of a learned archive, up to its weights."""
        self._expect(self._section, Kind.CONFIGURATION)
        base = self.source.offset
        payload = read_payload(self.source, self._section, MAX_CONFIG_BYTES)
        self.config: NetworkConfig
        self.layout: Layout
        self.config, self.layout = unpack_config(payload, self.header.size, base)
        self.context: Context = STRICT
        self._section = read_section_header(self.source)
        if self._section.kind == Kind.CONTEXT:
            base = self.source.offset
            payload = read_payload(self.source, self._section, context_ceiling(self.layout))
            self.context = unpack_context(payload, self.layout, base)
            self._section = read_section_header(self.source)
        if self._section.kind == Kind.MODEL:
            self.model_id = bytes(read_payload(self.source, self._section, MODEL_ID_BYTES))
            if len(self.model_id) < MODEL_ID_BYTES:
                raise CorruptArchive("model section: is too short for an id")
        if self.context.mode == CHUNK and isinstance(self.config, NoNetwork):
            raise CorruptArchive("configuration section: without a network there must be a context")
        self.units = Units(self.layout, self.context)
        self._check_total(self.source.offset + len(self.units) * MIN_UNIT_BYTES)

    def weights_section(self) -> SectionSource:
        """The weights section, to be read in pieces; `end_of` must follow when all are read."""
        section = self._section
        self._expect(section, Kind.WEIGHTS)
        check_length(section, WEIGHT_BYTES_PER_CELL * n_cells(self.config) + WEIGHT_SLACK_BYTES)
        self._check_total(self.source.offset + section.length + self._footer_bytes)
        return SectionSource(self.source, section.length, section.seed, section.label)

    def end_of(self, part: SectionSource) -> None:
        """Read what is left of the section that was opened last and verify its checksum."""
        while part.read():
            pass
        check_crc(self._section, part.crc)

    def weights(self) -> bytes | bytearray:
        """Payload of the weights section; look at `config` and the memory limit first."""
        part = self.weights_section()
        payload = part.all()
        self.end_of(part)
        return payload

    def frames(self) -> Iterator[tuple[int, bytes | bytearray]]:
        """Number and coded bytes of every unit, each one's checksum verified."""
        section = read_section_header(self.source)
        self._expect(section, Kind.GROUPS)
        check_framed(section)
        for unit in range(len(self.units)):
            ceiling = coded_ceiling(self.units.n_bytes(unit))
            length = self._varint(f"length of unit {unit}", ceiling)
            (crc,) = struct.unpack("<I", self.source.exactly(4, f"checksum of unit {unit}"))
            coded = self.source.exactly(length, f"data of unit {unit}")
            if crc32(coded) != crc:
                raise CorruptArchive(
                    f"unit {unit}: checksum mismatch of its coded data"
                    f" (ends at offset {self.source.offset})"
                )
            self.table.lengths.append(length)
            yield unit, coded

    def _varint(self, what: str, ceiling: int) -> int:
        raw, base = bytearray(), self.source.offset
        while not raw or raw[-1] >= 0x80:
            raw += self.source.exactly(1, what)
            if len(raw) > len(put_varint(ceiling)):
                raise CorruptArchive(f"{what}: more than {ceiling} (offset {base})")
        return Cursor(raw, "frame", base).varint(what, ceiling)

    def finish(self) -> UnitTable:
        """Index and footer, cross-checked with the frames read; the index is returned."""
        table = self._tail()
        if table.lengths != self.table.lengths:
            raise CorruptArchive("index section: its lengths are not those of the units")
        return table

    def _tail(self) -> UnitTable:
        """Index and footer at the current offset."""
        index_offset = self.source.offset
        section = read_section_header(self.source)
        self._expect(section, Kind.INDEX)
        base = self.source.offset
        payload = read_payload(self.source, section, index_ceiling(self.units))
        table = unpack_index(payload, self.units, base)
        (stored,) = struct.unpack("<Q", self.source.exactly(INDEX_OFFSET_BYTES, "footer"))
        if stored != index_offset:
            raise CorruptArchive(f"footer: index offset {stored}, the index is at {index_offset}")
        self._read_digest()
        return table

    def jump_to_index(self) -> tuple[UnitTable, int]:
        """After the weights, on a seekable file: the index, and where the first frame begins."""
        section = read_section_header(self.source)
        self._expect(section, Kind.GROUPS)
        check_framed(section)
        start = self.source.offset
        try:
            return self._index_from_footer(start), start
        except CorruptArchive:
            # Where the end is wrong the way from the front tells what is: a frame that is cut off,
            # bytes behind the archive, another index.
            self.source.seek(section.offset)
            for _ in self.frames():
                pass
            self.finish()
            raise

    def _index_from_footer(self, start: int) -> UnitTable:
        end = (self.total or 0) - self._footer_bytes
        self.source.seek(max(start, end))
        (offset,) = struct.unpack("<Q", self.source.exactly(INDEX_OFFSET_BYTES, "footer"))
        if not start <= offset < end:
            raise CorruptArchive(f"footer: index offset {offset} is outside {start}..{end - 1}")
        self.source.seek(offset)
        table = self._tail()
        if start + sum(map(frame_bytes, table.lengths)) != offset:
            raise CorruptArchive("index section: the units do not fill the groups section")
        return table

    def scan(self) -> UnitTable:
        """Check the container from the groups to the end, then return to the groups.

        Only on a seekable file, and after the weights; nothing is decoded.
        """
        mark = self.source.offset
        for _ in self.frames():
            pass
        table = self.finish()
        self.source.seek(mark)
        self.table = UnitTable.empty()
        return table

    def payload(self) -> SectionSource:
        """The compressed stream; `end_of` must follow when it is decoded."""
        section = self._section
        return SectionSource(self.source, section.length, section.seed, section.label)

    def begin_payload(self) -> None:
        """Check the header of the payload section, behind which the compressed stream begins."""
        section, size = self._section, self.header.size
        self._expect(section, Kind.PAYLOAD)
        check_length(section, 2 * size + EXPANSION_SLACK)
        if size > section.length * MAX_EXPANSION + EXPANSION_SLACK:
            raise CorruptArchive(
                f"payload section: {section.length} bytes cannot hold the {size} declared"
            )
        self.check_end(section.length)

    def footer(self) -> array[int]:
        """The block checksums behind the data of a general body; reads the digest, too."""
        table = unpack_table(self.source.exactly(table_bytes(self.header.size), "block checksums"))
        self._read_digest()
        return table

    def _read_digest(self) -> None:
        self.digest = bytes(self.source.exactly(DIGEST_BYTES, "footer"))
        self.source.expect_end(self.total)


def frame_bytes(length: int) -> int:
    """Bytes of the frame around a coded unit of `length` bytes."""
    return len(put_varint(length)) + 4 + length
