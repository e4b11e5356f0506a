"""docs/format-model.md, "Binary decoder"."""

from tests.second_decoder.fields import require


class BinaryDecoder:
    """Decisions from a stream; `what` it is is for messages."""

    def __init__(self, stream: bytes, what: str) -> None:
        require(stream[-1:] != b"\0", f"{what}: ends in a zero byte")
        self.bytes, self.at, self.what = stream, 4, what
        self.range, self.code = 1 << 32, int.from_bytes(stream[:4].ljust(4, b"\0"), "big")

    def bit(self, p: int, bits: int) -> int:
        """The next decision; p / 2^bits is the probability of 1."""
        bound = self.range * p >> bits
        bit = int(self.code < bound)
        self.range, self.code = (
            (bound, self.code) if bit else (self.range - bound, self.code - bound)
        )
        while self.range < 1 << 24:
            byte = self.bytes[self.at] if self.at < len(self.bytes) else 0
            self.range, self.code, self.at = self.range << 8, self.code << 8 | byte, self.at + 1
        return bit

    def end(self) -> None:
        require(self.at >= len(self.bytes), f"{self.what}: bytes that no decision reads")
