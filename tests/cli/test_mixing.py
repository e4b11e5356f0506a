"""Reports and messages never get into the data, however standard output is called."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_terminal import run_on_terminal
from tests.conftest import RunCli, cli_environment

NOISE = random.Random(6).randbytes(1000)


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which M is the program."""
    return subprocess.run(
        ["bash", "-c", line.replace("M ", f"{sys.executable} -m mdlzip ")],
        cwd=folder,
        env=cli_environment(),
        capture_output=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def folder(cli: RunCli, tmp_path: Path) -> Path:
    (tmp_path / "noise").write_bytes(NOISE)
    assert cli("compress", "-q", "noise").returncode == 0
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "M compress -c noise > out",
        "M compress - < noise > out",
        "M compress /dev/stdin < noise > out",
        "M compress /dev/fd/0 < noise | cat > out",
        "M compress <(cat noise) > out",
        "M compress -o /dev/stdout noise > out",
        "M compress -o /dev/stdout noise | cat > out",
        "M compress -o /proc/self/fd/1 noise > out",
        "M compress -o /dev/fd/3 noise 3> out > other",
        "M compress -o /dev/fd/3 noise > out 3>&1",
        "M compress -c -q noise > out 2>&1",
        "M -9 < noise > out",
        "M compress -v < noise > out",
        "mkfifo f; cat f > out & M compress -o f noise > f; wait",
    ],
)
def test_the_archive_is_nothing_but_the_archive(line: str, folder: Path) -> None:
    done = shell(folder, line)
    assert done.returncode == 0, done.stderr
    back = shell(folder, "M -dc out")
    assert (back.returncode, back.stdout, back.stderr) == (0, NOISE, b"")


@pytest.mark.parametrize(
    "line",
    [
        "M -d < noise.mdlz",
        "M -d /dev/stdin < noise.mdlz",
        "M -d <(cat noise.mdlz)",
        "M -d -o /dev/stdout noise.mdlz",
        "M -dc noise.mdlz",
        "M -d -f noise.mdlz - < noise.mdlz",
    ],
)
def test_the_original_is_nothing_but_the_original(line: str, folder: Path) -> None:
    done = shell(folder, line)
    assert (done.returncode, done.stdout) == (0, NOISE), done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "M compress -c noise > out 2>&1",
        "M compress noise -o /dev/stderr 2> out",
        "M compress - < noise 2>&1 | cat > out",
        "M -dc noise.mdlz > out 2>&1",
        "M -d noise.mdlz -o /dev/fd/2 2> out",
    ],
)
def test_data_and_messages_in_one_file_are_refused(line: str, folder: Path) -> None:
    done = shell(folder, f"set -o pipefail; {line}")
    assert done.returncode == 2
    text = (folder / "out").read_bytes()
    assert text.startswith(b"mdlzip: ") and text.count(b"\n") == 1 and b"2> FILE" in text


def test_dev_null_takes_both(folder: Path) -> None:
    assert shell(folder, "M compress -c noise > /dev/null 2>&1").returncode == 0


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_a_terminal_is_one_by_any_name(name: str, folder: Path) -> None:
    code, error = run_on_terminal(folder, "compress", "noise", "-o", name, stream="stdout")
    assert code == 2 and b"is a terminal" in error
    code, error = run_on_terminal(folder, "-t", "/dev/stdin", stream="stdin")
    assert code == 2 and b"is a terminal" in error


def test_a_bench_as_json_may_be_read_at_a_terminal(folder: Path) -> None:
    words = ("bench", "noise", "--no-model", "--against", "gzip-6", "-o", "-")
    code, error = run_on_terminal(folder, *words, stream="stdout")
    assert code == 0, error
    assert sorted(os.listdir(folder)) == ["noise", "noise.mdlz"]
