"""Sections: kind, length and checksum of each part of an archive, and the footer."""

from __future__ import annotations

import struct
import unicodedata
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from mdlzip.archive.cursor import Cursor
from mdlzip.archive.source import ByteSource, SectionSource
from mdlzip.errors import CorruptArchive
from mdlzip.limits import MAX_NAME_BYTES

SECTION_HEADER_BYTES = 12
FRAMED = (1 << 48) - 1  # length of a section that is made of frames, each with its own length
FIRST_OPTIONAL_KIND = 128
DIGEST_BYTES = 32
INDEX_OFFSET_BYTES = 8
MODEL_ID_BYTES = 32


class Kind(IntEnum):
    """What a section holds; kinds from 128 on are optional and skipped when unknown."""

    NAME = 1
    CONFIGURATION = 2
    WEIGHTS = 3
    GROUPS = 4
    INDEX = 5
    PAYLOAD = 6
    CONTEXT = 7
    MODEL = 8
    CARD = 128


@dataclass(frozen=True)
class SectionHeader:
    """The twelve bytes before a section's payload.

    crc: CRC-32 over the first eight bytes of this header and the payload (over those eight bytes
    alone if framed); seed: CRC-32 of the eight bytes, where checking starts.
    """

    kind: int
    length: int
    crc: int
    seed: int
    offset: int

    @property
    def label(self) -> str:
        """For messages: "weights section"."""
        known = self.kind in list(Kind)
        return f"{Kind(self.kind).name.lower()} section" if known else f"section {self.kind}"


def section_head(kind: Kind, length: int) -> bytes:
    """The eight bytes of a section header that its checksum begins with."""
    return struct.pack("<BB", kind, 0) + length.to_bytes(6, "little")


def pack_section(kind: Kind, payload: bytes) -> bytes:
    """Header and payload of a section that fits in memory."""
    head = section_head(kind, len(payload))
    return head + struct.pack("<I", crc32(payload, crc32(head))) + payload


def framed_header(kind: Kind) -> bytes:
    """Header of a section whose length is not known yet; frames follow it."""
    head = section_head(kind, FRAMED)
    return head + struct.pack("<I", crc32(head))


def read_section_header(source: ByteSource) -> SectionHeader:
    """The next section header; CorruptArchive if its reserved byte is not zero."""
    offset = source.offset
    raw = source.exactly(SECTION_HEADER_BYTES, "section header")
    cursor = Cursor(raw, "section header", offset)
    kind, flags = cursor.u8("kind"), cursor.u8("flags")
    length, crc = cursor.u48("length"), cursor.u32("checksum")
    if flags:
        raise CorruptArchive(f"section header: reserved flags {flags:#04x} (offset {offset + 1})")
    seed = crc32(Cursor(raw, "section header").take(8, "checked fields"))
    return SectionHeader(kind, length, crc, seed, offset)


def read_payload(source: ByteSource, header: SectionHeader, ceiling: int) -> bytes | bytearray:
    """The payload of a section of at most `ceiling` bytes, its checksum verified."""
    check_length(header, ceiling)
    payload = source.exactly(header.length, header.label)
    check_crc(header, crc32(payload, header.seed))
    return payload


def skip_payload(source: ByteSource, header: SectionHeader, ceiling: int) -> None:
    """Read past an optional section; its checksum is verified all the same."""
    check_length(header, ceiling)
    section = SectionSource(source, header.length, header.seed, header.label)
    while section.read():
        pass
    check_crc(header, section.crc)


def check_length(header: SectionHeader, ceiling: int) -> None:
    """CorruptArchive if the section declares more than `ceiling` bytes."""
    if header.length > ceiling:
        raise CorruptArchive(
            f"{header.label}: declares {header.length} bytes, more than the {ceiling} it may have"
            f" (offset {header.offset})"
        )


def check_crc(header: SectionHeader, crc: int) -> None:
    """CorruptArchive unless `crc` is the checksum the section declares."""
    if crc != header.crc:
        raise CorruptArchive(f"{header.label}: checksum mismatch (offset {header.offset})")


def check_framed(header: SectionHeader) -> None:
    """CorruptArchive unless the header is that of an undamaged framed section."""
    if header.length != FRAMED:
        raise CorruptArchive(f"{header.label}: its length must be 2^48 - 1 ({header.offset})")
    check_crc(header, header.seed)


def storable_name(name: str | None) -> str | None:
    """`name` if an archive may hold it: a plain, printable file name in UTF-8; else None."""
    if not name or name in (".", "..") or any(c in "/\\" for c in name):
        return None
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        return None
    return name if len(name.encode()) <= MAX_NAME_BYTES else None


def harmless_name(name: str) -> bool:
    """Whether a stored name may be used without asking.

    Not if it is hidden, looks like an option, ends or begins in a blank, or has characters that
    cannot be seen and may turn what is around them (category Cf).
    """
    if name.startswith((".", "-")) or name != name.strip():
        return False
    return not any(unicodedata.category(c) == "Cf" for c in name)


def unpack_name(payload: bytes | bytearray) -> str:
    """The stored file name; CorruptArchive if it could reach outside the folder or a terminal."""
    try:
        name = payload.decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptArchive("name section: not UTF-8") from None
    if storable_name(name) is None:
        raise CorruptArchive(f"name section: {name!r} is not a plain file name")
    return name
