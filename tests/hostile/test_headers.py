"""Malice: archives whose checksums are right and whose contents break one rule each.

Every case is named for its rule; the message must be that rule's own. All are refused before
anything is allocated by what they declare.
"""

from __future__ import annotations

import struct
import time
import tracemalloc
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest

import mdlzip
from mdlzip.archive.config_section import pack_config
from mdlzip.archive.cursor import put_varint
from mdlzip.archive.sections import FRAMED, framed_header
from mdlzip.archive.weights import pack_weights
from mdlzip.errors import CorruptArchive, LimitExceeded, MdlzipError, UnsupportedVersion
from mdlzip.symbols.layout import Layout
from tests.archive_tools import TINY, decode, fixed_header, general_archive, random_network, section

NAME, CONFIG, WEIGHTS, GROUPS, INDEX, PAYLOAD = 1, 2, 3, 4, 5, 6
DIGEST = bytes(32)
LIMIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Case:
    rule: str
    data: bytes
    message: str
    error: type[MdlzipError] = CorruptArchive
    predicts: bool = False  # refused only after the predictor has run


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


def frame(coded: bytes, *, length: bytes | None = None, crc: int | None = None) -> bytes:
    n = put_varint(len(coded)) if length is None else length
    return n + struct.pack("<I", crc32(coded) if crc is None else crc) + coded


GOOD_WEIGHTS = section(WEIGHTS, pack_weights(random_network()).data)
CODED = b"\x01\x02"


LETTER = bytes.fromhex("6146a9")  # one byte, "a", coded with GOOD_WEIGHTS


def one_letter(coded: bytes, plain: bytes = b"a") -> bytes:
    """A complete archive of one group that must decode to `plain`."""
    index = put_varint(len(coded)) + struct.pack("<I", crc32(plain))
    data = whole(frames=frame(coded), index=section(INDEX, index), size=1)
    return data[: -len(DIGEST)] + sha256(plain).digest()


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
) -> bytes:
    """A complete learned archive of one group, with one part replaced."""
    groups = framed_header(GROUPS) if groups is None else groups
    before = learned(weights, groups, frames, size=size, config_payload=config_payload, tail=b"-")[
        :-1
    ]
    index_payload = put_varint(len(CODED)) + bytes(4)
    body = before + (section(INDEX, index_payload) if index is None else index)
    return body + struct.pack("<Q", len(before) + offset_by) + DIGEST


def zstd_frame(window_descriptor: int) -> bytes:
    """An empty frame without magic that asks for a window of 2^(10 + descriptor / 8) bytes."""
    return bytes([0x00, window_descriptor]) + b"\x01\x00\x00"


def payload_archive(method: int, payload: bytes, size: int = 1000) -> bytes:
    return fixed_header(method=method, size=size) + section(PAYLOAD, payload) + DIGEST


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
    Case("stored size 2^31", stored(size=1 << 31), "asks for exactly"),
    Case("stored size 2^40", stored(size=1 << 40), "asks for exactly"),
    Case("stored size 2^48 - 1", stored(size=(1 << 48) - 1), "asks for exactly"),
    Case("stored bytes behind the end", stored() + b"x", "asks for exactly"),
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
    Case(
        "weights longer than the file", learned(section(WEIGHTS, b"", length=9999)), "ends within"
    ),
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
        Case(
            f"network family {byte}, {len(rest)} bytes",
            learned(config_payload=bytes([byte]) + rest),
            f"network family {byte} is not known.*knows 0 \\(transformer\\)",
            error=UnsupportedVersion,
        )
        for byte in (1, 127, 255)
        for rest in (b"", config()[1:], bytes(255))
    ]
)

GROUP_CASES = [
    Case("groups section with a length", whole(groups=section(GROUPS, b"")), "2\\^48 - 1"),
    Case(
        "coded length too large", whole(frames=frame(CODED, length=put_varint(5000))), "more than"
    ),
    Case("coded length 2^47", whole(frames=frame(CODED, length=put_varint(1 << 47))), "more than"),
    Case("coded length without end", whole(frames=b"\xff" * 40), "more than"),
    Case("coded length spelt long", whole(frames=frame(CODED, length=b"\x82\0")), "than it needs"),
    Case("frame checksum", whole(frames=frame(CODED, crc=1)), "group 0: checksum mismatch"),
    Case("too many groups for the file", whole(size=1 << 40), "asks for at least"),
    Case("2^31 groups", whole(size=1 << 39), "asks for at least"),
    Case("a second frame", whole(frames=2 * frame(CODED)), "section"),
    Case("no frame", whole(frames=b""), "group 0|frame"),
    Case(
        "index of another length",
        whole(index=section(INDEX, put_varint(len(CODED) + 1) + bytes(4))),
        "not those of the groups",
    ),
    Case("short index", whole(index=section(INDEX, b"\x02\0\0\0")), "4 bytes for 1 groups"),
    Case("long index", whole(index=section(INDEX, b"\x02\0\0\0\0\0")), "unread bytes"),
    Case("index of 2^40 bytes", whole(index=section(INDEX, b"", length=1 << 40)), "more than the"),
    Case("index offset off by one", whole(offset_by=1), "index offset"),
    Case("index offset backwards", whole(offset_by=-60), "index offset"),
    Case("index offset 2^63", whole(offset_by=1 << 63), "index offset"),
]

PREDICTOR_CASES = [
    Case(rule, one_letter(coded, plain), message, predicts=True)
    for rule, coded, plain, message in [
        ("group that decodes to other bytes", LETTER, b"b", "decodes to other bytes"),
        ("coded bytes behind the last symbol", LETTER + bytes(8) + b"x", b"a", "end together"),
        ("coded bytes of no encoder", b"\x61\x46\xaa", b"a", "end together"),
        ("coded bytes with a zero at the end", LETTER + b"\0", b"a", "ends in a zero byte"),
        ("coded bytes of no symbol", b"\xff" * 8, b"a", "coded group"),
    ]
]

PAYLOAD_CASES = [
    Case("zstd of nothing", payload_archive(1, b"", size=9), "payload section"),
    Case("zstd of noise", payload_archive(1, b"\xff" * 50), "payload section"),
    Case("zstd window of 2^38 bytes", payload_archive(1, zstd_frame(0xE0)), "too much memory"),
    Case("zstd window of 2^28 bytes", payload_archive(1, zstd_frame(18 << 3)), "not allowed"),
    Case("zstd that is empty", payload_archive(1, zstd_frame(0)), "holds 0 bytes, 1000"),
    Case("zstd of 1 TiB in a few bytes", payload_archive(1, b"abc", size=1 << 40), "cannot hold"),
    Case("xz of 1 TiB in a few bytes", payload_archive(2, b"abc", size=1 << 40), "cannot hold"),
    Case("xz of nothing", payload_archive(2, b"", size=9), "dictionary"),
    Case("xz dictionary 2^27", payload_archive(2, b"\x1b\0"), "dictionary of 2\\^27"),
    Case("xz dictionary 2^255", payload_archive(2, b"\xff\0"), "dictionary of 2\\^255"),
    Case("xz dictionary 2^11", payload_archive(2, b"\x0b\0"), "dictionary of 2\\^11"),
    Case("xz of noise", payload_archive(2, b"\x0c" + b"\xff" * 50), "payload section"),
    Case("xz without end", payload_archive(2, b"\x0c\x01\0\0x"), "no end"),
    Case("xz that is empty", payload_archive(2, b"\x0c\0"), "holds 0 bytes, 1000"),
    Case("xz with bytes behind", payload_archive(2, b"\x0c\x01\0\0x\0yy", size=1), "follow"),
    Case(
        "payload checksum",
        payload_archive(2, b"\x0c\x01\0\0x\0", size=1)[:-34] + b"y\0" + DIGEST,
        "payload section: checksum mismatch",
    ),
    Case("payload longer than it may be", payload_archive(2, bytes(200_000), size=1), "more than"),
    Case(
        "payload of 2^47 bytes",
        fixed_header(method=1, size=1) + section(6, b"", length=1 << 47),
        "more",
    ),
]

ALL_CASES = (
    HEADER_CASES + SECTION_CASES + CONFIG_CASES + GROUP_CASES + PREDICTOR_CASES + PAYLOAD_CASES
)


def test_there_are_enough_cases_and_no_name_twice() -> None:
    assert len(ALL_CASES) >= 60
    assert len({case.rule for case in ALL_CASES}) == len(ALL_CASES)


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.rule)
def test_hostile_archive_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(case.error, match=case.message) as caught:
        decode(case.data)
    assert "\n" not in str(caught.value)
    with pytest.raises(case.error):
        decode(case.data, pipe=True)
    path = tmp_path / "a.mdlz"
    path.write_bytes(case.data)
    with pytest.raises((CorruptArchive, UnsupportedVersion)):
        mdlzip.decompress(path, tmp_path / "out", device="cpu", threads=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.rule)
def test_refusal_is_cheap(case: Case) -> None:
    if case.predicts:
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
    good = general_archive("xz", b"x")
    assert decode(good) == b"x"
    assert (
        decode(payload_archive(2, b"\x0c\x01\0\0x\0", size=1)[:-32] + sha256(b"x").digest()) == b"x"
    )
    assert decode(one_letter(LETTER)) == b"a"
    with pytest.raises(CorruptArchive, match="end together"):
        decode(whole())


def test_unknown_optional_sections_are_skipped() -> None:
    head = fixed_header(method=2, size=1)
    tail = section(PAYLOAD, b"\x0c\x01\0\0x\0") + sha256(b"x").digest()
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
    data = learned(size=size, config_payload=config(**fields))
    tracemalloc.start()
    with pytest.raises(LimitExceeded, match=r"--memory \d+MiB"):
        decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < LIMIT_BYTES


@pytest.mark.parametrize("method", ["zstd", "xz"])
def test_expansion_stops_at_the_declared_size(method: str) -> None:
    """A small stream of 8 MiB of zeros under a header that declares 1,000 bytes."""
    bomb = general_archive(method, bytes(8 << 20))
    head = 26
    data = fixed_header(method=1 if method == "zstd" else 2, size=1000) + bomb[head:]
    tracemalloc.start()
    with pytest.raises(CorruptArchive, match="more than the 1000 bytes declared"):
        decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < LIMIT_BYTES
