"""A whole life of a learned archive through the command line, with a training of seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunCli, cli_environment

TEXT = (ROOT / "LICENSE").read_bytes() * 2
TINY = ("--preset", "nano", "--device", "cpu", "--no-fallback")
SHORT = (*TINY, "--steps", "3")
LONG = (*TINY, "--steps", "150")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mdlzip", *arguments],
        cwd=folder,
        env=cli_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `text`, its learned archive, and what the command printed."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "text").write_bytes(TEXT)
    done = run(folder, "compress", "text", *SHORT, "--progress", "json")
    assert done.returncode == 0, done.stderr.decode()
    (folder / "stdout").write_bytes(done.stdout)
    (folder / "stderr").write_bytes(done.stderr)
    return folder


def test_compress_prints_estimate_and_ledger(trained: Path) -> None:
    out = (trained / "stdout").read_text()
    size = (trained / "text.mdlz").stat().st_size
    assert f"{len(TEXT):,} -> {size:,} bytes" in out and "learned" in out
    for line in ("positions", "values", "scales", "data", "checksums", "weights kept"):
        assert f"\n{line} " in out
    events = [json.loads(e) for e in (trained / "stderr").read_text().splitlines()]
    phases = [e["phase"] for e in events]
    assert list(dict.fromkeys(phases)) == [
        "grid", "tokenise", "experts", "plan", "train", "prune", "quantise", "encode", "verify",
    ]  # fmt: skip


def test_ledger_adds_up(trained: Path) -> None:
    archive = json.loads(run(trained, "list", "--json", "text.mdlz").stdout)["archives"][0]
    ledger = {row["name"]: row["bytes"] for row in archive["ledger"]}
    total = ledger.pop("total")
    assert sum(ledger.values()) == total == (trained / "text.mdlz").stat().st_size
    assert archive["method"] == "learned" and archive["model"]["chunk_size"] >= 512
    assert 0 < archive["figures"]["nnz"] <= archive["figures"]["n_weights"]


def test_it_decodes_without_the_trainer(trained: Path) -> None:
    code = (
        "import sys; sys.modules['mdlzip.training'] = None\n"
        "from mdlzip.cli.app import main; main(['-dc', 'text.mdlz'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=trained,
        env=cli_environment(),
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == TEXT, done.stderr


def test_test_and_memory_limit(trained: Path) -> None:
    assert run(trained, "-t", "text.mdlz").stdout == b"text.mdlz: OK\n"
    done = run(trained, "-t", "text.mdlz", "--memory", "10KiB")
    assert done.returncode == 5 and b"--memory" in done.stderr


def test_export_and_import(trained: Path) -> None:
    done = run(trained, "export", "text.mdlz", "-o", "w.safetensors", "-f")
    assert done.returncode == 0, done.stderr
    (trained / "other").write_bytes(TEXT[1000:2500])
    done = run(trained, "import", "w.safetensors", "other", "-o", "other.mdlz", "-f")
    assert done.returncode == 0, done.stderr
    assert run(trained, "-dc", "other.mdlz").stdout == TEXT[1000:2500]
    assert run(trained, "export", "text.mdlz", "-o", "w.safetensors").returncode == 6
    before = sorted(p.name for p in trained.iterdir())
    piped = run(trained, "export", "text.mdlz", "-o", "-", "--json")
    assert json.loads(piped.stderr)["files"] == [{"file": "text.mdlz", "output": None}]
    assert sorted(p.name for p in trained.iterdir()) == before
    (trained / "piped").write_bytes(piped.stdout)
    done = run(trained, "import", "piped", "other", "-o", "again.mdlz", "-f", "--json")
    assert json.loads(done.stdout)["files"][0]["archive"] == "again.mdlz"
    assert run(trained, "-dc", "again.mdlz").stdout == TEXT[1000:2500]


def test_bench_measures_an_archive_that_is_there(trained: Path) -> None:
    done = run(trained, "bench", "text", "--archive", "text.mdlz", "--against", "xz-9e", "--json")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)["files"][0]
    ours = got["mdlzip"]["figures"]["archive_bytes"]
    assert ours == (trained / "text.mdlz").stat().st_size
    assert got["gap_to_best"]["file"] == pytest.approx(ours / got["baselines"][0]["bytes"] - 1)
    assert got["mdlzip"]["figures"]["decode_kb_per_s"] > 0


def test_same_seed_same_archive(trained: Path, tmp_path: Path) -> None:
    source = trained / "text"
    done = run(tmp_path, "compress", "-q", str(source), "-o", "text.mdlz", *SHORT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "text.mdlz").read_bytes() == (trained / "text.mdlz").read_bytes()


@contextmanager
def training(folder: Path, *extra: str) -> Iterator[subprocess.Popen[bytes]]:
    """A compression that has just begun to train."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mdlzip", "compress", "text", *LONG, "--progress", "json", *extra],
        cwd=folder,
        env=cli_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if b'"train"' in line:
                break
        else:
            pytest.fail("training never began")
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.crash
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_checkpoints_and_resume_finishes(signum: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    with training(tmp_path, "--json") as process:
        process.send_signal(signum)
        output, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, error
    events = [json.loads(line) for line in error.splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"] == ["stopping", "error"]
    assert events[-1]["error"].count("--resume") == 1
    assert events[-1]["exit_code"] == 128 + signum
    [entry] = json.loads(output)["files"]
    assert (entry["file"], entry["exit_code"]) == ("text", 128 + signum)
    assert not (tmp_path / "text.mdlz").exists()
    if signum == signal.SIGINT:
        done = run(tmp_path, "compress", "-q", "text", *LONG, "--resume")
        assert done.returncode == 0, done.stderr
        assert run(tmp_path, "-dc", "text.mdlz").stdout == TEXT
        assert sorted(p.name for p in tmp_path.iterdir()) == ["text", "text.mdlz"]


@pytest.mark.crash
def test_two_signals_stop_at_once(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    with training(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        process.communicate(timeout=60)
    assert process.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert time.monotonic() - start < 10
    assert not (tmp_path / "text.mdlz").exists()


def test_small_files_keep_the_smaller_form(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT[:2000])
    done = cli("compress", "text", "--preset", "nano", "--steps", "3")
    assert done.returncode == 0, done.stderr
    assert b"\nno model was kept: zstd needs " in done.stdout
    assert b"\nkept zstd, instead of (bytes): xz " in done.stdout
