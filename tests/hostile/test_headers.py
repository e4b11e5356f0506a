"""Malice: archives whose checksums are right and whose contents break one rule each.

Every case is named for its rule; the message must be that rule's own. All are refused before
anything is allocated by what they declare.
"""

from __future__ import annotations

import lzma
import struct
import time
import tracemalloc
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import zstandard

import mdlzip
from mdlzip.archive.blocks import table_bytes
from mdlzip.archive.config_section import pack_config
from mdlzip.archive.cursor import put_varint
from mdlzip.archive.sections import FRAMED, framed_header
from mdlzip.archive.weights import pack_weights
from mdlzip.errors import CorruptArchive, LimitExceeded, MdlzipError, UnsupportedVersion
from mdlzip.quantised.predictor import Predictor
from mdlzip.symbols.context import Context
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokenise import cut_group
from tests.archive_tools import (
    TINY,
    decode,
    encode_all,
    encode_group,
    fixed_header,
    footer,
    general_archive,
    random_network,
    section,
)
from tests.symbol_tools import tokens_of

NAME, CONFIG, WEIGHTS, GROUPS, INDEX, PAYLOAD, CONTEXT = 1, 2, 3, 4, 5, 6, 7
DIGEST = bytes(32)
LIMIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Case:
    rule: str
    data: bytes
    message: str
    error: type[MdlzipError] = CorruptArchive


def stored(**fields: int | bytes) -> bytes:
    return fixed_header(**fields) + DIGEST  # type: ignore[arg-type]


def config(**fields: int) -> bytes:
    """A configuration payload with single fields overwritten by raw values."""
    places = {
        "family": (0, "B"),
        "d_model": (1, "H"),
        "n_layers": (3, "B"),
        "n_heads": (4, "H"),
        "d_ff": (6, "H"),
        "window": (8, "H"),
        "conv_width": (10, "B"),
        "match_min": (11, "B"),
        "n_merges": (12, "H"),
        "norm": (14, "B"),
        "activation": (15, "B"),
        "positions": (16, "B"),
        "flags": (17, "B"),
        "chunk_size": (18, "H"),
        "group_chunks": (20, "I"),
    }
    raw = bytearray(pack_config(TINY, Layout(0, 256, 1)))
    for name, value in fields.items():
        offset, code = places[name]
        struct.pack_into("<" + code, raw, offset, value)
    return bytes(raw)


def learned(
    *sections: bytes, size: int = 256, config_payload: bytes | None = None, tail: bytes = b""
) -> bytes:
    """Header, configuration, then the given sections."""
    head = fixed_header(method=3, size=size)
    return (
        head
        + section(CONFIG, config() if config_payload is None else config_payload)
        + b"".join(sections)
        + (tail or bytes(40))
    )


def alone(
    n_merges: int = 0, chunk_size: int = 256, group_chunks: int = 1, cut: int = 0, more: bytes = b""
) -> bytes:
    """The beginning of an archive of the family that has no network."""
    payload = struct.pack("<BHHI", 1, n_merges, chunk_size, group_chunks)
    return learned(config_payload=payload[: len(payload) - cut] + more)


def frame(coded: bytes, *, length: bytes | None = None, crc: int | None = None) -> bytes:
    n = put_varint(len(coded)) if length is None else length
    return n + struct.pack("<I", crc32(coded) if crc is None else crc) + coded


GOOD_WEIGHTS = section(WEIGHTS, pack_weights(random_network()).data)
PLAIN = bytes(range(256))
CODED = encode_group(
    Predictor(random_network(), 256),
    *cut_group(random_network().vocabulary, np.frombuffer(PLAIN, np.uint8), 256),
)
BITS = b"\x08\x08\x08\x00\x00"  # of three tables; lanes of one chunk; no grid
GROUP_CONTEXT = section(CONTEXT, b"\x01" + BITS)
EXPERTS_CODED = encode_all(
    random_network(),
    tokens_of(np.frombuffer(PLAIN, np.uint8), Layout(256, 256, 1)),
    Context("group", (8, 8, 8)),
)[0]


def with_context(*numbers: int, size: int = 1024) -> bytes:
    """The beginning of an archive of four groups, unless told else, with that context section."""
    return learned(section(CONTEXT, bytes(numbers)), GOOD_WEIGHTS, size=size)


def references(*entries: int) -> bytes:
    """With so many reference groups, spelt as entries."""
    return with_context(2, *BITS, len(entries) - 1, *entries)


def waves(*groups: int) -> bytes:
    """With waves of so many groups each."""
    return with_context(3, *BITS, len(groups) - 1, *(n - 1 for n in groups))


def alphabet(*values: int) -> bytes:
    """A weights section whose bitmap has those bits."""
    bitmap = sum(1 << value for value in values).to_bytes(32, "little")
    good = pack_weights(random_network()).data
    return section(WEIGHTS, good[:1] + bitmap + good[33:])


def whole(
    *,
    frames: bytes = frame(CODED),
    index: bytes | None = None,
    offset_by: int = 0,
    size: int = 256,
    groups: bytes | None = None,
    weights: bytes = GOOD_WEIGHTS,
    config_payload: bytes | None = None,
    context: bytes = b"",
) -> bytes:
    """A complete learned archive of one group, with one part replaced."""
    groups = framed_header(GROUPS) if groups is None else groups
    sections = (context, weights, groups, frames)
    before = learned(*sections, size=size, config_payload=config_payload, tail=b"-")[:-1]
    index_payload = put_varint(len(CODED)) + bytes(4)
    body = before + (section(INDEX, index_payload) if index is None else index)
    return body + struct.pack("<Q", len(before) + offset_by) + DIGEST


def raw_block(data: bytes, *, last: bool = True, kind: int = 0, length: int | None = None) -> bytes:
    """A zstd block: type 0 holds its bytes as they are, 1 one byte to be repeated."""
    n = len(data) if length is None else length
    return (last | kind << 1 | n << 3).to_bytes(3, "little") + data


def index_of(length: int) -> bytes:
    """An index section of one group of that coded length."""
    return section(INDEX, put_varint(length) + struct.pack("<I", crc32(PLAIN)))


def zstd_frame(window: int = 0, blocks: bytes = raw_block(b""), descriptor: int = 0) -> bytes:
    """A frame without magic that asks for a window of 2^(10 + window / 8) bytes."""
    return bytes([descriptor, window]) + blocks


X = raw_block(b"x")


def payload_archive(method: int, payload: bytes, size: int = 1000) -> bytes:
    tail = footer(b"x") if size == 1 else bytes(table_bytes(size) + 32)
    return fixed_header(method=method, size=size) + section(PAYLOAD, payload) + tail


HEADER_CASES = [
    Case("empty file", b"", "not an mdlzip archive"),
    Case("one byte", b"\x93", "header"),
    Case("other magic", stored(magic=b"\x93mdx"), "not an mdlzip archive"),
    Case("a gzip file", b"\x1f\x8b\x08" + bytes(60), "not an mdlzip archive"),
    Case("version 0", stored(version=0), "version is 0"),
    Case("version 2", stored(version=2), "format version 2", UnsupportedVersion),
    Case("version 255", stored(version=255), "format version 255", UnsupportedVersion),
    Case("unknown method", stored(method=4), "method 4 is unknown"),
    Case("reserved method bit", stored(method=8), "reserved bits"),
    Case("set-uid mode", stored(mode=0o4755), "beyond rwxrwxrwx"),
    Case("mode of a folder", stored(mode=0o40755), "beyond rwxrwxrwx"),
    Case("stored size 2^31", stored(size=1 << 31), "asks for at least"),
    Case("stored size 2^40", stored(size=1 << 40), "asks for at least"),
    Case("stored size 2^48 - 1", stored(size=(1 << 48) - 1), "asks for at least"),
    Case("stored bytes behind the end", stored() + b"x", "1 bytes follow the archive"),
    Case("nothing, kept as zstd", fixed_header(method=1, size=0), "must be stored"),
    Case("nothing, kept as xz", payload_archive(2, b"\x0c\0", size=0), "must be stored"),
    Case("nothing, kept as learned", fixed_header(method=3, size=0), "must be stored"),
]

SECTION_CASES = [
    Case("section flags", learned(section(WEIGHTS, b"", flags=1)), "reserved flags"),
    Case("name flags", fixed_header(method=3) + section(NAME, b"a", flags=128), "reserved flags"),
    Case("unknown section", learned(section(77, b"")), "found section 77"),
    Case("section 0", learned(section(0, b"")), "found section 0"),
    Case("configuration twice", learned(section(CONFIG, config())), "found configuration section"),
    Case("name twice", fixed_header(method=3) + 2 * section(NAME, b"a"), "found name section"),
    Case("name after configuration", learned(section(NAME, b"a")), "found name section"),
    Case("groups before weights", learned(framed_header(GROUPS)), "found groups section"),
    Case("index instead of groups", whole(groups=section(INDEX, b"")), "found index section"),
    Case("no configuration", fixed_header(method=3) + GOOD_WEIGHTS + DIGEST, "found weights"),
    Case("payload in a learned archive", learned(section(PAYLOAD, b"")), "found payload section"),
    Case("weights in a zstd archive", fixed_header(method=1) + GOOD_WEIGHTS, "found weights"),
    Case("no section at all", fixed_header(method=3, size=9), "within the section header"),
    Case(
        "optional section twice",
        fixed_header(method=3) + 2 * section(200, b"a"),
        "repeated or out of order",
    ),
    Case(
        "optional sections out of order",
        fixed_header(method=3) + section(201, b"a") + section(200, b"a"),
        "repeated or out of order",
    ),
    Case(
        "optional section of 2^40 bytes",
        fixed_header(method=3) + section(200, b"a", length=1 << 40),
        "more than the",
    ),
    Case(
        "optional section with a wrong checksum",
        fixed_header(method=3) + section(200, b"a")[:-1] + b"b",
        "checksum mismatch",
    ),
    Case("name of 256 bytes", fixed_header(method=3) + section(NAME, b"a" * 256), "more than the"),
    Case("name of 2^47 bytes", fixed_header(method=3) + section(NAME, b"", length=1 << 47), "more"),
    Case("empty name", fixed_header(method=3) + section(NAME, b""), "not a plain file name"),
    Case("name ..", fixed_header(method=3) + section(NAME, b".."), "not a plain file name"),
    Case("absolute name", fixed_header(method=3) + section(NAME, b"/etc/x"), "not a plain"),
    Case("name with a folder", fixed_header(method=3) + section(NAME, b"../x"), "not a plain"),
    Case("name with NUL", fixed_header(method=3) + section(NAME, b"a\0b"), "not a plain"),
    Case("name with an escape", fixed_header(method=3) + section(NAME, b"\x1b[2J"), "not a plain"),
    Case("name that is not UTF-8", fixed_header(method=3) + section(NAME, b"\xff"), "not UTF-8"),
    Case("weights of 2^40 bytes", learned(section(WEIGHTS, b"", length=1 << 40)), "more than the"),
    Case("weights longer than the file", learned(section(WEIGHTS, b"", length=9999)), "asks for"),
    Case("framed weights", learned(section(WEIGHTS, b"", length=FRAMED)), "more than the"),
    Case("empty weights", whole(weights=section(WEIGHTS, b"")), "weights"),
    Case("alphabet of nothing", whole(weights=alphabet()), "alphabet has 0 byte values"),
    Case("alphabet of one value", whole(weights=alphabet(97)), "alphabet has 1 byte values"),
    Case(
        "weights of noise",
        whole(weights=section(WEIGHTS, bytes(range(255, 0, -1)))),
        "weights section",
    ),
]

CONFIG_CASES = (
    [
        Case(f"{name} = {value}", learned(config_payload=config(**{name: value})), message)
        for name, value, message in [
            ("d_model", 0, "d_model"),
            ("d_model", 7, "d_model"),
            ("d_model", 17, "even number"),
            ("d_model", 65535, "d_model"),
            ("n_layers", 0, "n_layers"),
            ("n_layers", 255, "n_layers"),
            ("n_heads", 0, "n_heads = 0 is outside"),
            ("n_heads", 3, "n_heads"),
            ("n_heads", 65535, "n_heads"),
            ("d_ff", 0, "d_ff"),
            ("d_ff", 65535, "d_ff"),
            ("window", 65535, "window"),
            ("conv_width", 255, "conv_width"),
            ("match_min", 1, "match_min"),
            ("match_min", 255, "match_min"),
            ("n_merges", 2049, "n_merges"),
            ("norm", 2, "norm is 2"),
            ("activation", 255, "activation is 255"),
            ("positions", 9, "positions is 9"),
            ("flags", 4, "reserved bits"),
            ("flags", 2, "shared_norm"),
            ("chunk_size", 0, "chunk_size is 0"),
            ("chunk_size", 15, "chunk_size is 15"),
            ("chunk_size", 65535, "chunk_size is 65535"),
            ("group_chunks", 0, "group_chunks is 0"),
            ("group_chunks", (1 << 16) + 1, "group_chunks is 65537"),
            ("group_chunks", (1 << 32) - 1, "group_chunks is"),
        ]
    ]
    + [
        Case("short configuration", learned(config_payload=config()[:-1]), "needs 4 bytes, 3 left"),
        Case("long configuration", learned(config_payload=config() + b"\0"), "1 unread bytes"),
        Case("huge configuration", learned(config_payload=bytes(257)), "more than the 256"),
        Case("empty configuration", learned(config_payload=b""), "network family needs 1 bytes"),
    ]
    + [
        Case("no network and no context", alone(), "without a network there must be a context"),
        Case("no network, short", alone(cut=1), "needs 4 bytes, 3 left"),
        Case("no network, long", alone(more=b"\0"), "1 unread bytes"),
        Case("no network, n_merges = 2049", alone(n_merges=2049), "n_merges"),
        Case("no network, chunk_size = 15", alone(chunk_size=15), "chunk_size is 15"),
        Case("no network, group_chunks = 0", alone(group_chunks=0), "group_chunks is 0"),
    ]
    + [
        Case(
            f"network family {byte}, {len(rest)} bytes",
            learned(config_payload=bytes([byte]) + rest),
            f"network family {byte} is not known.*knows 0 \\(transformer\\)",
            error=UnsupportedVersion,
        )
        for byte in (2, 127, 255)
        for rest in (b"", config()[1:], bytes(255))
    ]
)

CONTEXT_CASES = [
    Case("context mode 0", with_context(0, *BITS), "mode is 0, not 1..3"),
    Case("context mode 4", with_context(4, *BITS), "mode is 4, not 1..3"),
    Case("context mode 255", with_context(255, *BITS), "mode is 255, not 1..3"),
    *(
        Case(f"{table} of 2^{bits}", with_context(1, *numbers), "not allowed")
        for bits in (7, 25, 255)
        for table, numbers in (
            ("buckets", (bits, 8, 8, 0, 0)),
            ("records", (8, bits, 8, 0, 0)),
            ("heads", (8, 8, bits, 0, 0)),
        )
    ),
    Case("empty context", with_context(), "mode needs 1 bytes, 0 left"),
    Case("context without tables", with_context(1), "table size needs 1 bytes"),
    Case("context of two tables", with_context(1, 8, 8), "table size needs 1 bytes"),
    Case("context without lanes", with_context(1, 8, 8, 8), "chunks of a lane needs 1 bytes"),
    Case("lanes of 65537 chunks", with_context(1, 8, 8, 8, 0x80, 0x80, 4), "more than 65535"),
    Case("lanes spelt long", with_context(1, 8, 8, 8, 0x80, 0), "than it needs"),
    Case("context without a grid", with_context(1, 8, 8, 8, 0), "bytes of a row needs 1 bytes"),
    Case("rows of 65536 bytes", with_context(1, 8, 8, 8, 0, 0x80, 0x80, 4), "more than 65535"),
    Case("a grid without elements", with_context(1, 8, 8, 8, 0, 3), "bytes of an element needs 1"),
    Case("elements of 9 bytes", with_context(1, 8, 8, 8, 0, 3, 8), "element is 8, more than 7"),
    Case("group context with entries", with_context(1, *BITS, 0, 0), "2 unread bytes"),
    Case("reference context of nothing", with_context(2, *BITS), "number of entries needs 1"),
    Case("no reference group", with_context(2, *BITS, 0), "entry needs 1 bytes, 0 left"),
    Case("fewer references than said", with_context(2, *BITS, 1, 0), "entry needs 1 bytes"),
    Case("more references than said", with_context(2, *BITS, 0, 0, 0), "1 unread bytes"),
    Case("first reference out of range", references(4), "entry is 4, more than 3"),
    Case("second reference out of range", references(1, 2), "not one of 4"),
    Case("last reference out of range", references(0, 0, 0, 1), "not one of 4"),
    Case("reference beyond one group", with_context(2, *BITS, 0, 1, size=256), "more than 0"),
    Case(
        "more references than groups",
        with_context(2, *BITS, 4, 0, 0, 0, 0),
        "entries is 4, more than 3",
    ),
    Case("reference spelt long", with_context(2, *BITS, 0, 0x81, 0), "than it needs"),
    Case("reference without end", with_context(2, *BITS, 0, *[255] * 4), "entry needs 1 bytes"),
    Case("no wave", with_context(3, *BITS), "number of entries needs 1"),
    Case("waves of too few groups", waves(1, 2), "waves have 3 groups of 4"),
    Case("waves of too many groups", waves(1, 2, 2), "waves have 5 groups of 4"),
    Case(
        "more waves than groups", with_context(3, *BITS, 4, 0, 0, 0, 0), "entries is 4, more than 3"
    ),
    Case("a wave of too many groups", waves(5), "entry is 4, more than 3"),
    Case("fewer waves than said", with_context(3, *BITS, 1, 3), "entry needs 1 bytes"),
    Case("more waves than said", with_context(3, *BITS, 0, 3, 0), "1 unread bytes"),
    Case("context section of 2^40 bytes", learned(section(CONTEXT, b"", length=1 << 40)), "more"),
    Case("framed context section", learned(section(CONTEXT, b"", length=FRAMED)), "more than the"),
    Case(
        "context section of 14 bytes", with_context(1, *BITS, *[0] * 9, size=256), "more than the"
    ),
    Case("context flags", learned(section(CONTEXT, b"\x01" + BITS, flags=1)), "reserved flags"),
    Case("context checksum", learned(GROUP_CONTEXT[:-1] + b"\x09"), "checksum mismatch"),
    Case("context twice", learned(2 * GROUP_CONTEXT), "found context section where the weights"),
    Case("context after weights", learned(GOOD_WEIGHTS, GROUP_CONTEXT), "found context section"),
    Case("context before configuration", fixed_header(method=3) + GROUP_CONTEXT, "found context"),
    Case("context in a zstd archive", fixed_header(method=1) + GROUP_CONTEXT, "found context"),
    Case("a context alone", learned(GROUP_CONTEXT, tail=b"\0"), "within the section header"),
    Case("context cut off", with_context(2, *BITS, 0, 0)[: 26 + 36 + 16], "section|truncated"),
    Case(
        "five bytes behind a group of experts",
        whole(
            frames=frame(EXPERTS_CODED + b"\1" * 5),
            index=index_of(len(EXPERTS_CODED) + 5),
            context=GROUP_CONTEXT,
        ),
        "data follow its last symbol",
    ),
    Case(
        "a zero byte behind a group of experts",
        whole(
            frames=frame(EXPERTS_CODED + b"\0"),
            index=index_of(len(EXPERTS_CODED) + 1),
            context=GROUP_CONTEXT,
        ),
        "ends in a zero byte",
    ),
    Case(
        "a group of experts whose context is left out",
        whole(frames=frame(EXPERTS_CODED), index=index_of(len(EXPERTS_CODED))),
        "beyond its chunk|decodes to|data follow|coded group",
    ),
]

GROUP_CASES = [
    Case("groups section with a length", whole(groups=section(GROUPS, b"")), "2\\^48 - 1"),
    Case(
        "coded length too large", whole(frames=frame(CODED, length=put_varint(5000))), "more than"
    ),
    Case("coded length 2^47", whole(frames=frame(CODED, length=put_varint(1 << 47))), "more than"),
    Case("coded length without end", whole(frames=b"\xff" * 40), "more than"),
    Case("coded length spelt long", whole(frames=frame(CODED, length=b"\x82\0")), "than it needs"),
    Case("frame checksum", whole(frames=frame(CODED, crc=1)), "unit 0: checksum mismatch"),
    Case("too many groups for the file", whole(size=1 << 40), "asks for at least"),
    Case("2^31 groups", whole(size=1 << 39), "asks for at least"),
    Case(
        "a word behind a group",
        whole(frames=frame(CODED + b"\1\2\3\4"), index=index_of(len(CODED) + 4)),
        "data follow its last symbol",
    ),
    Case(
        "a kilobyte behind a group",
        whole(frames=frame(CODED + b"g" * 1000), index=index_of(len(CODED) + 1000)),
        "more than|data follow its last symbol",
    ),
    Case(
        "a zero byte behind a group",
        whole(frames=frame(CODED + b"\0"), index=index_of(len(CODED) + 1)),
        "ends in a zero byte",
    ),
    Case(
        "zero words behind a group",
        whole(frames=frame(CODED + bytes(8)), index=index_of(len(CODED) + 8)),
        "ends in a zero byte",
    ),
    Case("a second frame", whole(frames=2 * frame(CODED)), "section"),
    Case("no frame", whole(frames=b""), "unit 0|frame"),
    Case(
        "index of another length",
        whole(index=section(INDEX, put_varint(len(CODED) + 1) + bytes(4))),
        "not those of the units",
    ),
    Case("short index", whole(index=section(INDEX, b"\x02\0\0\0")), "4 bytes for 1 units"),
    Case("long index", whole(index=section(INDEX, b"\x02\0\0\0\0\0")), "unread bytes"),
    Case("index of 2^40 bytes", whole(index=section(INDEX, b"", length=1 << 40)), "more than the"),
    Case("index offset off by one", whole(offset_by=1), "index offset"),
    Case("index offset backwards", whole(offset_by=-60), "index offset"),
    Case("index offset 2^63", whole(offset_by=1 << 63), "index offset"),
    Case("group that decodes to other bytes", whole(), "decodes to other bytes"),
]

PAYLOAD_CASES = [
    Case("zstd of nothing", payload_archive(1, b"", size=9), "ends within the zstd frame header"),
    Case("zstd of noise", payload_archive(1, b"\xff" * 50), "descriptor 0xff"),
    Case("zstd window of 2^38 bytes", payload_archive(1, zstd_frame(0xE0)), "not allowed"),
    Case("zstd window of 2^28 bytes", payload_archive(1, zstd_frame(18 << 3)), "not allowed"),
    Case(
        "zstd window larger than the original",
        payload_archive(1, zstd_frame(1, X), size=1),
        "window of 1152 bytes is not allowed",
    ),
    Case("zstd that is empty", payload_archive(1, zstd_frame()), "holds 0 bytes, 1000"),
    Case(
        "zstd with a content size",
        payload_archive(1, b"\x20\x01" + X, size=1),
        "descriptor 0x20",
    ),
    Case(
        "zstd with a checksum", payload_archive(1, zstd_frame(0, X, 4) + bytes(4), size=1), "0x04"
    ),
    Case(
        "zstd with a dictionary",
        payload_archive(1, b"\x01\0\x07" + X, size=1),
        "descriptor 0x01",
    ),
    Case("zstd with a reserved bit", payload_archive(1, zstd_frame(0, X, 8), size=1), "0x08"),
    Case("zstd with an unused bit", payload_archive(1, zstd_frame(0, X, 16), size=1), "0x10"),
    Case("zstd, two frames", payload_archive(1, zstd_frame(0, X) * 2, size=2), "holds 1 bytes"),
    Case(
        "zstd, an empty frame behind",
        payload_archive(1, zstd_frame(0, X) + zstd_frame(), size=1),
        "5 bytes follow the compressed stream",
    ),
    Case(
        "zstd, a frame with a window of 2^31 behind",
        payload_archive(1, zstd_frame(0, X) + zstd_frame(21 << 3), size=1),
        "5 bytes follow",
    ),
    Case(
        "zstd, a skippable frame behind",
        payload_archive(1, zstd_frame(0, X) + b"\x50\x2a\x4d\x18\1\0\0\0y", size=1),
        "9 bytes follow",
    ),
    Case("zstd, garbage behind", payload_archive(1, zstd_frame(0, X) + b"y", size=1), "1 bytes"),
    Case(
        "zstd without its last block",
        payload_archive(1, zstd_frame(0, raw_block(b"x", last=False)), size=1),
        "ends within a zstd block header",
    ),
    Case(
        "zstd cut within a block",
        payload_archive(1, zstd_frame(0, raw_block(b"x", length=9)), size=9),
        "ends within a zstd block",
    ),
    Case(
        "zstd block of the reserved type",
        payload_archive(1, zstd_frame(0, raw_block(b"x", kind=3)), size=1),
        "block of type 3",
    ),
    Case(
        "zstd block larger than the window",
        payload_archive(1, zstd_frame(0, raw_block(b"x", kind=1, length=1025)), size=1025),
        "block of type 1, 1025 bytes",
    ),
    Case(
        "zstd block longer than the original",
        payload_archive(1, zstd_frame(0, raw_block(b"x", kind=1, length=1024)), size=1),
        "more than the 1 bytes declared",
    ),
    Case("zstd of 1 TiB in a few bytes", payload_archive(1, b"abc", size=1 << 24), "cannot hold"),
    Case("xz of 1 TiB in a few bytes", payload_archive(2, b"abc", size=1 << 24), "cannot hold"),
    Case("xz of nothing", payload_archive(2, b"", size=9), "dictionary's exponent"),
    Case("xz dictionary 2^27", payload_archive(2, b"\x1b\0"), "dictionary of 2\\^27"),
    Case("xz dictionary 2^255", payload_archive(2, b"\xff\0"), "dictionary of 2\\^255"),
    Case("xz dictionary 2^11", payload_archive(2, b"\x0b\0"), "dictionary of 2\\^11"),
    Case(
        "xz dictionary larger than the original",
        payload_archive(2, b"\x0d\x01\0\0x\0", size=1),
        "dictionary of 2\\^13",
    ),
    Case("xz of noise", payload_archive(2, b"\x0c" + b"\xff" * 50), "payload section"),
    Case("xz without end", payload_archive(2, b"\x0c\x01\0\0x"), "no end"),
    Case("xz that is empty", payload_archive(2, b"\x0c\0"), "holds 0 bytes, 1000"),
    Case("xz with bytes behind", payload_archive(2, b"\x0c\x01\0\0x\0yy", size=1), "follow"),
    Case("xz, two streams", payload_archive(2, b"\x0c\x01\0\0x\0\x01\0\0x\0", size=1), "follow"),
    Case("xz, a second end", payload_archive(2, b"\x0c\x01\0\0x\0\0", size=1), "follow"),
    Case(
        "payload checksum",
        payload_archive(2, b"\x0c\x01\0\0x\0", size=1)[:-38] + b"y\0" + footer(b"x"),
        "payload section: checksum mismatch|block of the original",
    ),
    Case(
        "block checksum",
        payload_archive(2, b"\x0c\x01\0\0x\0", size=1)[:-36] + footer(b"y"),
        "block of the original that begins at byte 0",
    ),
    Case("payload longer than it may be", payload_archive(2, bytes(200_000), size=1), "more than"),
    Case(
        "payload of 2^47 bytes",
        fixed_header(method=1, size=1) + section(6, b"", length=1 << 47),
        "more",
    ),
]

ALL_CASES = (
    HEADER_CASES + SECTION_CASES + CONFIG_CASES + CONTEXT_CASES + GROUP_CASES + PAYLOAD_CASES
)


def test_there_are_enough_cases_and_no_name_twice() -> None:
    assert len(ALL_CASES) >= 60
    assert len({case.rule for case in ALL_CASES}) == len(ALL_CASES)


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.rule)
def test_hostile_archive_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(case.error, match=case.message) as caught:
        decode(case.data)
    assert "\n" not in str(caught.value)
    with pytest.raises((case.error, LimitExceeded)):  # of a pipe the length is not known
        decode(case.data, pipe=True)
    path = tmp_path / "a.mdlz"
    path.write_bytes(case.data)
    with pytest.raises((CorruptArchive, UnsupportedVersion)):
        mdlzip.decompress(path, tmp_path / "out", device="cpu", threads=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.rule)
def test_refusal_is_cheap(case: Case) -> None:
    if (
        "a group of experts" in case.rule
        or "behind a group" in case.rule
        or "other bytes" in case.rule
    ):
        pytest.skip("has to run the predictor")
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(case.error):
        decode(case.data)
    seconds = time.perf_counter() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < LIMIT_BYTES
    assert seconds < 1.0


def test_the_cases_are_hostile_by_one_rule_only() -> None:
    """What they are built from decodes, so it is the rule that is hit and not the builder."""
    assert decode(general_archive("xz", b"x")) == b"x"
    assert decode(payload_archive(2, b"\x0c\x01\0\0x\0", size=1)) == b"x"
    assert decode(payload_archive(1, zstd_frame(0, X), size=1)) == b"x"
    with pytest.raises(CorruptArchive, match="decodes to other bytes"):
        decode(whole())
    coded, digest = EXPERTS_CODED, sha256(PLAIN).digest()
    good = whole(frames=frame(coded), index=index_of(len(coded)), context=GROUP_CONTEXT)
    assert decode(good[:-32] + digest) == PLAIN
    for context in (references(0, 2), references(0, 0, 0, 0), waves(1, 3), waves(4)):
        with pytest.raises(CorruptArchive, match="found section 0"):  # it comes to what follows
            decode(context + bytes(1000), pipe=True)


def test_unknown_optional_sections_are_skipped() -> None:
    head = fixed_header(method=2, size=1)
    tail = section(PAYLOAD, b"\x0c\x01\0\0x\0") + footer(b"x")
    optional = section(128, b"for later") + section(255, b"")
    for data in (head + optional + tail, head + section(NAME, b"n") + optional + tail):
        assert decode(data) == decode(data, pipe=True) == b"x"


BIG = {"d_model": 4096, "n_layers": 64, "d_ff": 16384, "n_heads": 16}


@pytest.mark.parametrize(
    ("rule", "fields", "size"),
    [
        ("weights of 13 GB", BIG, 256),
        ("one group of 1 GiB", {"chunk_size": 16384, "group_chunks": 1 << 16}, 1 << 30),
        ("caches of a wide window", {"window": 16384, "chunk_size": 16384, **BIG}, 256),
    ],
)
def test_memory_is_predicted_before_it_is_taken(
    rule: str, fields: dict[str, int], size: int
) -> None:
    head = section(WEIGHTS, b"\0" + b"\xff" * 32)
    data = learned(head, size=size, config_payload=config(**fields), tail=bytes(10**6))
    tracemalloc.start()
    with pytest.raises(LimitExceeded, match=r"--memory \d+MiB"):
        decode(data, allow_slow=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < LIMIT_BYTES


@pytest.mark.parametrize("method", ["zstd", "xz"])
def test_expansion_stops_at_the_declared_size(method: str) -> None:
    """A small stream of 8 MiB of zeros under a header that declares 1,000 bytes."""
    zeros = bytes(8 << 20)
    if method == "zstd":
        parameters = zstandard.ZstdCompressionParameters(
            window_log=10, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=False
        )
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        data = payload_archive(1, compressor.compress(zeros) + compressor.flush())
    else:
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]
        stream = lzma.compress(zeros, lzma.FORMAT_RAW, filters=filters)
        data = payload_archive(2, b"\x0c" + stream)
    tracemalloc.start()
    with pytest.raises(CorruptArchive, match="more than the 1000 bytes declared"):
        decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < LIMIT_BYTES
