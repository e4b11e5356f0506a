from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from mdlzip.errors import MdlzipError, OutputExists, UsageError
from mdlzip.fileio import AtomicOutput, Metadata, check_output, open_output, plain_errors
from mdlzip.fileio.naming import hidden_stem
from mdlzip.fileio.owner import new_file_mode

both_ways = pytest.mark.parametrize("anonymous", [True, False])


@both_ways
def test_output_appears_whole_with_its_metadata(tmp_path: Path, anonymous: bool) -> None:
    path = tmp_path / "out"
    with AtomicOutput(path, anonymous=anonymous) as out:
        out.write(b"hello")
        assert not path.exists()
        assert os.fstat(out.file.fileno()).st_mode & 0o777 == 0o600
        out.file.seek(0)
        assert out.file.read() == b"hello"
        out.commit(Metadata(0o100751, 1_234_567_890_123_456_789))
    assert path.read_bytes() == b"hello"
    assert path.stat().st_mode & 0o7777 == 0o751
    assert path.stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert os.listdir(tmp_path) == ["out"]


@both_ways
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_stays_after_an_error(
    tmp_path: Path, anonymous: bool, error: type[BaseException]
) -> None:
    with pytest.raises(error), AtomicOutput(tmp_path / "out", anonymous=anonymous) as out:
        out.write(b"half")
        raise error
    assert os.listdir(tmp_path) == []


@both_ways
def test_nothing_stays_without_commit(tmp_path: Path, anonymous: bool) -> None:
    with AtomicOutput(tmp_path / "out", anonymous=anonymous) as out:
        out.write(b"x")
    assert os.listdir(tmp_path) == []


@both_ways
def test_a_file_made_meanwhile_is_not_overwritten(tmp_path: Path, anonymous: bool) -> None:
    path = tmp_path / "out"
    with pytest.raises(OutputExists), AtomicOutput(path, anonymous=anonymous) as out:
        out.write(b"new")
        path.write_bytes(b"theirs")
        out.commit()
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["out"]


@both_ways
def test_force_replaces_a_file_in_one_step(tmp_path: Path, anonymous: bool) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with AtomicOutput(path, force=True, anonymous=anonymous) as out:
        out.write(b"new")
        assert path.read_bytes() == b"old"
        out.commit()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out"]


def test_restart_forgets_what_was_written(tmp_path: Path) -> None:
    with AtomicOutput(tmp_path / "out") as out:
        out.write(b"a long first try")
        out.restart()
        out.write(b"short")
        out.commit()
    assert (tmp_path / "out").read_bytes() == b"short"


def test_parts_left_by_the_dead_are_removed_those_in_use_are_not(tmp_path: Path) -> None:
    stem, others = hidden_stem(tmp_path / "out"), hidden_stem(tmp_path / "other")
    dead, living = tmp_path / f"{stem}.0123abcd.part", tmp_path / f"{stem}.89abcdef.part"
    other = tmp_path / f"{others}.0123abcd.part"
    for part in (dead, living, other):
        part.write_bytes(b"part")
    with living.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with AtomicOutput(tmp_path / "out"):
            assert not dead.exists()
            assert living.exists()
            assert other.exists()


def test_two_outputs_of_one_name_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with AtomicOutput(path, anonymous=False, force=True) as first:
        first.write(b"first")
        with AtomicOutput(path, anonymous=False, force=True) as second:
            second.write(b"second")
            second.commit()
        first.commit()
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["out"]


def test_permissions_of_a_new_file_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert new_file_mode() == 0o640
        with AtomicOutput(tmp_path / "out") as out:
            out.commit()
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("link", ["same", "symlink", "hard link"])
def test_output_that_is_the_input_is_refused(tmp_path: Path, link: str) -> None:
    source, path = tmp_path / "in", tmp_path / "in"
    source.write_bytes(b"precious")
    if link != "same":
        path = tmp_path / "out"
        (path.symlink_to if link == "symlink" else path.hardlink_to)(source)
    with pytest.raises(UsageError, match="same file"):
        check_output(path, source=source, force=True)
    assert source.read_bytes() == b"precious"


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path, source=None, force=True)
    with pytest.raises(UsageError, match="does not exist"):
        check_output(tmp_path / "no" / "out", source=None, force=True)
    (tmp_path / "there").write_bytes(b"")
    with pytest.raises(OutputExists, match="--force"):
        check_output(tmp_path / "there", source=None, force=False)
    check_output(tmp_path / "there", source=None, force=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists):
        check_output(tmp_path / "dangling", source=None, force=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MdlzipError, match="permission denied"):
            check_output(tmp_path / "out", source=None, force=False)
        with pytest.raises(MdlzipError, match="permission denied"):
            AtomicOutput(tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


def test_system_errors_become_one_line() -> None:
    with pytest.raises(MdlzipError, match=r"^x: cannot write: the disk is full$"):
        with plain_errors("x: cannot write"):
            raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(BrokenPipeError), plain_errors("x"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("seekable", [True, False])
def test_named_pipe_as_output(tmp_path: Path, seekable: bool) -> None:
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    check_output(fifo, source=None, force=False)
    with open_output(fifo, force=False, seekable=seekable) as out:
        out.write(b"through")
        out.commit(Metadata(0o600, 5))
    reader.join(10)
    assert got == [b"through"]
    assert fifo.is_fifo()


def test_spooled_stream_sends_nothing_unless_committed(tmp_path: Path) -> None:
    with open_output(Path("/dev/null"), force=False, seekable=True) as out:
        out.write(b"abc")
        out.restart()
        out.write(b"de")
        out.file.seek(0)
        assert out.file.read() == b"de"
    assert Path("/dev/null").is_char_device()
