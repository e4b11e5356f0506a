"""Archives of every released format version decode, and today's writer still makes their bytes."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

import mdlzip
from tests.golden import make_golden

HERE = Path(__file__).resolve().parent
DIGESTS = {
    name: digest
    for digest, name in (line.split() for line in (HERE / "SHA256").read_text().splitlines())
}


def test_every_archive_has_a_digest() -> None:
    assert {p.name for p in HERE.glob("*.mdlz")} == set(DIGESTS)
    assert len(DIGESTS) >= 6


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_it_decodes(name: str, tmp_path: Path) -> None:
    shutil.copy(HERE / name, tmp_path / name)
    mdlzip.decompress(tmp_path / name, tmp_path / "out")
    assert sha256((tmp_path / "out").read_bytes()).hexdigest() == DIGESTS[name]
    assert (tmp_path / "out").stat().st_mtime_ns == 10**18


@pytest.mark.parametrize("name", [n for n in make_golden.cases() if n != "general"])
def test_the_writer_makes_the_same_bytes(name: str, tmp_path: Path) -> None:
    """Any difference is a format change ("general" depends on the zstd and xz libraries)."""
    archive = HERE / f"v{make_golden.VERSION}-{name}.mdlz"
    assert make_golden.make(name, tmp_path) == archive.read_bytes()
