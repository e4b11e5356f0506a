"""An archive as fields that can be changed one by one, and back to bytes with right checksums."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from zlib import crc32

from mdlzip.archive.config_section import unpack_config
from mdlzip.archive.cursor import put_varint
from mdlzip.networks.registry import site_specs, tensor_specs
from mdlzip.symbols.vocabulary import merges_bytes

STORED, LEARNED = 0, 3
NAME, CONFIGURATION, WEIGHTS, GROUPS, INDEX, PAYLOAD, CONTEXT = range(1, 8)
FRAMED = 2**48 - 1
BLOCK_BYTES = 65536
HEADER = (("magic", 4), ("version", 1), ("method", 1), ("mode", 2), ("mtime", 8), ("size", 6))
TRANSFORMER = (
    ("family", 1), ("d_model", 2), ("n_layers", 1), ("n_heads", 2), ("d_ff", 2), ("window", 2),
    ("conv_width", 1), ("match_min", 1), ("n_merges", 2), ("layer_norm", 1), ("gelu", 1),
    ("sinusoidal", 1), ("flags", 1), ("chunk_size", 2), ("group_chunks", 4),
)  # fmt: skip
ALONE = (("family", 1), ("n_merges", 2), ("chunk_size", 2), ("group_chunks", 4))
CUT_BYTES = 6


@dataclass
class Field:
    """A field as it stands in the archive; kind: "number" (little-endian), "varint" or "bytes"."""

    name: str
    kind: str
    raw: bytes

    @property
    def number(self) -> int:
        """The value of a number or a varint."""
        if self.kind == "number":
            return int.from_bytes(self.raw, "little")
        return sum((byte & 127) << 7 * i for i, byte in enumerate(self.raw))

    def put(self, value: int) -> None:
        """Give a number or a varint another value; of a number the bits that there is room for."""
        if self.kind == "varint":
            self.raw = put_varint(abs(value) % 2**49)
        else:
            self.raw = (value % 256 ** len(self.raw)).to_bytes(len(self.raw), "little")


@dataclass
class Section:
    """A section; longer, crc: what is added to the true length and to the true checksum."""

    kind: int
    fields: list[Field]
    flags: int = 0
    longer: int = 0
    crc: int = 0

    def pack(self) -> bytes:
        """Header and payload."""
        payload = joined(self.fields)
        length = (FRAMED if self.kind == GROUPS else len(payload)) + self.longer
        head = bytes([self.kind, self.flags]) + (length % 2**48).to_bytes(6, "little")
        covered = head if self.kind == GROUPS else head + payload
        return head + struct.pack("<I", (crc32(covered) + self.crc) % 2**32) + payload


@dataclass
class Frame:
    """A coded unit; longer, crc: as of `Section`."""

    fields: list[Field]
    longer: int = 0
    crc: int = 0

    def pack(self) -> bytes:
        """Length, checksum and coded stream."""
        coded = joined(self.fields)
        crc = struct.pack("<I", (crc32(coded) + self.crc) % 2**32)
        return put_varint(max(0, len(coded) + self.longer)) + crc + coded


@dataclass
class Document:
    """An archive.

    frames: of learned archives; index: the checksums of its units; lengths: those that the index
    says, if not the true ones;
    body: the data of a stored archive; table: its block table; shift: added to the offset of the
    index; tail: what follows the archive.
    """

    header: list[Field]
    sections: list[Section] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    index: list[Field] = field(default_factory=list)
    lengths: list[Field] = field(default_factory=list)
    body: Field | None = None
    table: list[Field] = field(default_factory=list)
    digest: bytes = bytes(32)
    header_crc: int = 0
    shift: int = 0
    tail: bytes = b""

    def get(self, name: str) -> int:
        """A number of the header."""
        return next(f.number for f in self.header if f.name == name)

    def all_fields(self) -> Iterator[Field]:
        """Every field that can be changed."""
        yield from self.header
        for part in (*self.sections, *self.frames):
            yield from part.fields
        yield from self.index
        yield from [self.body] if self.body else []
        yield from self.table

    def pack(self) -> bytes:
        """The bytes; lengths and checksums follow from the fields."""
        head = joined(self.header)
        out = head + struct.pack("<I", (crc32(head) + self.header_crc) % 2**32)
        out += b"".join(section.pack() for section in self.sections)
        if self.body:
            out += self.body.raw
        if self.frames:
            out += b"".join(frame.pack() for frame in self.frames)
            at = (len(out) + self.shift) % 2**64
            fields = [*(self.lengths or self.true_lengths()), *self.index]
            out += Section(INDEX, fields).pack() + struct.pack("<Q", at)
        return out + joined(self.table) + self.digest + self.tail

    def true_lengths(self) -> list[Field]:
        """What the index says of the frames."""
        sizes = [len(joined(frame.fields)) for frame in self.frames]
        return [Field("unit length", "varint", put_varint(n)) for n in sizes]

    def copy(self) -> Document:
        """One that can be changed."""
        return deepcopy(self)


def joined(fields: list[Field]) -> bytes:
    """The bytes of fields, one after the other."""
    return b"".join(f.raw for f in fields)


class _Taken:
    """Takes fields from the front of bytes that are known to be right."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, name: str, n: int) -> Field:
        return Field(name, "number", self.take(n))

    def varint(self, name: str) -> Field:
        start = self.at
        while self.take(1)[0] >= 128:
            pass
        return Field(name, "varint", self.data[start : self.at])

    def rest(self, name: str) -> list[Field]:
        raw = self.take(len(self.data) - self.at)
        return [Field(name, "bytes", raw)] if raw else []


def parse(archive: bytes) -> Document:
    """The fields of an archive that is right."""
    data = _Taken(archive)
    document = Document([data.number(name, n) for name, n in HEADER])
    document.header[0].kind = "bytes"
    data.take(4)
    method, size = document.get("method"), document.get("size")
    if method == STORED:
        document.body = Field("body", "bytes", data.take(size))
    while method != STORED and not _ends_sections(document):
        _read_section(document, data)
    if method == LEARNED:
        has_cut = _has_merges(document)
        while data.data[data.at] != INDEX or not _is_index(data, len(document.frames)):
            length = data.varint("").number
            data.take(4)
            document.frames.append(Frame(_coded(data.take(length), has_cut)))
        index = _Taken(archive[data.at + 12 : -40])
        for _ in document.frames:
            index.varint("")
        document.index = [index.number("unit crc", 4) for _ in document.frames]
    else:
        blocks = -(-size // BLOCK_BYTES)
        document.table = [data.number("block crc", 4) for _ in range(blocks)]
    document.digest = archive[-32:]
    assert document.pack() == archive
    return document


def _ends_sections(document: Document) -> bool:
    return bool(document.sections) and document.sections[-1].kind in (GROUPS, PAYLOAD)


def _read_section(document: Document, data: _Taken) -> None:
    kind, flags = data.take(2)
    length = int.from_bytes(data.take(6), "little")
    data.take(4)
    payload = _Taken(b"" if kind == GROUPS else data.take(length))
    document.sections.append(Section(kind, _fields_of(document, kind, payload), flags))


def _fields_of(document: Document, kind: int, data: _Taken) -> list[Field]:
    if kind == CONFIGURATION:
        table = ALONE if data.data[0] == 1 else TRANSFORMER
        return [data.number(name, n) for name, n in table]
    if kind == CONTEXT:
        names = ("context mode", "buckets", "records", "heads")
        fields = [data.number(name, 1) for name in names]
        while data.at < len(data.data):
            fields.append(data.varint("entry"))
        return fields
    if kind == WEIGHTS:
        return _weights(document, data)
    return data.rest(f"section {kind}")


def _weights(document: Document, data: _Taken) -> list[Field]:
    """Head, merges, steps and exponents; a stream, or plain tensors, each with three fields."""
    payload = next(joined(s.fields) for s in document.sections if s.kind == CONFIGURATION)
    config, _ = unpack_config(payload, document.get("size"))
    fields = [data.number("weights mode", 1), Field("alphabet", "bytes", data.take(32))]
    n = merges_bytes(int.from_bytes(fields[1].raw, "little").bit_count(), config.n_merges)
    fields += [Field("merges", "bytes", data.take(n))] if n else []
    for name in (specs := tensor_specs(config)):
        fields += [data.number(f"mantissa of {name}", 2), data.number(f"step of {name}", 1)]
    fields += [data.number(f"exponent of {site}", 1) for site in site_specs(config)]
    if fields[0].number == 0:
        return [*fields, data.varint("non-zeros"), data.varint("positions"), *data.rest("stream")]
    for name in specs:
        count = data.number(f"non-zeros of {name}", 4)
        fields += [count, Field(f"cells of {name}", "bytes", data.take(4 * count.number))]
        fields.append(Field(f"values of {name}", "bytes", data.take(count.number)))
    return fields


def _is_index(data: _Taken, n_frames: int) -> bool:
    """Whether an index of so many frames begins here: it is the only thing that can end there."""
    length = int.from_bytes(data.data[data.at + 2 : data.at + 8], "little")
    at = int.from_bytes(data.data[-40:-32], "little")
    return n_frames > 0 and at == data.at and data.at + 12 + length == len(data.data) - 40


def _has_merges(document: Document) -> bool:
    """Whether chunks differ in length, so that groups have cuts."""
    fields = next(s.fields for s in document.sections if s.kind == CONFIGURATION)
    return next(f.number for f in fields if f.name == "n_merges") > 0


def _coded(coded: bytes, has_cut: bool) -> list[Field]:
    """The first cut of a unit, if there are any, and the rest."""
    data = _Taken(coded)
    if not has_cut or len(coded) < CUT_BYTES:
        return [Field("coded", "bytes", coded)]
    cut = [data.number("chunks", 4), data.number("last chunk", 2)]
    return [*cut, Field("coded", "bytes", data.take(len(coded) - CUT_BYTES))]
