"""Reading archives from front to back; works on pipes, checks everything on the way."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from zlib import crc32

from mdlzip.archive import payload as payload_codec
from mdlzip.archive.config_section import CONFIG_BYTES, unpack_config
from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.archive.header import HEADER_BYTES, Method, unpack_header
from mdlzip.archive.index import (
    MIN_GROUP_BYTES,
    GroupTable,
    coded_ceiling,
    index_ceiling,
    unpack_index,
)
from mdlzip.archive.sections import (
    DIGEST_BYTES,
    FIRST_OPTIONAL_KIND,
    INDEX_OFFSET_BYTES,
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
from mdlzip.config import ModelConfig
from mdlzip.errors import CorruptArchive
from mdlzip.fileio import Readable
from mdlzip.limits import (
    EXPANSION_SLACK,
    MAX_EXPANSION,
    MAX_NAME_BYTES,
    MAX_OPTIONAL_SECTION_BYTES,
    WEIGHT_BYTES_PER_CELL,
    WEIGHT_SLACK_BYTES,
)
from mdlzip.quantised.network import tensor_shapes
from mdlzip.symbols.layout import Layout

FOOTER_BYTES = INDEX_OFFSET_BYTES + DIGEST_BYTES


class ArchiveReader:
    """One pass over an archive.

    Attributes after construction: header, name (None if not stored), and for learned archives
    config and layout. Then, in this order: `weights()`, `frames()` to its end, `finish()` for
    learned archives; `content()` for the others, which yields the original and ends with the
    digest in `digest`.

    total: size of the archive if known (a seekable file), so that truncation is seen at once.
    Every method raises CorruptArchive (the header also UnsupportedVersion).
    """

    def __init__(self, file: Readable, total: int | None = None) -> None:
        self.source = ByteSource(file)
        self.total = total
        head = self.source.exactly(HEADER_BYTES, "header") if total is None else self._head()
        self.header = unpack_header(head)
        self.name: str | None = None
        self.optional: list[int] = []
        self.table = GroupTable.empty()
        self.digest = b""
        if self.header.method is Method.STORED:
            self._check_total(HEADER_BYTES + self.header.size + DIGEST_BYTES, exact=True)
            return
        self._section = self._after_name()
        if self.header.method is Method.LEARNED:
            self._read_configuration()

    def _head(self) -> bytes:
        """The header of a file; what is too short to be an archive is named by its first bytes."""
        return self.source.exactly(min(HEADER_BYTES, self.total or 0), "header")

    def _check_total(self, need: int, *, exact: bool = False) -> None:
        if self.total is not None and (self.total < need or (exact and self.total != need)):
            raise CorruptArchive(
                f"the archive has {self.total} bytes, its header asks for"
                f" {'exactly' if exact else 'at least'} {need}: truncated or damaged"
            )

    def _after_name(self) -> SectionHeader:
        """Read the name and skip optional sections; returns the header that follows them."""
        section = read_section_header(self.source)
        if section.kind == Kind.NAME:
            self.name = unpack_name(read_payload(self.source, section, MAX_NAME_BYTES))
            section = read_section_header(self.source)
        last = FIRST_OPTIONAL_KIND - 1
        while section.kind >= FIRST_OPTIONAL_KIND:
            if section.kind <= last:
                raise CorruptArchive(f"{section.label}: repeated or out of order")
            skip_payload(self.source, section, MAX_OPTIONAL_SECTION_BYTES)
            last = section.kind
            self.optional.append(section.length)
            section = read_section_header(self.source)
        return section

    def _expect(self, section: SectionHeader, kind: Kind) -> None:
        if section.kind != kind:
            raise CorruptArchive(
                f"found {section.label} where the {kind.name.lower()} section must be"
                f" (offset {section.offset})"
            )

    def _read_configuration(self) -> None:
        self._expect(self._section, Kind.CONFIGURATION)
        base = self.source.offset
        payload = read_payload(self.source, self._section, CONFIG_BYTES)
        self.config: ModelConfig
        self.layout: Layout
        self.config, self.layout = unpack_config(payload, self.header.size, base)
        self._check_total(self.source.offset + self.layout.n_groups * MIN_GROUP_BYTES)

    def weights(self) -> bytes:
        """Payload of the weights section; look at `config` and the memory limit first."""
        section = read_section_header(self.source)
        self._expect(section, Kind.WEIGHTS)
        cells = n_cells(self.config)
        return read_payload(
            self.source, section, WEIGHT_BYTES_PER_CELL * cells + WEIGHT_SLACK_BYTES
        )

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Number and coded bytes of every group, each one's checksum verified."""
        section = read_section_header(self.source)
        self._expect(section, Kind.GROUPS)
        check_framed(section)
        for group in range(self.layout.n_groups):
            length = self._varint(f"length of group {group}", coded_ceiling(self.layout, group))
            (crc,) = struct.unpack("<I", self.source.exactly(4, f"checksum of group {group}"))
            coded = self.source.exactly(length, f"data of group {group}")
            if crc32(coded) != crc:
                raise CorruptArchive(
                    f"group {group}: checksum mismatch of its coded data"
                    f" (ends at offset {self.source.offset})"
                )
            self.table.lengths.append(length)
            yield group, coded

    def _varint(self, what: str, ceiling: int) -> int:
        raw, base = bytearray(), self.source.offset
        while not raw or raw[-1] >= 0x80:
            raw += self.source.exactly(1, what)
            if len(raw) > len(put_varint(ceiling)):
                raise CorruptArchive(f"{what}: more than {ceiling} (offset {base})")
        return Cursor(raw, "frame", base).varint(what, ceiling)

    def finish(self) -> GroupTable:
        """Index and footer, cross-checked with the frames read; the index is returned."""
        table = self._tail()
        if table.lengths != self.table.lengths:
            raise CorruptArchive("index section: its lengths are not those of the groups")
        return table

    def _tail(self) -> GroupTable:
        index_offset = self.source.offset
        section = read_section_header(self.source)
        self._expect(section, Kind.INDEX)
        base = self.source.offset
        payload = read_payload(self.source, section, index_ceiling(self.layout))
        table = unpack_index(payload, self.layout, base)
        (stored,) = struct.unpack("<Q", self.source.exactly(INDEX_OFFSET_BYTES, "footer"))
        if stored != index_offset:
            raise CorruptArchive(f"footer: index offset {stored}, the index is at {index_offset}")
        self._read_digest()
        return table

    def jump_to_index(self) -> tuple[GroupTable, int]:
        """After `weights()`, on a seekable file: the index, and where the first frame begins."""
        section = read_section_header(self.source)
        self._expect(section, Kind.GROUPS)
        check_framed(section)
        start, end = self.source.offset, (self.total or 0) - FOOTER_BYTES
        self.source.seek(max(start, end))
        (offset,) = struct.unpack("<Q", self.source.exactly(INDEX_OFFSET_BYTES, "footer"))
        if not start <= offset < end:
            raise CorruptArchive(f"footer: index offset {offset} is outside {start}..{end - 1}")
        self.source.seek(offset)
        table = self._tail()
        if start + sum(map(frame_bytes, table.lengths)) != offset:
            raise CorruptArchive("index section: the groups do not fill the groups section")
        return table, start

    def jump_to_footer(self, n: int) -> None:
        """Seek past `n` bytes of data, which must end where the footer begins; read the digest."""
        if self.source.offset + n + DIGEST_BYTES != self.total:
            raise CorruptArchive(
                f"the data end at {self.source.offset + n}, the archive has {self.total} bytes"
            )
        self.source.seek(self.source.offset + n)
        self._read_digest()

    def scan(self) -> GroupTable:
        """Check the container from the weights to the end, then return to the weights.

        Only on a seekable file, and before `weights()`; nothing is decoded.
        """
        mark = self.source.offset
        self.weights()
        for _ in self.frames():
            pass
        table = self.finish()
        self.source.seek(mark)
        self.table = GroupTable.empty()
        return table

    def content(self, memory: int | None) -> Iterator[bytes]:
        """The original in blocks (stored, zstd, xz); LimitExceeded if `memory` does not suffice."""
        size, method = self.header.size, self.header.method
        if method is Method.STORED:
            yield from self.source.blocks(size, "stored data")
        else:
            section = self._section
            self._expect(section, Kind.PAYLOAD)
            check_length(section, self._payload_ceiling())
            if size > section.length * MAX_EXPANSION + EXPANSION_SLACK:
                raise CorruptArchive(
                    f"payload section: {section.length} bytes cannot hold the {size} declared"
                )
            part = SectionSource(self.source, section.length, section.seed, section.label)
            yield from payload_codec.decode(method, part, size, memory)
            check_crc(section, part.crc)
        self._read_digest()

    def _payload_ceiling(self) -> int:
        return 2 * self.header.size + EXPANSION_SLACK

    def payload_bytes(self) -> int:
        """Length of the zstd or xz stream, as declared."""
        self._expect(self._section, Kind.PAYLOAD)
        check_length(self._section, self._payload_ceiling())
        return self._section.length

    def _read_digest(self) -> None:
        self.digest = self.source.exactly(DIGEST_BYTES, "footer")
        self.source.expect_end()


def frame_bytes(length: int) -> int:
    """Bytes of the frame around a coded group of `length` bytes."""
    return len(put_varint(length)) + 4 + length


def n_cells(config: ModelConfig) -> int:
    """Number of weights of the model, zero or not."""
    cells = 0
    for shape in tensor_shapes(config).values():
        n = 1
        for extent in shape:
            n *= extent
        cells += n
    return cells
