"""Accidents: flipped bits, truncation, spliced and appended bytes; always found, always code 3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mdlzip
from mdlzip.errors import CorruptArchive
from tests.archive_tools import METHODS, decode, make_archive, sample

DIGEST_BITS = 256


@pytest.fixture(scope="module", params=METHODS)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    original = sample(request.param)[:150]
    data = make_archive(tmp_path_factory.mktemp("damage"), request.param, original, chunk_size=32)
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


def test_every_single_bit_flip(archive: bytes) -> None:
    for bit in range(8 * len(archive)):
        damaged = bytearray(archive)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(bytes(damaged), f"bit {bit} of {8 * len(archive)}")


def test_flipped_bits_in_a_pipe(archive: bytes) -> None:
    for bit in range(0, 8 * len(archive), 37):
        damaged = bytearray(archive)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(bytes(damaged), f"bit {bit} of {8 * len(archive)}", pipe=True)


def test_every_truncation(archive: bytes) -> None:
    for length in range(len(archive)):
        refused(archive[:length], f"first {length} bytes of {len(archive)}")


def test_truncated_pipe(archive: bytes) -> None:
    for length in range(0, len(archive), 13):
        refused(archive[:length], f"first {length} bytes of {len(archive)}", pipe=True)


@pytest.mark.parametrize("tail", [b"\0", b"x", b"ab", b"\0" * 512])
@pytest.mark.parametrize("pipe", [False, True])
def test_appended_bytes(archive: bytes, tail: bytes, pipe: bool) -> None:
    refused(archive + tail, f"{len(tail)} bytes appended", pipe=pipe)
    refused(archive + archive, "archive twice", pipe=pipe)


def test_splices(archive: bytes) -> None:
    rng = np.random.default_rng(11)
    for _ in range(400):
        a, b = sorted(int(x) for x in rng.integers(0, len(archive) + 1, 2))
        piece = archive[a:b]
        for what, damaged in (
            ("deleted", archive[:a] + archive[b:]),
            ("zeroed", archive[:a] + bytes(b - a) + archive[b:]),
            ("doubled", archive[:b] + piece + archive[b:]),
            ("reversed", archive[:a] + piece[::-1] + archive[b:]),
        ):
            if damaged != archive:
                refused(damaged, f"{what} {a}..{b}")


def test_one_archive_spliced_into_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    archives = [make_archive(tmp_path, method) for method in METHODS]
    for _ in range(200):
        i, j = rng.permutation(len(archives))[:2]
        cut = int(rng.integers(1, min(len(archives[i]), len(archives[j]))))
        joined = archives[i][:cut] + archives[j][cut:]
        if joined not in archives:  # their first bytes are the same
            refused(joined, f"{i} and {j} joined at {cut}")


def test_swapped_groups_of_one_size(tmp_path: Path) -> None:
    """Two frames that are whole in themselves but in each other's place."""
    data = make_archive(tmp_path, "learned", b"abcd" * 64 + b"dcba" * 64)
    from tests.archive_tools import learned_parts

    parts = learned_parts(data)
    first, second = parts.frames
    swapped = parts.before + second + first + parts.after
    refused(swapped, "groups swapped")


@pytest.mark.parametrize("method", METHODS)
def test_no_output_file_after_damage(tmp_path: Path, method: str) -> None:
    data = make_archive(tmp_path, method)
    rng = np.random.default_rng(13)
    bad, out = tmp_path / "bad.mdlz", tmp_path / "out"
    for bit in rng.integers(0, 8 * len(data), 25):
        damaged = bytearray(data)
        damaged[int(bit) // 8] ^= 1 << int(bit) % 8
        bad.write_bytes(damaged)
        with pytest.raises(CorruptArchive):
            mdlzip.decompress(bad, out, device="cpu", threads=1)
        assert not out.exists()
