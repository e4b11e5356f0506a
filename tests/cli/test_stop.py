"""One signal ends decoding and coding within two seconds, however long a tile would still take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import mdlzip
from mdlzip.config import load_preset
from mdlzip.symbols.layout import Layout
from tests.conftest import cli_environment
from tests.random_archives import write_random

LARGE = load_preset("large").model
TICKS = os.sysconf("SC_CLK_TCK")
# A tile takes a minute of CPU here; stopping takes what Python needs to clear up after torch.
SECONDS_OF_CPU = 2.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """512 chunks of 192 bytes under the preset "large": one tile a thread."""
    path = tmp_path_factory.mktemp("stop") / "large.mdlz"
    return write_random(path, LARGE, Layout(192 * 512, 192, 128))


def cpu_seconds(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def busiest_worker(pid: int) -> float:
    """CPU seconds of the busiest thread that is not the main one."""
    tasks = [t for t in Path(f"/proc/{pid}/task").iterdir() if t.name != str(pid)]
    busiest = 0.0
    for task in tasks:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            busiest = max(busiest, cpu_seconds(task / "stat"))
    return busiest


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=cli_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stopped(
    process: subprocess.Popen[bytes], signum: int, ready: Callable[[], bool]
) -> tuple[int, float]:
    """Exit code and CPU seconds spent after the signal, which is sent when `ready`."""
    while not ready():
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
    before = cpu_seconds(Path(f"/proc/{process.pid}/stat"))
    process.send_signal(signum)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime - before


def at_work(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    """Whether a thread of the process is in the middle of its tile."""

    def ready() -> bool:
        process.poll()
        return process.returncode is not None or busiest_worker(process.pid) > 1.0

    return ready


@pytest.mark.parametrize(
    ("signum", "command", "threads"),
    [
        (signal.SIGINT, "test", 1),
        (signal.SIGTERM, "decompress", 2),
        (signal.SIGHUP, "decompress", 1),
    ],
)
def test_decoding(
    archive: Path, tmp_path: Path, command: str, threads: int, signum: signal.Signals
) -> None:
    more = ("-o", tmp_path / "out") if command == "decompress" else ()
    arguments = ("--device", "cpu", "-T", threads, archive, *more)
    with running("-m", "mdlzip", command, *arguments) as process:
        code, seconds = stopped(process, signum, at_work(process))
    assert code == 128 + signum
    assert seconds < SECONDS_OF_CPU
    assert not list(tmp_path.iterdir())


def test_random_access(archive: Path) -> None:
    script = "import mdlzip, sys; mdlzip.open(sys.argv[1], threads=2).read(0, 1)"
    with running("-c", script, archive) as process:
        code, seconds = stopped(process, signal.SIGINT, at_work(process))
    assert code == -signal.SIGINT and seconds < SECONDS_OF_CPU


def _now() -> bool:
    return True


@pytest.mark.parametrize("phase", ["encode", "verify"])
def test_coding_and_verifying(archive: Path, tmp_path: Path, phase: str) -> None:
    weights, source = tmp_path / "weights", tmp_path / "source"
    mdlzip.codec.export_weights(archive, weights)
    # To see that verifying has begun there must be a first tile that ends soon.
    size = 192 * 512 if phase == "encode" else 16 * 512 * 2
    source.write_bytes(bytes(range(256)) * (size // 256))
    script = (
        "import sys, mdlzip\n"
        "from mdlzip.archive.exchange import import_safetensors\n"
        "from mdlzip.cli.signals import StopSwitch\n"
        "from pathlib import Path\n"
        "network = import_safetensors(Path('weights'))[0]\n"
        f"chunk = {192 if phase == 'encode' else 16}\n"
        "options = mdlzip.CompressOptions(chunk_size=chunk, group_chunks=512, fallback=False,\n"
        "    threads=1, device='cpu')\n"
        "say = lambda phase, *_: print(phase, flush=True)\n"
        "with StopSwitch().installed():\n"
        "    mdlzip.compress('source', 'out', options, network=network, on_progress=say)\n"
    )
    names = sorted(p.name for p in tmp_path.iterdir())
    with running("-c", f"import os; os.chdir({str(tmp_path)!r})\n" + script) as process:
        ready = at_work(process)
        if phase == "verify":
            assert process.stdout
            while process.stdout.readline().strip() != b"verify":
                assert process.poll() is None, process.stderr and process.stderr.read().decode()
        code, seconds = stopped(
            process, signal.SIGTERM, ready if phase == "encode" else lambda: True
        )
    assert code == 1  # the exception that the command line turns into 143
    assert seconds < SECONDS_OF_CPU
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_a_baseline_that_takes_long(tmp_path: Path) -> None:
    """One call of the library trains a dictionary or decodes the whole file."""
    source = tmp_path / "source"
    source.write_bytes(b"".join(i.to_bytes(4, "big") for i in range(4_000_000)))
    arguments = ("--no-model", "--against", "ppmd", "-q", source)
    with running("-m", "mdlzip", "bench", *arguments) as process:
        code, seconds = stopped(process, signal.SIGTERM, at_work(process))
    assert code == 128 + signal.SIGTERM and seconds < SECONDS_OF_CPU
    assert list(tmp_path.iterdir()) == [source]
