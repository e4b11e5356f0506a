"""Fields of an archive, taken one after the other."""


class Refused(ValueError):
    """The archive breaks a rule of the format."""


class Undecoded(Refused):
    """The container keeps the rules, but this decoder does not decode what is in it."""


def require(condition: bool, rule: str) -> None:
    if not condition:
        raise Refused(rule)


class Fields:
    """Bytes that are read from front to back; `what` they are is for messages."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.at, self.what = data, 0, what

    def left(self) -> int:
        return len(self.data) - self.at

    def peek(self) -> int:
        return self.data[self.at] if self.left() else -1

    def take(self, n: int) -> bytes:
        require(n <= self.left(), f"{self.what}: ends too soon, at {len(self.data)}")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, n: int, least: int = 0, most: int = 2**64) -> int:
        """An integer of n bytes; two's complement if `least` is negative."""
        value = int.from_bytes(self.take(n), "little", signed=least < 0)
        require(least <= value <= most, f"{self.what}: {value} at {self.at} is out of range")
        return value

    def varint(self, most: int) -> int:
        raw = self.take(1)
        while raw[-1] >= 128 and len(raw) < 7:
            raw += self.take(1)
        value = sum((byte & 127) << 7 * i for i, byte in enumerate(raw))
        shortest = raw[-1] < 128 and (raw[-1] > 0 or len(raw) == 1)
        require(shortest and value <= most, f"{self.what}: varint before {self.at}")
        return value

    def end(self) -> None:
        require(not self.left(), f"{self.what}: {self.left()} bytes too many")
