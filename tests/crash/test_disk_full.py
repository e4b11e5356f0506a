"""A full disk at any offset: one line, exit code 1, source untouched, no new or changed target."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.archive_tools import Record, compressible, general_archive
from tests.conftest import cli_environment

pytestmark = pytest.mark.crash

OFFSETS = 20
# One process tries all offsets: the size limit for files is lowered step by step. SIGXFSZ is
# ignored by Python, so the write fails as it would on a full disk.
SCRIPT = """
import os, resource, sys
import mdlzip
from mdlzip.codec import CompressOptions
from mdlzip.errors import MdlzipError
command, source, target, size, offsets, anonymous = sys.argv[1:]
if anonymous == "no":
    del os.O_TMPFILE
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for i in range(int(offsets)):
    limit = int(size) * i // int(offsets)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        if command == "compress":
            mdlzip.compress(source, target, CompressOptions(force=True))
        else:
            mdlzip.decompress(source, target, force=True)
    except MdlzipError as error:
        assert error.exit_code == 1, error
        assert "size limit" in str(error) and "\\n" not in str(error), error
    else:
        sys.exit(f"no error with {limit} bytes")
"""


@pytest.mark.parametrize("command", ["compress", "decompress"])
@pytest.mark.parametrize("anonymous", ["yes", "no"])
@pytest.mark.parametrize("existing", [None, b"old"])
def test_disk_full(
    tmp_path: Path, command: str, anonymous: str, existing: bytes | None, record_property: Record
) -> None:
    record_property("offsets", OFFSETS)
    folder = tmp_path / "out"
    folder.mkdir()
    source, target = tmp_path / "source", folder / "target"
    data = os.urandom(3000) if command == "compress" else compressible(3000)
    if command == "decompress":
        source.write_bytes(general_archive("xz", data))
    else:
        source.write_bytes(data)
    before = source.read_bytes()
    if existing is not None:
        target.write_bytes(existing)
    done = subprocess.run(
        [
            *(sys.executable, "-c", SCRIPT, command, str(source), str(target)),
            *("3000", str(OFFSETS), anonymous),
        ],
        env=cli_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert source.read_bytes() == before
    if existing is None:
        assert os.listdir(folder) == []
    else:
        assert os.listdir(folder) == ["target"]
        assert target.read_bytes() == existing
