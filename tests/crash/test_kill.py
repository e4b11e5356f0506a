"""kill -9 at random times: never a partial file under the final name, and resume finishes."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mdlzip
from mdlzip.codec.work import work_folder
from tests.archive_tools import Record, compressible
from tests.conftest import cli_environment

pytestmark = pytest.mark.crash
KILLS = int(os.environ.get("MDLZIP_KILLS", "10"))  # `tests.figures` wants more
SETUP = "import sys, mdlzip, mdlzip.codec.encode, mdlzip.codec.decode, zstandard, lzma\n"
NO_ANONYMOUS = "import os; del os.O_TMPFILE\n"
COMPRESS = (
    "from mdlzip.codec import CompressOptions as O\nmdlzip.compress(*sys.argv[1:], O(force=F))"
)
DECOMPRESS = "mdlzip.decompress(*sys.argv[1:], force=F)"


def start(code: str, *args: Path) -> subprocess.Popen[bytes]:
    """A process that has imported everything and says so before it goes to work."""
    script = SETUP + "print('ready', flush=True)\n" + code
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli_environment(),
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    return process


def kill_at_random_times(
    code: str, source: Path, target: Path, good: bytes, old: bytes | None
) -> None:
    """Run the code again and again, killing it ever elsewhere; look at the target each time."""
    process = start(code, source, target)
    began = time.monotonic()
    process.communicate(timeout=60)
    seconds = time.monotonic() - began
    assert process.returncode == 0
    assert target.read_bytes() == good
    rng = random.Random(4)
    for _ in range(KILLS):
        target.unlink()
        if old is not None:
            target.write_bytes(old)
        process = start(code, source, target)
        time.sleep(rng.uniform(0, 1.2 * seconds))
        process.kill()
        process.communicate(timeout=60)
        allowed = {good, old} if old is not None else {good}
        if target.exists():
            assert target.read_bytes() in allowed
        elif old is not None:
            pytest.fail("the old file is gone and no new one is there")
        else:
            target.write_bytes(b"")  # so that unlink above finds it


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """Large enough that compressing takes a while, half of it noise."""
    path = tmp_path / "big"
    path.write_bytes(np.random.default_rng(2).bytes(200_000) + compressible(150_000))
    return path


@pytest.mark.parametrize("way", ["anonymous", "hidden part"])
def test_compress(tmp_path: Path, big: Path, way: str, record_property: Record) -> None:
    record_property("kills", KILLS)
    # The data look random to the codec, so it does not begin to train.
    folder = tmp_path / "out"
    folder.mkdir()
    big.write_bytes(np.random.default_rng(2).bytes(400_000))
    code = (NO_ANONYMOUS if way == "hidden part" else "") + "F = False\n" + COMPRESS
    good = mdlzip.compress(big, tmp_path / "good").path.read_bytes()
    kill_at_random_times(code, big, folder / "a.mdlz", good, None)
    if way == "anonymous":
        assert leftovers(folder) == []
    (folder / "a.mdlz").unlink()
    mdlzip.compress(big, folder / "a.mdlz")
    assert os.listdir(folder) == ["a.mdlz"]  # the next run cleared what was left


@pytest.mark.parametrize("way", ["anonymous", "hidden part"])
@pytest.mark.parametrize("force", [False, True])
def test_decompress(
    tmp_path: Path, big: Path, way: str, force: bool, record_property: Record
) -> None:
    record_property("kills", KILLS)
    from tests.archive_tools import general_archive

    folder = tmp_path / "out"
    folder.mkdir()
    data = big.read_bytes() * 20
    archive = tmp_path / "a.mdlz"
    archive.write_bytes(general_archive("xz", data))
    code = (NO_ANONYMOUS if way == "hidden part" else "") + f"F = {force}\n" + DECOMPRESS
    code = code.replace("force=F", "force=True") if force else code
    if force:
        (folder / "b").write_bytes(b"old")
    kill_at_random_times(code, archive, folder / "b", data, b"old" if force else None)
    (folder / "b").unlink(missing_ok=True)
    mdlzip.decompress(archive, folder / "b")
    assert os.listdir(folder) == ["b"]


@pytest.mark.skipif(
    importlib.util.find_spec("mdlzip.training.run") is None, reason="there is no trainer"
)
def test_killed_training_is_finished_by_resume(tmp_path: Path) -> None:
    source, target = tmp_path / "text", tmp_path / "text.mdlz"
    source.write_bytes(compressible(40_000))
    command = [sys.executable, "-m", "mdlzip", "compress", str(source), "--no-fallback"]
    command += ["--preset", "nano", "--steps", "120", "--device", "cpu", "-T", "1"]
    rng = random.Random(8)
    folder = work_folder(target, b"", None, resume=True)
    for i in range(2):
        process = subprocess.Popen(
            command + ["--resume"] * (i > 0), env=cli_environment(), stderr=subprocess.DEVNULL
        )
        while not list(folder.glob("step-*")) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert not target.exists()
    done = subprocess.run([*command, "--resume"], env=cli_environment(), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"going on at step" in done.stderr
    assert not leftovers(tmp_path)
    back = mdlzip.decompress(target, tmp_path / "back", device="cpu").path
    assert back is not None
    assert back.read_bytes() == source.read_bytes()
