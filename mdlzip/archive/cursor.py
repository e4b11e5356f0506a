"""The one place that slices untrusted bytes, and its inverse for variable-length integers."""

from __future__ import annotations

from mdlzip.errors import CorruptArchive

MAX_VARINT_BYTES = 7  # 49 bits: more than any length of the format


class Cursor:
    """Reads little-endian fields from an untrusted buffer.

    buffer: the bytes; what: what they are, for messages ("header", "weights section");
    base: offset of the buffer's first byte in the archive, so that messages give file offsets.
    Every reading method raises CorruptArchive naming the field and its offset when it cannot.
    """

    def __init__(self, buffer: bytes | bytearray | memoryview, what: str, base: int = 0) -> None:
        self._buf = memoryview(buffer).cast("B")
        self._pos = 0
        self._what = what
        self._base = base

    @property
    def offset(self) -> int:
        """Offset in the archive of the next byte."""
        return self._base + self._pos

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._buf) - self._pos

    def fail(self, what: str, reason: str) -> CorruptArchive:
        """An error, to be raised, that names a field of this buffer and where the cursor stands."""
        return CorruptArchive(f"{self._what}: {what} {reason} (offset {self.offset})")

    def take(self, n: int, what: str) -> memoryview:
        """Next `n` bytes as a view."""
        if not 0 <= n <= self.left:
            raise self.fail(what, f"needs {n} bytes, {self.left} left")
        self._pos += n
        return self._buf[self._pos - n : self._pos]

    def _unsigned(self, n: int, what: str) -> int:
        return int.from_bytes(self.take(n, what), "little")

    def u8(self, what: str) -> int:
        """One byte."""
        return self._unsigned(1, what)

    def u16(self, what: str) -> int:
        """Two bytes, little-endian."""
        return self._unsigned(2, what)

    def u32(self, what: str) -> int:
        """Four bytes, little-endian."""
        return self._unsigned(4, what)

    def u48(self, what: str) -> int:
        """Six bytes, little-endian."""
        return self._unsigned(6, what)

    def i64(self, what: str) -> int:
        """Eight bytes, little-endian, two's complement."""
        return int.from_bytes(self.take(8, what), "little", signed=True)

    def varint(self, what: str, ceiling: int = (1 << 48) - 1) -> int:
        """LEB128 integer of at most `ceiling`; a longer spelling than needed is refused."""
        value = 0
        for i in range(MAX_VARINT_BYTES):
            byte = self.u8(what)
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if i and not byte:
                    raise self.fail(what, "is spelt with more bytes than it needs")
                break
        else:
            raise self.fail(what, f"is longer than {MAX_VARINT_BYTES} bytes")
        if value > ceiling:
            raise self.fail(what, f"is {value}, more than {ceiling}")
        return value

    def finish(self) -> None:
        """Raises CorruptArchive unless every byte was read."""
        if self.left:
            raise CorruptArchive(f"{self._what}: {self.left} unread bytes at offset {self.offset}")


def put_varint(value: int) -> bytes:
    """The shortest LEB128 spelling of a non-negative integer."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
