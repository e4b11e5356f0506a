"""File systems without links, locks, anonymous files or long names: known before the work."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import mdlzip
from mdlzip.archive.sections import Kind, pack_section
from mdlzip.codec import CompressOptions, export_weights
from mdlzip.errors import MdlzipError, OutputExists
from mdlzip.fileio import AtomicOutput, naming
from tests.archive_tools import compressible, random_network, with_trainer

OPTIONS = CompressOptions(device="cpu", threads=1, preset="nano", steps=2, fallback=False)
REFUSALS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


def no_links(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def link(*args: object, **more: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)


def round_trip(folder: Path, name: str = "a.mdlz") -> None:
    """Compress, decompress and export into `folder`, each with and without an output there."""
    source = folder / "source"
    source.write_bytes(compressible(3000))
    archive, out, weights = folder / name, folder / "out", folder / "weights"
    for force in (False, True):
        mdlzip.compress(source, archive, CompressOptions(force=force))
        mdlzip.compress(source, folder / "l.mdlz", OPTIONS if not force else forced())
        mdlzip.decompress(archive, out, force=force)
        export_weights(folder / "l.mdlz", weights, force=force)
        assert out.read_bytes() == compressible(3000)
    with pytest.raises(OutputExists):
        mdlzip.decompress(archive, out)
    with pytest.raises(OutputExists):
        mdlzip.compress(source, archive)
    assert sorted(os.listdir(folder)) == sorted([name, "l.mdlz", "out", "source", "weights"])


def forced() -> CompressOptions:
    return CompressOptions(
        device="cpu", threads=1, preset="nano", steps=2, fallback=False, force=True
    )


@pytest.mark.parametrize("anonymous", [True, False], ids=["anonymous", "named"])
@pytest.mark.parametrize("code", REFUSALS, ids=os.strerror)
def test_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, anonymous: bool
) -> None:
    no_links(monkeypatch, code)
    if not anonymous:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    for force in (False, True):
        with AtomicOutput(tmp_path / "out", force=force) as out:
            out.write(b"whole")
            out.commit()
        assert (tmp_path / "out").read_bytes() == b"whole"
    with pytest.raises(OutputExists), AtomicOutput(tmp_path / "out") as out:
        out.commit()
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("rename", [True, False])
def test_a_whole_job_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: bool
) -> None:
    no_links(monkeypatch, errno.EPERM)
    if not rename:
        monkeypatch.setattr(naming, "_rename_noreplace", lambda part, path: False)
    round_trip(tmp_path)


@pytest.mark.parametrize("rename", [True, False])
def test_a_file_made_meanwhile_is_not_overwritten_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: bool
) -> None:
    no_links(monkeypatch, errno.EPERM)
    if not rename:
        monkeypatch.setattr(naming, "_rename_noreplace", lambda part, path: False)
    path = tmp_path / "out"
    with pytest.raises(OutputExists), AtomicOutput(path) as out:
        out.write(b"new")
        path.write_bytes(b"theirs")
        out.commit()
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["out"]


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A mounted exFAT image, by the kernel or by FUSE."""
    tools = [shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in (
        "mkfs.exfat", "losetup", "mount.exfat-fuse")]  # fmt: skip
    if os.geteuid() != 0 or None in tools[:2]:
        pytest.skip("an exFAT image needs root, mkfs.exfat and losetup")
    make, losetup, fuse = map(str, tools)
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    quiet = {"capture_output": True, "text": True}
    subprocess.run([make, str(image)], check=True, **quiet)  # type: ignore[call-overload]
    found = subprocess.run([losetup, "-f", "--show", str(image)], **quiet)  # type: ignore[call-overload]
    device = found.stdout.strip()
    mounted = bool(device) and any(
        subprocess.run([*command, device, str(folder)], **quiet).returncode == 0  # type: ignore[call-overload]
        for command in (["mount", "-t", "exfat"], *([[fuse]] if tools[2] else []))
    )
    try:
        if not mounted:
            pytest.skip("this machine cannot mount an exFAT image")
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        if device:
            subprocess.run([losetup, "-d", device], check=False)


def test_a_real_exfat_image(exfat: Path) -> None:
    with pytest.raises(OSError):
        (exfat / "x").write_bytes(b"")
        (exfat / "y").hardlink_to(exfat / "x")
    (exfat / "x").unlink()
    round_trip(exfat)
    with pytest.raises(MdlzipError, match="the file system does not take it"):
        mdlzip.compress(exfat / "source", exfat / 'a"b?.mdlz', OPTIONS)


@pytest.mark.parametrize("name", ["n" * 250, "漢" * 78 + ".txt", "n" * 245, "é" * 123])
def test_names_of_any_legal_length(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(compressible(3000))
    assert len(os.fsencode(f"{name}.mdlz")) <= 255
    for force in (False, True):
        mdlzip.compress(source, options=OPTIONS if not force else forced())
        mdlzip.decompress(tmp_path / f"{name}.mdlz", force=True)
    assert source.read_bytes() == compressible(3000)
    assert sorted(os.listdir(tmp_path)) == sorted([name, f"{name}.mdlz"])


def test_a_name_that_is_too_long_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = with_trainer(monkeypatch)
    source = tmp_path / ("n" * 252)
    source.write_bytes(compressible(3000))
    with pytest.raises(MdlzipError, match="name is too long"):
        mdlzip.compress(source, options=OPTIONS)
    assert record.calls == 0
    assert os.listdir(tmp_path) == [source.name]


def test_a_full_disk_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = with_trainer(monkeypatch)
    (tmp_path / "f").write_bytes(b"".join(b"%d and %d\n" % (i, i * i) for i in range(4000)))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(MdlzipError, match=r"needs at least [\d,]+ bytes, the disk has 1,000 left"):
        mdlzip.compress(tmp_path / "f", options=CompressOptions(device="cpu", threads=1))
    assert record.calls == 0


@pytest.mark.parametrize("name", [".bashrc", "-rf", "a\u202etxt.exe", "\u200bx", " x", "x "])
def test_doubtful_stored_names_are_not_taken_unasked(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "b").write_bytes(compressible(2000))
    options = CompressOptions(chunk_size=64, fallback=False)
    archive = mdlzip.compress(folder / "b", options=options, network=random_network()).path
    assert archive is not None
    data = archive.read_bytes()
    section = pack_section(Kind.NAME, name.encode())
    archive.write_bytes(_with_index_moved(data[:26] + section + data[26:], len(section)))
    assert mdlzip.inspect(archive).name == name
    assert mdlzip.decompress(archive, force=True).path == folder / "b"
    other = archive.rename(folder / "c")
    with pytest.raises(MdlzipError, match="-N for that one"):
        mdlzip.decompress(other)
    assert sorted(os.listdir(folder)) == ["b", "c"]
    out = mdlzip.decompress(other, stored_name=True).path
    assert out == folder / name
    assert out.read_bytes() == compressible(2000)


def _with_index_moved(archive: bytes, by: int) -> bytes:
    """The offset in the footer follows what was put in before it."""
    at = len(archive) - 40
    offset = int.from_bytes(archive[at : at + 8], "little") + by
    return archive[:at] + offset.to_bytes(8, "little") + archive[at + 8 :]
