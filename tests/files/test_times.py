"""Times of any value: files have them, and archives of strangers do."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from zlib import crc32

import pytest

import mdlzip
from mdlzip.archive.header import nearest_time
from tests.archive_tools import METHODS, make_archive

YEAR_NS = 31_556_952 * 10**9


@pytest.mark.parametrize("years", [-150, -70, -1, 0, 250, 291, 293, 400])
def test_any_time_of_a_source(tmp_path: Path, years: int) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"some text " * 300)
    os.utime(source, ns=(0, years * YEAR_NS + 1))
    kept = source.stat().st_mtime_ns  # what the file system makes of it
    archive = mdlzip.compress(source).path
    assert archive is not None
    out = mdlzip.decompress(archive, tmp_path / "g").path
    assert out is not None and out.read_bytes() == source.read_bytes()
    assert abs(out.stat().st_mtime_ns - nearest_time(kept)) < 10**9


@pytest.mark.parametrize("mtime_ns", [-(1 << 63), -1, 0, (1 << 63) - 1])
@pytest.mark.parametrize("method", METHODS)
def test_any_time_in_an_archive(tmp_path: Path, method: str, mtime_ns: int) -> None:
    data = bytearray(make_archive(tmp_path, method))
    data[8:16] = struct.pack("<q", mtime_ns)
    data[22:26] = struct.pack("<I", crc32(data[:22]))
    (tmp_path / "a.mdlz").write_bytes(data)
    assert mdlzip.inspect(tmp_path / "a.mdlz").mtime_ns == mtime_ns
    out = mdlzip.decompress(tmp_path / "a.mdlz", tmp_path / "g").path
    assert out is not None and out.stat().st_size > 0
