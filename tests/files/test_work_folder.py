"""The folder for checkpoints: nobody else can prepare it, and nothing of others is removed."""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

import mdlzip
from mdlzip.codec import CompressOptions
from mdlzip.codec.work import WorkFolder, work_folder
from mdlzip.errors import Interrupted, MdlzipError, UsageError
from tests.archive_tools import compressible, with_trainer

OPTIONS = CompressOptions(device="cpu", threads=1, preset="nano", steps=2, fallback=False)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another's folder")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_bytes(compressible(3000))
    return path


def test_what_others_keep_in_the_folder_stays(source: Path, tmp_path: Path) -> None:
    work = tmp_path / ".cache"
    (work / "photos").mkdir(parents=True)
    kept = ("mdlzip.lock", "mdlzip.source", "my_notes.txt", "photos/x.jpg", "step-00000001")
    for name in kept:
        (work / name).write_text("mine")
    mdlzip.compress(source, options=replace(OPTIONS, work_dir=work))
    assert {name for name in kept if (work / name).read_text() == "mine"} == set(kept)
    assert len(os.listdir(work)) == len(kept)


def test_notes_inside_a_work_folder_stay(source: Path, tmp_path: Path) -> None:
    path = work_folder(tmp_path / "text.mdlz", b"", None, resume=False)
    path.mkdir(0o700)
    (path / "notes").write_text("mine")
    mdlzip.compress(source, options=OPTIONS)
    assert os.listdir(path) == ["notes"]


def test_a_folder_made_for_the_work_goes_with_it(source: Path, tmp_path: Path) -> None:
    mdlzip.compress(source, options=replace(OPTIONS, work_dir=tmp_path / "new"))
    assert sorted(os.listdir(tmp_path)) == ["text", "text.mdlz"]


@pytest.mark.parametrize("trap", ["folder", "source", "lock", "metrics", "checkpoint"])
def test_links_in_the_way_are_not_followed(source: Path, tmp_path: Path, trap: str) -> None:
    victim = tmp_path / "victim"
    path = work_folder(tmp_path / "text.mdlz", b"", None, resume=False)
    if trap == "folder":
        victim.mkdir()
        path.symlink_to(victim)
        with pytest.raises(UsageError, match="is not a folder"):
            mdlzip.compress(source, options=OPTIONS)
        assert os.listdir(victim) == []
        return
    victim.write_text("precious")
    path.mkdir(0o700)
    names = {"source": "mdlzip.source", "lock": "mdlzip.lock", "metrics": "metrics.jsonl"}
    (path / names.get(trap, "step-00000001.safetensors")).symlink_to(victim)
    if trap in ("source", "lock"):
        with pytest.raises(MdlzipError, match="work folder"):
            mdlzip.compress(source, options=OPTIONS)
    else:
        mdlzip.compress(source, options=replace(OPTIONS, force=True))
    assert victim.read_text() == "precious"


@ROOT_ONLY
def test_a_folder_of_another_user_is_refused(source: Path, tmp_path: Path) -> None:
    path = work_folder(tmp_path / "text.mdlz", b"", None, resume=False)
    path.mkdir(0o700)
    os.chown(path, 1001, 1001)
    with pytest.raises(UsageError, match="belongs to another user"):
        mdlzip.compress(source, options=OPTIONS)
    os.chown(path, 0, 0)
    path.chmod(0o777)
    with pytest.raises(UsageError, match="others can write"):
        mdlzip.compress(source, options=OPTIONS)
    assert path.stat().st_mode & 0o777 == 0o777


def test_for_a_stream_nobody_can_guess_the_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with_trainer(monkeypatch, raises=Interrupted("stopped"))
    for _ in range(2):  # two at once would not disturb one another either
        with pytest.raises(Interrupted):
            mdlzip.compress(source, "-", replace(OPTIONS, steps=None))
    first, second = os.listdir(temporary)
    assert first != second
    record = with_trainer(monkeypatch)
    mdlzip.compress(source, "/dev/null", replace(OPTIONS, steps=None, resume=True))
    assert record.resumed == 1
    assert len(os.listdir(temporary)) == 1


def test_one_run_at_a_time(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with WorkFolder(work, "id", resume=False):
        with pytest.raises(UsageError, match="another mdlzip"), WorkFolder(work, "id", resume=True):
            pass
    assert not work.exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with WorkFolder(tmp_path / "work", "id", resume=False) as work:
        (work.files / "metrics.jsonl").write_text("{}")
    assert os.listdir(tmp_path) == []


def test_the_folder_is_the_one_that_was_checked(tmp_path: Path) -> None:
    """Renamed away and replaced meanwhile: what is written still goes to the checked one."""
    work = tmp_path / "work"
    with WorkFolder(work, "id", resume=False) as folder:
        work.rename(tmp_path / "moved")
        work.mkdir()
        (folder.files / "metrics.jsonl").write_text("{}")
        assert (tmp_path / "moved" / "metrics.jsonl").exists()
        assert os.listdir(work) == []
    assert work.is_dir()
