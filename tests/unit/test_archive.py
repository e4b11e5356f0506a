from __future__ import annotations

import dataclasses
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdlzip.archive.bodies import BODIES, LEARNED
from mdlzip.archive.bodies.learned import Model
from mdlzip.archive.config_section import config_bytes, pack_config, unpack_config
from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.archive.header import HEADER_BYTES, NO_METADATA, Header, unpack_header
from mdlzip.archive.index import UnitTable, unpack_index
from mdlzip.archive.reader import ArchiveReader, n_cells
from mdlzip.archive.sections import storable_name, unpack_name
from mdlzip.config import ModelConfig
from mdlzip.errors import CorruptArchive, MdlzipError
from mdlzip.symbols.context import STRICT, Units
from mdlzip.symbols.layout import Layout
from tests.archive_tools import TINY, Pipe, decode, general_archive


@given(
    st.sampled_from([body.number for body in BODIES]),
    st.one_of(st.integers(0, 0o777), st.just(NO_METADATA)),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(0, (1 << 48) - 1),
)
def test_header_round_trip(method: int, mode: int, mtime_ns: int, size: int) -> None:
    header = Header(method, mode, mtime_ns, size)
    assert len(header.pack()) == HEADER_BYTES
    assert unpack_header(header.pack()) == header


def test_header_bytes_are_pinned() -> None:
    header = Header(LEARNED.number, 0o644, 1_700_000_000_123_456_789, 10_192_446)
    assert header.pack().hex() == "936d647a0103a40115cd853dfe9c97173e869b0000001b738e2e"
    assert unpack_header(header.pack()).size == 10_192_446


@given(st.integers(0, (1 << 48) - 1))
def test_varint_round_trip(value: int) -> None:
    cursor = Cursor(put_varint(value), "test")
    assert cursor.varint("x") == value
    cursor.finish()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x80", "needs 1 bytes, 0 left"),
        (b"\x80\x00", "more bytes than it needs"),
        (b"\xff" * 8, "longer than"),
        (b"\x65", "is 101, more than 100"),
    ],
)
def test_bad_varints(raw: bytes, message: str) -> None:
    with pytest.raises(CorruptArchive, match=message):
        Cursor(raw, "test", base=40).varint("x", 100)


def test_cursor_names_field_and_offset() -> None:
    cursor = Cursor(b"abc", "thing", base=100)
    cursor.u8("first")
    with pytest.raises(CorruptArchive, match=r"thing: second needs 4 bytes, 2 left \(offset 101\)"):
        cursor.u32("second")
    with pytest.raises(CorruptArchive, match="2 unread bytes"):
        cursor.finish()
    with pytest.raises(CorruptArchive):
        cursor.take(-1, "negative")


CONFIGS = [
    TINY,
    ModelConfig(),
    ModelConfig(
        d_model=256,
        n_layers=12,
        n_heads=8,
        d_ff=1024,
        window=0,
        conv_width=0,
        norm="layer",
        activation="gelu",
        positions="sinusoidal",
        biases=True,
        shared_norm=True,
        match_min=0,
    ),
    ModelConfig(d_model=4096, n_layers=64, n_heads=256, d_ff=16384, window=16384, conv_width=8),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_configuration_round_trip(config: ModelConfig) -> None:
    layout = Layout(123_456, 16384, 65536)
    packed = pack_config(config, layout)
    assert len(packed) == config_bytes(config) == 24
    assert unpack_config(packed, 123_456) == (config, layout)


def test_every_field_of_the_configuration_is_stored() -> None:
    """A field added to ModelConfig must get its place in the section."""
    base, layout = CONFIGS[2], Layout(1, 512, 128)
    other = {
        "d_model": 128,
        "n_layers": 3,
        "n_heads": 4,
        "d_ff": 512,
        "window": 32,
        "conv_width": 3,
        "norm": "layer",
        "activation": "relu2",
        "positions": "rotary",
        "biases": False,
        "shared_norm": False,
        "match_min": 5,
        "n_merges": 7,
    }
    for field in dataclasses.fields(ModelConfig):
        if field.name == "norm":
            continue
        changed = dataclasses.replace(base, **{field.name: other[field.name]})
        assert unpack_config(pack_config(changed, layout), 1)[0] == changed != base


def test_index_round_trip() -> None:
    layout = Layout(10_000, 512, 4)
    table, units = UnitTable.empty(), Units(layout, STRICT)
    for i in range(layout.n_groups):
        table.lengths.append(100 * i)
        table.crcs.append(0xFFFFFFFF - i)
    assert unpack_index(table.pack(), units) == table
    with pytest.raises(CorruptArchive, match="unread"):
        unpack_index(table.pack() + b"\0", units)
    with pytest.raises(CorruptArchive):
        unpack_index(table.pack()[:-1], units)


@pytest.mark.parametrize("name", ["a", "naïve 文件.txt", "-x", "a" * 255])
def test_names_that_are_stored(name: str) -> None:
    assert storable_name(name) == name
    assert unpack_name(name.encode()) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/", "a\\b", "a\0", "a\n", "\x1b[2J", "a" * 256, "\udcff", "\u2028"],
)
def test_names_that_are_not(name: str) -> None:
    assert storable_name(name) is None
    with pytest.raises(CorruptArchive):
        unpack_name(name.encode("utf-8", "surrogateescape"))


def test_size_of_the_model_is_counted_without_building_it() -> None:
    assert n_cells(CONFIGS[3]) > 1 << 33


@pytest.mark.parametrize("method", ["stored", "zstd", "xz"])
@pytest.mark.parametrize("data", [b"x", b"abc" * 5000])
def test_general_methods_from_file_and_pipe(method: str, data: bytes) -> None:
    archive = general_archive(method, data, "name" if method != "stored" else None)
    assert decode(archive) == decode(archive, pipe=True) == data


class _WriteOnly:
    """A sink as poor as a pipe."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def test_learned_container_is_written_and_read_without_seeking() -> None:
    groups = [(b"first", 11), (b"", 22), (b"third" * 40, 33)]
    layout = Layout(1100, 256, 2)
    header = Header(LEARNED.number, 0o600, 5, 1100)
    model = Model(TINY, layout, b"weights", {"positions": 4, "values": 2, "scales": 1})
    sink = _WriteOnly()
    ledger = LEARNED.write(sink, header, "näme", model, groups, bytes(range(32)))
    assert sum(ledger.values()) == len(sink.data)
    assert ledger["data"] == 205
    reader = ArchiveReader(Pipe(sink.data))
    assert (reader.header, reader.name) == (header, "näme")
    assert (reader.config, reader.layout) == (TINY, layout)
    assert reader.weights() == b"weights"
    assert list(reader.frames()) == [(i, coded) for i, (coded, _) in enumerate(groups)]
    assert list(reader.finish().crcs) == [11, 22, 33]
    assert reader.digest == bytes(range(32))

    reader = ArchiveReader(io.BytesIO(sink.data), len(sink.data))
    reader.weights()
    assert reader.scan().crcs == reader.scan().crcs
    table, first = reader.jump_to_index()
    assert list(table.lengths) == [5, 0, 200]
    assert sink.data[first] == 5
    (offset,) = struct.unpack("<Q", sink.data[-40:-32])
    assert sink.data[offset] == 5  # the kind of the index section


def test_missing_groups_are_an_error() -> None:
    model = Model(TINY, Layout(1100, 256, 2), b"w", {"positions": 1, "values": 0, "scales": 0})
    header = Header(LEARNED.number, 0o600, 5, 1100)
    with pytest.raises(MdlzipError, match="1 units coded of 3"):
        LEARNED.write(_WriteOnly(), header, None, model, [(b"", 0)], bytes(32))
