"""The fixed header: the first 26 bytes of every archive."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from zlib import crc32

from mdlzip.archive.cursor import Cursor
from mdlzip.archive.source import MAGIC
from mdlzip.errors import CorruptArchive, NotAnArchive, UnsupportedVersion

VERSION = 1
HEADER_BYTES = 26
NO_METADATA = 0xFFFF  # mode of an archive made from a pipe: nothing to restore
MAX_MODE = 0o777


@dataclass(frozen=True)
class Header:
    """What the fixed header says.

    method: number of the body, 0..7, see `bodies`; mode: permission bits 0..0o777, or NO_METADATA;
    mtime_ns: nanoseconds since 1970, int64; size: bytes of the original, below 2**48.
    """

    method: int
    mode: int
    mtime_ns: int
    size: int

    @property
    def has_metadata(self) -> bool:
        """False when the original was a pipe: `mode` and `mtime_ns` then mean nothing."""
        return self.mode != NO_METADATA

    def pack(self) -> bytes:
        """The 26 bytes, checksum included."""
        body = MAGIC + struct.pack("<BBHq", VERSION, self.method, self.mode, self.mtime_ns)
        body += self.size.to_bytes(6, "little")
        return body + struct.pack("<I", crc32(body))


def unpack_header(buffer: bytes | bytearray | memoryview) -> Header:
    """Parse the first 26 bytes of an archive.

    Raises CorruptArchive (not an archive, damaged, reserved values) or UnsupportedVersion.
    The checksum is looked at before any field, so damage is never mistaken for a new version.
    """
    cursor = Cursor(buffer, "header")
    if bytes(buffer[: len(MAGIC)]) != MAGIC[: len(buffer)] or not len(buffer):
        raise NotAnArchive("this is not an mdlzip archive (its first bytes differ)")
    body = Cursor(cursor.take(HEADER_BYTES - 4, "fixed fields"), "header")
    if cursor.u32("checksum") != crc32(bytes(buffer[: HEADER_BYTES - 4])):
        raise CorruptArchive("header: checksum mismatch, the first 26 bytes are damaged")
    body.take(len(MAGIC), "magic")
    version = body.u8("version")
    if version > VERSION:
        raise UnsupportedVersion(
            f"the archive has format version {version}, this mdlzip reads up to {VERSION};"
            " install a newer mdlzip"
        )
    if version < 1:
        raise body.fail("version", "is 0, which no release wrote")
    method = body.u8("method")
    if method >> 3:
        raise body.fail("method", f"has reserved bits set ({method:#04x})")
    mode = body.u16("mode")
    if mode > MAX_MODE and mode != NO_METADATA:
        raise body.fail("mode", f"{mode:#o} has bits beyond rwxrwxrwx")
    mtime_ns = body.i64("mtime")
    size = body.u48("size")
    body.finish()
    return Header(method, mode, mtime_ns, size)


def nearest_time(mtime_ns: int) -> int:
    """The nearest time that a header can hold: those from 1677 to 2262."""
    return max(-(1 << 63), min(mtime_ns, (1 << 63) - 1))
