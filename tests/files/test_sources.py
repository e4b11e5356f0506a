"""Sources as they come: slow pipes, files without a size, files that others write meanwhile."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import mdlzip
from mdlzip.codec import CompressOptions
from mdlzip.corpus import open_corpus
from mdlzip.errors import MdlzipError, SourceChanged
from mdlzip.fileio import AtomicOutput, read_blocks
from tests.archive_tools import GENERAL_METHODS, compressible, make_archive, sample
from tests.conftest import cli_environment


class Parts:
    """The read end of a non-blocking pipe into which `parts` come one by one, as it runs dry."""

    def __init__(self, parts: list[bytes]) -> None:
        reading, self._writing = os.pipe()
        os.set_blocking(reading, False)
        self.file = os.fdopen(reading, "rb")
        self._parts = iter(parts)
        self._timer = threading.Thread(target=self._feed)
        self._timer.start()

    def _feed(self) -> None:
        for part in self._parts:
            while part:
                part = part[os.write(self._writing, part) :]
            # the reader has emptied the pipe before more comes: it must wait, not stop
            while int.from_bytes(fcntl.ioctl(self.file, 0x541B, b"\0" * 4), "little"):
                pass
        os.close(self._writing)

    def close(self) -> None:
        self._timer.join()
        self.file.close()


def test_a_pipe_that_is_not_ready_is_not_at_its_end() -> None:
    parts = [b"", b"a" * 10_000, b"b", b"c" * 200_000]
    pipe = Parts(parts)
    assert b"".join(read_blocks(pipe.file)) == b"".join(parts)
    pipe.close()


@pytest.mark.parametrize("command", ["compress", "decompress", "list", "test"])
def test_standard_input_may_be_non_blocking(tmp_path: Path, command: str) -> None:
    data = make_archive(tmp_path, "xz") if command != "compress" else compressible(30_000)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "mdlzip", command, "-", *(["-q"] if command != "list" else [])],
        stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli_environment(),
    )  # fmt: skip
    os.close(reading)
    assert process.stdout is not None
    half = len(data) // 2
    os.write(writing, data[:half])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)  # it waits for the rest
    os.write(writing, data[half:])
    os.close(writing)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    if command == "compress":
        (tmp_path / "a.mdlz").write_bytes(out)
        with mdlzip.open(tmp_path / "a.mdlz") as archive:
            assert archive.read(0, 1 << 20) == data
    elif command == "decompress":
        assert out == sample("xz")


def test_standard_output_may_be_non_blocking(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(compressible(400_000))
    archive = mdlzip.compress(
        tmp_path / "in", options=CompressOptions(verify=False, budget_s=1)
    ).path
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "mdlzip", "-dc", str(archive)],
        stdout=writing, stderr=subprocess.PIPE, env=cli_environment(),
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == compressible(400_000)
    assert process.wait(30) == 0


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="no /proc here")
@pytest.mark.parametrize(
    "name", ["/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
def test_files_without_a_true_size_are_read_to_their_end(tmp_path: Path, name: str) -> None:
    if not os.path.exists(name):
        pytest.skip(f"no {name} here")
    expected = Path(name).read_bytes()
    with open_corpus(name) as corpus:
        data = b"".join(corpus.blocks())
        assert corpus.check_unchanged() is None
    assert data[:6] == expected[:6]
    assert abs(len(data) - len(expected)) < 64  # counters move
    mdlzip.compress(name, tmp_path / "a.mdlz")
    out = mdlzip.decompress(tmp_path / "a.mdlz", tmp_path / "out").path
    assert out is not None
    assert out.stat().st_size > 0


def test_a_grown_source_is_stored_as_it_was_and_kept(tmp_path: Path) -> None:
    source = tmp_path / "g.log"
    source.write_bytes(compressible(3000))
    told: list[str] = []

    def grow(phase: str, done: float, total: float, note: str) -> None:
        if phase == "compare" and source.stat().st_size == 3000:
            with source.open("ab") as file:
                file.write(b"one more line\n")
        if phase == "warning":
            told.append(note)

    with pytest.raises(MdlzipError, match="has grown meanwhile, so it is not removed"):
        mdlzip.compress(source, options=CompressOptions(remove_source=True), on_progress=grow)
    assert len(told) == 1 and "holds the first 3,000 bytes" in told[0]
    with mdlzip.open(tmp_path / "g.log.mdlz") as archive:
        assert archive.read(0, 9999) == compressible(3000)
    assert source.stat().st_size == 3014


def _late(monkeypatch: pytest.MonkeyPatch, change: object) -> None:
    """Do something in the last moment before the finished output gets its name."""
    link = AtomicOutput._link

    def late(self: AtomicOutput, fd: int) -> None:
        change()  # type: ignore[operator]
        link(self, fd)

    monkeypatch.setattr(AtomicOutput, "_link", late)


@pytest.mark.parametrize("how", ["append", "in place, time put back", "replaced"])
def test_a_source_that_changed_last_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    source = tmp_path / "f"
    source.write_bytes(compressible(2000))

    def change() -> None:
        before = source.stat()
        if how == "append":
            with source.open("ab") as file:
                file.write(b"the line that gets lost\n")
        elif how == "replaced":
            (tmp_path / "new").write_bytes(b"new")
            (tmp_path / "new").replace(source)
        else:
            with source.open("r+b") as file:
                file.write(b"X")
            os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))

    _late(monkeypatch, change)
    with pytest.raises(MdlzipError, match="meanwhile, so it is not removed"):
        mdlzip.compress(source, options=CompressOptions(remove_source=True, verify=False))
    assert source.exists()
    with mdlzip.open(tmp_path / "f.mdlz") as archive:
        assert archive.read(0, 9999) == compressible(2000)


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_an_archive_that_changed_last_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    archive = tmp_path / "a.mdlz"
    archive.write_bytes(make_archive(tmp_path, method))

    def change() -> None:
        before = archive.stat()
        archive.write_bytes(archive.read_bytes()[:-1] + b"?")
        os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))

    _late(monkeypatch, change)
    with pytest.raises(MdlzipError, match="changed meanwhile, so it is not removed"):
        mdlzip.decompress(archive, tmp_path / "out", remove_source=True)
    assert archive.exists()


def test_a_change_is_told_before_what_it_causes(tmp_path: Path) -> None:
    """Filled anew: that the network's alphabet lacks the new bytes is not what went wrong."""
    source = tmp_path / "f"
    source.write_bytes(compressible(4000))

    def change(phase: str, done: float, total: float, note: str) -> None:
        if phase == "train" and done == total:
            source.write_bytes(bytes(range(256)) * 16)

    options = CompressOptions(device="cpu", threads=1, preset="nano", steps=3, fallback=False)
    with pytest.raises(SourceChanged, match="changed while it was being compressed"):
        mdlzip.compress(source, options=options, on_progress=change)
    assert os.listdir(tmp_path) == ["f"]


def test_only_metadata_changed_is_no_change(tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(compressible(2000))

    def touch(phase: str, done: float, total: float, note: str) -> None:
        os.utime(source)
        source.chmod(0o600)

    mdlzip.compress(source, options=CompressOptions(), on_progress=touch)
    assert (tmp_path / "f.mdlz").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove anything")
def test_removal_is_refused_before_the_work(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    (folder / "f").write_bytes(compressible(2000))
    folder.chmod(0o500)
    try:
        with pytest.raises(MdlzipError, match="--rm"):
            mdlzip.compress(folder / "f", tmp_path / "x", CompressOptions(remove_source=True))
    finally:
        folder.chmod(0o700)
    assert not (tmp_path / "x").exists()


def test_zeros_become_holes(tmp_path: Path) -> None:
    size = 40 << 20
    with (tmp_path / "disk").open("wb") as file:
        file.write(b"boot")
        file.truncate(size)
    archive = mdlzip.compress(tmp_path / "disk", options=CompressOptions(verify=False)).path
    out = mdlzip.decompress(archive, tmp_path / "out").path
    assert out is not None
    assert out.stat().st_size == size
    assert out.stat().st_blocks * 512 < size // 10
    assert out.read_bytes() == (tmp_path / "disk").read_bytes()
