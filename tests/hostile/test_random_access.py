"""`mdlzip.open` on damaged archives: the right bytes or an error, never wrong bytes."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest

import mdlzip
from mdlzip.archive.blocks import table_bytes
from mdlzip.archive.reader import ArchiveReader
from mdlzip.archive.sections import Kind
from mdlzip.errors import CorruptArchive
from mdlzip.limits import CHECK_BLOCK_BYTES
from tests.archive_tools import (
    CONTEXTS,
    GENERAL_METHODS,
    METHODS,
    bits_to_flip,
    compressible,
    general_archive,
    learned_parts,
    make_archive,
    sample,
    section,
)


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def reads(path: Path, spans: list[tuple[int, int]], original: bytes) -> int:
    """Read the spans in turn; wrong bytes fail the test. Returns how many gave bytes."""
    done = 0
    try:
        with mdlzip.open(path, threads=1) as opened:
            for offset, n in spans:
                try:
                    found = opened.read(offset, n)
                except CorruptArchive:
                    continue
                assert found == original[offset : offset + n], f"wrong bytes at {offset}, {n}"
                done += 1
    except CorruptArchive:
        pass
    return done


@pytest.mark.parametrize("method", [*METHODS, *CONTEXTS])
def test_every_single_bit_flip(tmp_path: Path, method: str) -> None:
    size = 70 if method == "learned" else 150
    original = sample(method)[:size]
    archive = make_archive(tmp_path, method, original, chunk_size=32)
    path, rng = tmp_path / "damaged.mdlz", np.random.default_rng(3)
    silent = 0
    bits = bits_to_flip(method, archive, 23)
    for bit in bits:
        path.write_bytes(flipped(archive, bit))
        spans = [(0, 1 << 20), (int(rng.integers(size)), 9), (int(rng.integers(size)), 40), (3, 5)]
        rng.shuffle(spans)
        silent += reads(path, spans, original) == len(spans)
    # Only the digest of the whole and an offset that nothing needs may be damaged unnoticed.
    assert silent == sum(bit >= 8 * (len(archive) - 32) for bit in bits)


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_damage_within_one_block_of_many(tmp_path: Path, method: str) -> None:
    size = 3 * CHECK_BLOCK_BYTES + 1000
    noise = np.random.default_rng(4).bytes(CHECK_BLOCK_BYTES // 2)
    original = compressible(CHECK_BLOCK_BYTES) + noise + compressible(size, 2)
    original = original[:size]
    archive = general_archive(method, original)
    path, rng = tmp_path / "damaged.mdlz", np.random.default_rng(5)
    seen = 0
    for bit in rng.integers(8 * 26, 8 * (len(archive) - 32), 150):
        path.write_bytes(flipped(archive, int(bit)))
        spans = [(int(rng.integers(size)), int(rng.integers(1, 90_000))) for _ in range(5)]
        spans.append((0, size))
        seen += reads(path, spans, original) < len(spans)
    assert seen == 150


def test_undamaged_blocks_of_a_stored_archive_can_be_read(tmp_path: Path) -> None:
    original = np.random.default_rng(6).bytes(4 * CHECK_BLOCK_BYTES)
    archive = general_archive("stored", original)
    path = tmp_path / "damaged.mdlz"
    path.write_bytes(flipped(archive, 8 * (26 + CHECK_BLOCK_BYTES + 5)))
    with mdlzip.open(path) as opened:
        assert opened.read(0, CHECK_BLOCK_BYTES) == original[:CHECK_BLOCK_BYTES]
        with pytest.raises(CorruptArchive, match=f"begins at byte {CHECK_BLOCK_BYTES}"):
            opened.read(CHECK_BLOCK_BYTES - 1, 2)
        assert opened.read(2 * CHECK_BLOCK_BYTES, 7) == original[2 * CHECK_BLOCK_BYTES :][:7]


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_nothing_is_written_before_its_block_was_compared(tmp_path: Path, method: str) -> None:
    """What `decompress -c` of a file gives away before it fails is right."""
    size = 4 * CHECK_BLOCK_BYTES
    original = compressible(size)
    archive = bytearray(general_archive(method, original))
    path = tmp_path / "damaged.mdlz"
    place = len(archive) - 32 - table_bytes(size) + 4 * 2  # the checksum of the third block
    archive[place] ^= 1
    path.write_bytes(archive)
    from mdlzip.codec.decode import decode_archive
    from mdlzip.codec.fitting import Machine
    from mdlzip.codec.options import no_progress

    out = bytearray()
    with path.open("rb") as file, pytest.raises(CorruptArchive, match="begins at byte 131072"):
        decode_archive(ArchiveReader(file, len(archive)), out.extend, Machine("cpu"), no_progress)
    assert bytes(out) == original[: 2 * CHECK_BLOCK_BYTES]


@pytest.mark.parametrize("method", [*METHODS, *CONTEXTS])
@pytest.mark.parametrize("tail", [bytes(512), b"x", "archive"])
@pytest.mark.parametrize("how", ["test", "inspect", "open", "decompress"])
def test_bytes_behind_are_counted_and_cut_out(
    tmp_path: Path, method: str, tail: bytes | str, how: str
) -> None:
    archive = make_archive(tmp_path, method)
    behind = archive if isinstance(tail, str) else tail
    path = tmp_path / "long.mdlz"
    path.write_bytes(archive + behind)
    calls = {
        "test": lambda: mdlzip.test(path, device="cpu"),
        "inspect": lambda: mdlzip.inspect(path),
        "open": lambda: mdlzip.open(path),
        "decompress": lambda: mdlzip.decompress(path, tmp_path / "out", device="cpu"),
    }
    message = rf"{len(behind)} bytes follow the archive, which ends at byte {len(archive)}\b.*"
    kind = {bytes(512): "zeros.*", "archive": "another archive.*"}.get(tail, "")
    with pytest.raises(CorruptArchive, match=f"{message}{kind}head -c {len(archive)} FILE"):
        calls[how]()
    assert not (tmp_path / "out").exists()
    path.write_bytes(path.read_bytes()[: len(archive)])
    mdlzip.test(path, device="cpu")


@pytest.mark.parametrize("context", CONTEXTS)
def test_what_builds_on_a_lost_unit_is_lost(tmp_path: Path, context: str) -> None:
    """A unit whose stream is whole but decodes to other bytes; each read says so, every time."""
    original = compressible(600)
    archive = make_archive(tmp_path, context, original, chunk_size=32)
    reader = ArchiveReader(io.BytesIO(archive), len(archive))
    bad = 1 if context == "solid" else 0
    parts = learned_parts(archive)
    parts.table.crcs[bad] ^= 1
    head = parts.before + b"".join(parts.frames)
    index = section(Kind.INDEX, parts.table.pack())
    path = tmp_path / "damaged.mdlz"
    path.write_bytes(head + index + struct.pack("<Q", len(head)) + archive[-32:])
    spans = [reader.layout.group_span(reader.units.groups(u)[0]) for u in range(len(reader.units))]
    with mdlzip.open(path, threads=1) as opened:
        for unit in (bad, len(spans) - 1, bad, bad + 1, 0):
            start, stop = spans[unit]
            if unit < bad:
                assert opened.read(start, stop - start) == original[start:stop]
                continue
            with pytest.raises(CorruptArchive, match=f"unit {bad}: decodes to other bytes"):
                opened.read(start, stop - start)
