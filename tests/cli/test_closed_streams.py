"""Started by cron, a daemon or a desktop, which may close standard input, output and error."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import cli_environment

NOISE = random.Random(2).randbytes(3000)
CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}
SCRIPT = "import sys\nfrom mdlzip.cli.app import main\nsys.exit(main())\n"


@pytest.fixture(params=["module", "script"])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """`python -m mdlzip`, and a file like the one that pip installs."""
    if request.param == "module":
        return [sys.executable, "-m", "mdlzip"]
    (tmp_path / "launcher.py").write_text(SCRIPT)
    return [sys.executable, "launcher.py"]


def run(
    folder: Path, closed: str, launcher: list[str], *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {CLOSED[closed]}', *launcher, *arguments],
        cwd=folder,
        env=cli_environment(),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
        check=False,
    )
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr, done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "noise").write_bytes(NOISE)
    assert run(tmp_path, "stdin", [sys.executable, "-m", "mdlzip"], "noise").returncode == 0
    return tmp_path


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("verb", [["compress", "-qf", "noise"], ["-dqf", "noise.mdlz"]])
def test_files_are_whole(verb: list[str], closed: str, launcher: list[str], folder: Path) -> None:
    assert run(folder, closed, launcher, *verb).returncode == 0
    assert (folder / "noise").read_bytes() == NOISE
    assert run(folder, "stdin", launcher, "-dc", "noise.mdlz").stdout == NOISE


@pytest.mark.parametrize(
    "arguments",
    [
        "--help", "--version", "test --help", "test noise.mdlz", "list noise.mdlz",
        "list --json noise.mdlz", "-dc noise.mdlz", "compress -c noise", "bench noise -o -",
        "bench --no-model --against gzip-6 noise", "doctor --help", "study --help",
    ],
)  # fmt: skip
def test_a_result_for_a_closed_stdout_is_an_error(arguments: str, folder: Path) -> None:
    done = run(folder, "stdout", [sys.executable, "-m", "mdlzip"], *arguments.split())
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1 and len(lines) == 1 and "closed" in lines[0], lines
    done = run(folder, "all", [sys.executable, "-m", "mdlzip"], *arguments.split())
    assert done.returncode == 1


@pytest.mark.parametrize("arguments", ["compress -f noise", "decompress -f noise.mdlz"])
def test_a_finished_file_is_said_to_be_complete(arguments: str, folder: Path) -> None:
    done = run(folder, "stdout", [sys.executable, "-m", "mdlzip"], *arguments.split())
    assert done.returncode == 1 and b": complete, but not reported" in done.stderr
    assert (folder / "noise").read_bytes() == NOISE
    assert run(folder, "all", [sys.executable, "-m", "mdlzip"], "-tq", "noise.mdlz").returncode == 0


@pytest.mark.parametrize("verb", ["compress", "decompress", "test", "list"])
def test_a_closed_stdin_is_not_an_empty_one(verb: str, folder: Path) -> None:
    for arguments in ([verb, "-"], [verb]):
        done = run(folder, "stdin", [sys.executable, "-m", "mdlzip"], *arguments)
        assert done.returncode == 1 and b"standard input is closed" in done.stderr
        assert done.stdout == b""


@pytest.mark.parametrize("closed", ["stderr", "all"])
@pytest.mark.parametrize(
    ("arguments", "code"), [("test noise", 3), ("nosuch", 2), ("compress --bogus", 2)]
)
def test_the_exit_code_tells_where_stderr_cannot(
    arguments: str, code: int, closed: str, folder: Path
) -> None:
    done = run(folder, closed, [sys.executable, "-m", "mdlzip"], *arguments.split())
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.parametrize("closed", CLOSED)
def test_no_file_becomes_a_standard_stream(closed: str, tmp_path: Path) -> None:
    code = (
        "from mdlzip.cli.streams import settle_streams; settle_streams()\n"
        "import os\n"
        "first = open('data', 'wb')\n"
        "open('numbers', 'w').write(f'{first.fileno() > 2} {os.get_inheritable(1)}')\n"
    )
    run(tmp_path, closed, [sys.executable, "-c", code])
    assert (tmp_path / "numbers").read_text() == "True True"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_is_not_ready_gets_everything(unbuffered: str, folder: Path) -> None:
    """Non-blocking, as from node or ssh, and smaller than the report."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with subprocess.Popen(
        [sys.executable, "-m", "mdlzip", "list", "--json", *["noise.mdlz"] * 200],
        cwd=folder,
        env=cli_environment(PYTHONUNBUFFERED=unbuffered),
        stdout=writer,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(writer)
        with open(reader, "rb") as pipe:
            report = json.loads(pipe.read())
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error, len(report["archives"])) == (0, b"", 200)


def test_a_full_disk_behind_stderr_does_not_change_the_exit_code(folder: Path) -> None:
    for arguments, code in (("test noise", 3), ("test noise.mdlz", 0), ("study", 2)):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "mdlzip", *arguments.split()],
                cwd=folder,
                env=cli_environment(),
                stdout=subprocess.PIPE,
                stderr=full,
                timeout=60,
                check=False,
            )
        assert done.returncode == code
