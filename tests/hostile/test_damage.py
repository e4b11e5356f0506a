"""Accidents: flipped bits, truncation, spliced and appended bytes; always found, always code 3."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mdlzip
from mdlzip.archive.context_section import context_bytes, pack_context
from mdlzip.archive.reader import ArchiveReader
from mdlzip.archive.sections import (
    DIGEST_BYTES,
    INDEX_OFFSET_BYTES,
    SECTION_HEADER_BYTES,
    Kind,
)
from mdlzip.errors import CorruptArchive
from mdlzip.symbols.context import Context
from tests.archive_tools import (
    CONTEXTS,
    METHODS,
    Record,
    bits_to_flip,
    decode,
    learned_parts,
    make_archive,
    sample,
    section,
)

DIGEST_BITS = 256


@pytest.fixture(scope="module", params=(*METHODS, *CONTEXTS))
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def archive(method: str, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    original = sample(method)[:150]
    data = make_archive(tmp_path_factory.mktemp("damage"), method, original, chunk_size=32)
    assert decode(data) == decode(data, pipe=True) == original
    return data


def refused(data: bytes, what: str, *, pipe: bool = False) -> None:
    """Decoding must end in CorruptArchive; anything else, success included, is a failure."""
    try:
        decode(data, pipe=pipe)
    except CorruptArchive as error:
        assert error.exit_code == 3
        assert "\n" not in str(error)
        return
    except BaseException as error:
        pytest.fail(f"{what}: {error!r}")
    pytest.fail(f"{what}: decoded as if nothing had happened")


def test_every_single_bit_flip(method: str, archive: bytes, record_property: Record) -> None:
    bits = bits_to_flip(method, archive, 19)
    record_property("flips", len(bits))
    for bit in bits:
        damaged = bytearray(archive)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(bytes(damaged), f"bit {bit} of {8 * len(archive)}")


def test_flipped_bits_in_a_pipe(archive: bytes, record_property: Record) -> None:
    bits = range(0, 8 * len(archive), 37)
    record_property("flips", len(bits))
    for bit in bits:
        damaged = bytearray(archive)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(bytes(damaged), f"bit {bit} of {8 * len(archive)}", pipe=True)


def test_every_truncation(method: str, archive: bytes, record_property: Record) -> None:
    lengths = range(0, len(archive), 1 if method in METHODS else 5)
    record_property("cuts", len(lengths))
    for length in lengths:
        refused(archive[:length], f"first {length} bytes of {len(archive)}")


def test_truncated_pipe(archive: bytes, record_property: Record) -> None:
    lengths = range(0, len(archive), 13)
    record_property("cuts", len(lengths))
    for length in lengths:
        refused(archive[:length], f"first {length} bytes of {len(archive)}", pipe=True)


@pytest.mark.parametrize("tail", [b"\0", b"x", b"ab", b"\0" * 512])
@pytest.mark.parametrize("pipe", [False, True])
def test_appended_bytes(archive: bytes, tail: bytes, pipe: bool) -> None:
    refused(archive + tail, f"{len(tail)} bytes appended", pipe=pipe)
    refused(archive + archive, "archive twice", pipe=pipe)


def test_splices(method: str, archive: bytes, record_property: Record) -> None:
    rng, tried = np.random.default_rng(11), 0
    for _ in range(400 if method in METHODS else 80):
        a, b = sorted(int(x) for x in rng.integers(0, len(archive) + 1, 2))
        piece = archive[a:b]
        for what, damaged in (
            ("deleted", archive[:a] + archive[b:]),
            ("zeroed", archive[:a] + bytes(b - a) + archive[b:]),
            ("doubled", archive[:b] + piece + archive[b:]),
            ("reversed", archive[:a] + piece[::-1] + archive[b:]),
        ):
            if damaged != archive:
                tried += 1
                refused(damaged, f"{what} {a}..{b}")
    record_property("splices", tried)


def test_one_archive_spliced_into_another(tmp_path: Path, record_property: Record) -> None:
    rng, tried = np.random.default_rng(12), 0
    archives = [make_archive(tmp_path, method) for method in METHODS]
    for _ in range(200):
        i, j = rng.permutation(len(archives))[:2]
        cut = int(rng.integers(1, min(len(archives[i]), len(archives[j]))))
        joined = archives[i][:cut] + archives[j][cut:]
        if joined not in archives:  # their first bytes are the same
            tried += 1
            refused(joined, f"{i} and {j} joined at {cut}")
    record_property("splices", tried)


@pytest.mark.parametrize("context", ["chunk", "group", *CONTEXTS])
def test_swapped_units_of_one_size(tmp_path: Path, context: str) -> None:
    """Two frames that are whole in themselves but in each other's place."""
    data = make_archive(tmp_path, "learned", b"abcd" * 64 + b"dcba" * 64, context=context)
    parts = learned_parts(data)
    first, second = parts.frames
    swapped = parts.before + second + first + parts.after
    refused(swapped, "units swapped")
    refused(swapped, "units swapped", pipe=True)


@pytest.mark.parametrize("context", ["group", *CONTEXTS])
def test_a_context_that_is_not_the_archives(tmp_path: Path, context: str) -> None:
    """Whole sections that were exchanged, or left out: nothing decodes to other bytes."""
    data = sample("learned")[:512]
    archive = make_archive(tmp_path, "learned", data, chunk_size=32, context=context)
    reader = ArchiveReader(io.BytesIO(archive), len(archive))
    end = reader.source.offset - SECTION_HEADER_BYTES
    start = end - SECTION_HEADER_BYTES - context_bytes(reader.context)
    n, bits = reader.layout.n_groups, reader.context.table_bits
    others = [
        Context("group", bits),
        Context("reference", bits, references=(0,)),
        Context("reference", bits, references=(n - 1,)),
        Context("solid", bits, waves=(1,) * n),
        Context("solid", bits, waves=(1, 1, 2, 4, n - 8)),
        *(replace(reader.context, table_bits=other) for other in ((8, *bits[1:]), (*bits[:2], 8))),
    ]
    for other in (replace(z, lane_chunks=reader.context.lane_chunks) for z in others):
        if other != reader.context:
            payload = pack_context(other)
            spliced = archive[:start] + section(Kind.CONTEXT, payload) + archive[end:]
            refused(moved(spliced, len(spliced) - len(archive)), f"{other}")
    without = archive[:start] + archive[end:]
    refused(moved(without, start - end), "no context section")


def moved(archive: bytes, by: int) -> bytes:
    """The archive with the offset of its index corrected."""
    place = len(archive) - DIGEST_BYTES - INDEX_OFFSET_BYTES
    (offset,) = struct.unpack_from("<Q", archive, place)
    return archive[:place] + struct.pack("<Q", offset + by) + archive[place + 8 :]


@pytest.mark.parametrize("method", [*METHODS, *CONTEXTS])
def test_no_output_file_after_damage(tmp_path: Path, method: str) -> None:
    data = make_archive(tmp_path, method, chunk_size=32 if method in CONTEXTS else 256)
    rng = np.random.default_rng(13)
    bad, out = tmp_path / "bad.mdlz", tmp_path / "out"
    for bit in rng.integers(0, 8 * len(data), 25):
        damaged = bytearray(data)
        damaged[int(bit) // 8] ^= 1 << int(bit) % 8
        bad.write_bytes(damaged)
        with pytest.raises(CorruptArchive):
            mdlzip.decompress(bad, out, device="cpu", threads=1)
        with pytest.raises(CorruptArchive):
            mdlzip.test(bad, device="cpu", threads=2)
        assert not out.exists()
