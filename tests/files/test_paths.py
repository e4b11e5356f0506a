"""Every path that a call writes is an output; what stands for an open file is a stream."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import mdlzip
from mdlzip.codec import CompressOptions, export_weights
from mdlzip.errors import MdlzipError, OutputExists, UsageError
from mdlzip.fileio import check_apart, is_stream, open_descriptor
from tests.archive_tools import compressible, make_archive, with_trainer
from tests.conftest import ROOT, cli_environment

OPTIONS = CompressOptions(device="cpu", threads=1, preset="nano", steps=2, fallback=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_bytes(compressible(3000))
    return path


@pytest.mark.parametrize("way", ["itself", "symbolic link", "hard link", "another spelling"])
def test_metrics_never_replace_the_source(
    source: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, before = with_trainer(monkeypatch), source.read_bytes()
    path = {
        "itself": source,
        "symbolic link": tmp_path / "s",
        "hard link": tmp_path / "h",
        "another spelling": tmp_path / "." / ".." / tmp_path.name / "text",
    }[way]
    if "link" in way:
        (path.symlink_to if way.startswith("sym") else path.hardlink_to)(source)
    for force in (False, True):
        with pytest.raises(UsageError, match="same file"):
            mdlzip.compress(source, options=replace(OPTIONS, metrics=path, force=force))
    assert record.calls == 0
    assert source.read_bytes() == before


def test_metrics_are_checked_like_any_output_before_the_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = with_trainer(monkeypatch)
    (tmp_path / "notes").write_text("precious")
    with pytest.raises(OutputExists):
        mdlzip.compress(source, options=replace(OPTIONS, metrics=tmp_path / "notes"))
    with pytest.raises(UsageError, match="two outputs"):
        mdlzip.compress(source, options=replace(OPTIONS, metrics=tmp_path / "text.mdlz"))
    with pytest.raises(UsageError, match="does not exist"):
        mdlzip.compress(source, options=replace(OPTIONS, metrics=tmp_path / "no" / "m"))
    with pytest.raises(UsageError, match="is a folder"):
        mdlzip.compress(source, options=replace(OPTIONS, metrics=tmp_path))
    with pytest.raises(UsageError, match="standard output"):
        mdlzip.compress(source, "-", replace(OPTIONS, metrics="-"))
    assert record.calls == 0
    assert (tmp_path / "notes").read_text() == "precious"


def test_settings_files_are_inputs(source: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("[train]\nalpha = 1.0\n")
    options = replace(OPTIONS, config_file=settings, force=True)
    with pytest.raises(UsageError, match="would overwrite the input"):
        mdlzip.compress(source, settings, options)
    with pytest.raises(UsageError, match="would overwrite the input"):
        mdlzip.compress(source, options=replace(options, metrics=settings))
    assert settings.read_text() == "[train]\nalpha = 1.0\n"


def test_metrics_of_several_calls_in_one_file(source: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "m.jsonl"
    mdlzip.compress(source, tmp_path / "a", replace(OPTIONS, metrics=metrics))
    first = metrics.read_text()
    mdlzip.compress(source, tmp_path / "b", replace(OPTIONS, metrics=metrics, append_metrics=True))
    assert metrics.read_text().startswith(first)
    assert metrics.read_text().count('"finish"') == 2
    mdlzip.compress(source, tmp_path / "c", replace(OPTIONS, metrics=metrics, force=True))
    assert metrics.read_text().count('"finish"') == 1


def test_metrics_that_cannot_be_written_do_not_end_the_work(source: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def note(phase: str, done: float, total: float, text: str) -> None:
        if phase == "warning":
            told.append(text)

    options = replace(OPTIONS, metrics=Path("/dev/full"))
    report = mdlzip.compress(source, options=options, on_progress=note)
    assert (
        told
        == list(report.warnings)
        == ["/dev/full: metrics are not written any more: the disk is full"]
    )
    assert mdlzip.open(tmp_path / "text.mdlz").read(0, 9999) == source.read_bytes()


def test_weights_are_not_written_over_the_archive(tmp_path: Path) -> None:
    archive = tmp_path / "a.mdlz"
    archive.write_bytes(make_archive(tmp_path, "learned"))
    before = archive.read_bytes()
    with pytest.raises(UsageError, match="same file"):
        export_weights(archive, archive, force=True)
    assert archive.read_bytes() == before


def test_two_outputs_may_not_be_one_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    with pytest.raises(UsageError, match="two outputs"):
        check_apart([tmp_path / "real" / "x", tmp_path / "alias" / "x"], [])
    check_apart([Path("/dev/null"), Path("/dev/null")], [Path("/dev/null")])
    check_apart([tmp_path / "a", tmp_path / "b"], [tmp_path / "c"])


def test_names_of_open_files_are_streams(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    (tmp_path / "3").write_bytes(b"x")
    with (tmp_path / "file").open() as file:
        for name in (f"/proc/self/fd/{file.fileno()}", f"/dev/fd/{file.fileno()}", "/dev/stdout"):
            if os.path.lexists(name):
                assert open_descriptor(Path(name)) is not None, name
                assert is_stream(Path(name)), name
    assert open_descriptor(tmp_path / "link") is not None
    for path in (tmp_path / "file", tmp_path / "3", Path("/dev/null"), tmp_path / "none"):
        assert open_descriptor(path) is None


SHELL = """
set -e
M="$PY -m mdlzip"
$M compress text -qf --no-verify -o /dev/stdout > by-file; $M test -q by-file
$M compress text -qf --no-verify -o /dev/stdout | cat > by-pipe; cmp by-file by-pipe
$M compress /dev/stdin -q --no-verify < text > in; $M decompress -c in | cmp - text
$M compress <(cat text) -q --no-verify > sub; $M decompress -c sub | cmp - text
$M decompress -qf by-file -o /dev/fd/3 3> three; cmp three text
$M decompress -q /dev/stdin < by-file > again; cmp again text
$M list /dev/stdin < by-file > listed
test -L /dev/stdout
ls -A
"""


@pytest.mark.skipif(not os.path.islink("/dev/stdout"), reason="no /dev/stdout here")
def test_standard_streams_by_name(source: Path, tmp_path: Path) -> None:
    before = os.lstat("/dev/stdout")
    done = subprocess.run(
        ["bash", "-c", SHELL], cwd=tmp_path, capture_output=True, text=True,
        env=cli_environment(PY=sys.executable),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = {"by-file", "by-pipe", "in", "sub", "three", "again", "listed", "text"}
    assert set(done.stdout.split()) == made
    assert os.lstat("/dev/stdout").st_ino == before.st_ino


def test_a_link_is_replaced_only_if_it_leads_to_a_file(source: Path, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"stays")
    link.symlink_to(real)
    mdlzip.compress(source, link, CompressOptions(force=True))
    assert not link.is_symlink()
    assert real.read_bytes() == b"stays"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(MdlzipError, match="not a regular file"):
        mdlzip.compress(source, dangling, CompressOptions(force=True))
    assert dangling.is_symlink()


def test_everything_is_checked_before_the_source_is_read(tmp_path: Path) -> None:
    """A source that blocks when it is read: a wrong option must be told first."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for bad in (
        {"preset": "nosuch"}, {"config_file": "nofile.toml"}, {"overrides": ("bla=1",)},
        {"device": "nosuch"}, {"metrics": "nodir/x"}, {"seed": 1 << 64}, {"seed": -1},
        {"steps": 0}, {"steps": -1}, {"budget_s": "5s"}, {"budget_s": float("nan")},
        {"level": 3, "budget_s": 5.0}, {"threads": 0}, {"memory": 0}, {"work_dir": 7},
        {"overrides": "train.alpha=1"}, {"force": "yes"}, {"chunk_size": 512.0},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            mdlzip.compress(fifo, tmp_path / "x", CompressOptions(**bad))  # type: ignore[arg-type]
    for more in ({"threads": 0}, {"threads": -3}, {"device": "nosuch"}, {"memory": 0}):
        with pytest.raises(UsageError):
            mdlzip.decompress(fifo, tmp_path / "x", **more)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            mdlzip.test(fifo, **more)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["fifo"]


def test_paths_may_be_text(source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    options = replace(OPTIONS, work_dir=str(work), metrics=str(tmp_path / "m"))  # type: ignore[arg-type]
    mdlzip.compress(str(source), str(tmp_path / "out"), options)
    assert (tmp_path / "m").exists()
    assert not work.exists()


def test_the_library_needs_no_working_folder() -> None:
    """Run from the root folder: nothing may depend on where the caller stands."""
    code = "import mdlzip; mdlzip.CompressOptions(preset='mini')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/", env=cli_environment())
    assert (ROOT / "models").is_dir()
