"""Terminals: no binary data into one, no archive from one, colours only where wanted."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import cli_environment


def run_on_terminal(folder: Path, *arguments: str, stream: str, **env: str) -> tuple[int, bytes]:
    """Run with one stream on a terminal; returns the exit code and what stderr got."""
    master, slave = pty.openpty()
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.Popen(
        [sys.executable, "-m", "mdlzip", *arguments],
        cwd=folder,
        env=cli_environment(**{"TERM": "xterm", **env}),
        **{**streams, stream: slave},  # type: ignore[call-overload]
    )
    os.close(slave)
    _, error = done.communicate(timeout=60)
    text = error or b""
    if stream == "stderr":
        text = _read_all(master)
    os.close(master)
    return done.returncode, text


def _read_all(fd: int) -> bytes:
    parts = []
    try:
        while part := os.read(fd, 4096):
            parts.append(part)
    except OSError:  # how Linux says that the other end is closed
        pass
    return b"".join(parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "f").write_bytes(os.urandom(100))
    code, error = run_on_terminal(tmp_path, "compress", "-q", "f", stream="stdin")
    assert code == 0, error
    return tmp_path


@pytest.mark.parametrize("arguments", [("compress", "-c", "f"), ("-dc", "f.mdlz")])
def test_no_binary_output_to_a_terminal(arguments: tuple[str, ...], folder: Path) -> None:
    code, error = run_on_terminal(folder, *arguments, stream="stdout")
    assert code == 2 and b"is a terminal" in error
    code, error = run_on_terminal(folder, *arguments, "-f", "-q", stream="stdout")
    assert code == 0, error


@pytest.mark.parametrize("verb", ["-d", "-t", "-l"])
def test_no_archive_from_a_terminal(verb: str, folder: Path) -> None:
    code, error = run_on_terminal(folder, verb, "-", stream="stdin")
    assert code == 2 and b"is a terminal" in error


def test_colour_of_errors(folder: Path) -> None:
    _, coloured = run_on_terminal(folder, "-t", "nosuch", stream="stderr")
    assert coloured.startswith(b"\x1b[1;31mmdlzip:")
    for setting in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        _, plain = run_on_terminal(folder, "-t", "nosuch", stream="stderr", **setting)
        assert plain.startswith(b"mdlzip:") and b"\x1b" not in plain
