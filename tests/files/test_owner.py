"""Outputs belong to whom their source belonged to, and are never readable by more people."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mdlzip
from mdlzip.codec import CompressOptions
from tests.archive_tools import compressible
from tests.conftest import cli_environment

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
# Everything is loaded first: another user may not be able to read this installation.
CODE = """
import json, os, sys, tempfile, mdlzip
with tempfile.TemporaryDirectory() as folder:  # load all code: the user below may not read it
    with open(f"{folder}/f", "wb") as file:
        file.write(b"some text " * 200)
    options = mdlzip.CompressOptions(preset="nano", steps=1, fallback=False)
    mdlzip.compress(f"{folder}/f", options=options)
    mdlzip.decompress(f"{folder}/f.mdlz", f"{folder}/g")
groups, source, archive, back = sys.argv[1:]
os.setgroups(json.loads(groups)); os.setgid(1001); os.setuid(1001)
mdlzip.compress(source)
mdlzip.decompress(archive, back)
"""


def bits(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, status.st_mode & 0o7777


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that other users may enter, since pytest's own is private."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith(("pytest-", "popen-")) or parent == tmp_path:
            parent.chmod(parent.stat().st_mode | 0o055)
    return tmp_path


@ROOT_ONLY
@pytest.mark.parametrize("mode", [0o640, 0o600, 0o644, 0o755, 0o4755])
def test_root_keeps_owner_group_and_mode(folder: Path, mode: int) -> None:
    source = folder / "s"
    source.write_bytes(compressible(2000))
    os.chown(source, 1001, 2001)
    source.chmod(mode)
    archive = mdlzip.compress(source).path
    assert archive is not None
    assert bits(archive) == (1001, 2001, mode & 0o777)
    source.unlink()
    mdlzip.decompress(archive)
    assert bits(source) == (1001, 2001, mode & 0o777)


@ROOT_ONLY
@pytest.mark.parametrize("groups", [[], [2001]])
def test_whoever_cannot_keep_the_group_lets_nobody_else_read(
    folder: Path, groups: list[int]
) -> None:
    """A set-gid folder hands its group to every new file; the payroll was for group 2001 alone."""
    shared = folder / "shared"
    shared.mkdir()
    os.chown(shared, 1001, 3000)
    shared.chmod(0o2775)
    source = shared / "payroll"
    source.write_bytes(compressible(2000))
    os.chown(source, 1001, 2001)
    source.chmod(0o640)

    archive, back = shared / "payroll.mdlz", shared / "back"
    command = [sys.executable, "-c", CODE, str(groups), *map(str, (source, archive, back))]
    subprocess.run(command, check=True, cwd="/", env=cli_environment())
    expected = (1001, 2001, 0o640) if groups else (1001, 3000, 0o600)
    assert bits(archive) == bits(back) == expected


@pytest.mark.parametrize(
    ("mode", "archive_mode", "umask", "expected"),
    [
        (0o640, 0o640, 0o022, 0o640),
        (0o755, 0o644, 0o022, 0o755),  # an archive is not executable, what is in it may be
        (0o644, 0o600, 0o022, 0o600),  # a private archive makes no public file
        (0o666, 0o666, 0o077, 0o600),
        (0o777, 0o640, 0o022, 0o750),
    ],
)
def test_a_decompressed_file_is_no_more_public_than_its_archive(
    tmp_path: Path, mode: int, archive_mode: int, umask: int, expected: int
) -> None:
    source = tmp_path / "s"
    source.write_bytes(compressible(2000))
    source.chmod(mode)
    archive = mdlzip.compress(source, options=CompressOptions(verify=False)).path
    assert archive is not None
    archive.chmod(archive_mode)
    before = os.umask(umask)
    try:
        out = mdlzip.decompress(archive, tmp_path / "out").path
    finally:
        os.umask(before)
    assert out is not None
    assert out.stat().st_mode & 0o7777 == expected
