"""Baselines that are programs of their own: found, called, decoded again, ended with mdlzip."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mdlzip.bench.baselines import make_codec
from mdlzip.bench.external import TOOLS, installed, read_programs
from mdlzip.errors import MdlzipError, UsageError

# Called as bsc is: `e IN OUT ...` and `d IN OUT ...`.
PROGRAM = """#!{python}
import lzma, sys, time
from pathlib import Path
what, source, target = sys.argv[1:4]
data = Path(source).read_bytes()
{also}
Path(target).write_bytes(lzma.compress(data) if what == "e" else lzma.decompress(data))
"""


def program(folder: Path, also: str = "") -> str:
    path = folder / "mine"
    path.write_text(PROGRAM.format(python=sys.executable, also=also))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def text_file(tmp_path: Path, prose: bytes) -> Path:
    path = tmp_path / "a name with spaces"
    path.write_bytes(prose)
    return path


def test_a_program_by_its_path_is_measured_and_decoded(text_file: Path, tmp_path: Path) -> None:
    programs = read_programs([f"bsc={program(tmp_path)}"])
    got = make_codec("bsc", programs).measure(text_file, 512)
    assert got.bytes is not None and 0 < got.bytes < text_file.stat().st_size
    assert got.note == "mine e plain coded -b1 -e2 -T"
    assert got.compress_s and got.decompress_s


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_what_is_installed_gives_the_file_back(name: str, text_file: Path) -> None:
    """Where it is not, the table says so; no test of ours depends on it."""
    if name not in installed():
        assert "not installed" in make_codec(name, {name: "/no/such"}).measure(text_file, 512).note
        return
    got = make_codec(name).measure(text_file, 512)
    assert got.bytes is not None and got.bytes < text_file.stat().st_size


@pytest.mark.parametrize(
    "also", ["raise SystemExit('no  memory')", "sys.exit(print('no memory') or 7)"]
)
def test_a_program_that_fails_is_a_note(text_file: Path, tmp_path: Path, also: str) -> None:
    got = make_codec("bsc", {"bsc": program(tmp_path, also)}).measure(text_file, 512)
    assert got.bytes is None
    assert "failed: code" in got.note and "no memory" in got.note


def test_a_program_that_loses_a_byte_is_refused(text_file: Path, tmp_path: Path) -> None:
    also = "data = data[1:] if what == 'e' else data"
    with pytest.raises(MdlzipError, match="bsc did not give the file back"):
        make_codec("bsc", {"bsc": program(tmp_path, also)}).measure(text_file, 512)


@pytest.mark.parametrize("name", ["zpaq-0", "zpaq-6", "bsc-1", "rar", "paq8px-13", "zpaq-"])
def test_levels_that_a_program_does_not_have(name: str) -> None:
    with pytest.raises(UsageError, match="choose from"):
        make_codec(name)


@pytest.mark.parametrize("text", ["zpaq", "rar=/bin/true", "zpaq=/no/such", "zpaq="])
def test_a_tool_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="--tool"):
        read_programs([text])


def test_a_program_ends_with_mdlzip_and_leaves_nothing(text_file: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    also = f"import os; Path({str(begun)!r}).write_text(str(os.getpid())); time.sleep(600)"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "mdlzip", "bench", "--no-model", "--against", "bsc", "--tool"]
    process = subprocess.Popen(
        [*command, f"bsc={program(tmp_path, also)}", str(text_file)],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not (begun.exists() and begun.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    child = int(begun.read_text())
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
    assert not list(temporary.iterdir())
