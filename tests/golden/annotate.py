"""An archive cut into its fields, each with its meaning; for learned archives without merges."""

from __future__ import annotations

from collections.abc import Iterator

from tests.second_decoder.fields import Fields
from tests.second_decoder.model import CONFIGURATION, SITES, read_config

Line = tuple[int, bytes, str]
PAGE_NAMES = {"layer_norm": "norm", "gelu": "activation", "sinusoidal": "positions"}
SECTIONS = {2: "configuration", 3: "weights", 4: "groups", 5: "index"}


def annotated(data: bytes) -> Iterator[Line]:
    """Offset, bytes and meaning of every field of a learned archive with one group."""
    fields = Fields(data, "archive")

    def field(n: int, meaning: str) -> Line:
        return fields.at, fields.take(n), meaning

    def number(at: int, n: int) -> int:
        return int.from_bytes(data[at : at + n], "little")

    yield field(4, "header: magic")
    yield field(1, "version 1")
    yield field(1, "method 3: learned")
    yield field(2, f"mode {number(fields.at, 2):#o}")
    yield field(8, f"mtime {number(fields.at, 8)}: 2001-09-09 01:46:40 UTC")
    yield field(6, f"size {number(fields.at, 6)}")
    yield field(4, "CRC-32 of bytes 0 to 21")
    yield from section(fields, 2)
    config = read_config(Fields(data[fields.at : fields.at + 24], "configuration"))
    for name, n, *_ in CONFIGURATION:
        yield field(n, f"{PAGE_NAMES.get(name, name)} {number(fields.at, n)}")
    yield from section(fields, 3)
    end = fields.at + number(fields.at - 10, 6)
    yield field(1, "mode 0: coded")
    alphabet = [b for b in range(256) if data[fields.at + b // 8] >> b % 8 & 1]
    yield field(32, f"alphabet: {', '.join(map(str, alphabet))}; there are no merges")
    for name in config.shapes:
        mantissa, exponent = number(fields.at, 2), number(fields.at + 2, 1)
        yield field(3, f"step of `{name}`: {mantissa} * 2^{-exponent}")
    for site in [*(f"blocks.0.{site}" for site in SITES), "head_in"]:
        yield field(1, f"exponent of `{site}`: {number(fields.at, 1)}")
    yield field(1, f"non-zero codes: {data[fields.at]}")
    yield field(1, f"positions: {data[fields.at]}")
    yield field(end - fields.at, "weights stream")
    yield from section(fields, 4)
    yield field(1, f"group 0: coded length {data[fields.at]}")
    length = data[fields.at - 1]
    yield field(4, "CRC-32 of the coded stream")
    yield field(length, "coded stream")
    yield from section(fields, 5)
    yield field(1, f"coded length of group 0: {data[fields.at]}")
    yield field(4, "CRC-32 of the bytes that group 0 decodes to")
    yield field(8, f"footer: offset of the index {number(fields.at, 8)}")
    yield field(32, "SHA-256 of the original")
    fields.end()


def section(fields: Fields, kind: int) -> Iterator[Line]:
    """The fields of a section header."""
    length = int.from_bytes(fields.data[fields.at + 2 : fields.at + 8], "little")
    for n, meaning in (
        (1, f"section {kind}: {SECTIONS[kind]}"),
        (1, "flags"),
        (6, "2^48 - 1: framed" if length == 2**48 - 1 else f"length {length}"),
        (4, "CRC-32 of the 8 bytes before" + ("" if length == 2**48 - 1 else " and the payload")),
    ):
        yield fields.at, fields.take(n), meaning
