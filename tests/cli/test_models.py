"""A whole life of a model through the command line: trained on real sources, kept, used, gone."""

from __future__ import annotations

import json
import lzma
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mdlzip
from tests.conftest import ROOT, cli_environment

SOURCES = ROOT / "mdlzip" / "cli"
UNSEEN = ROOT / "mdlzip" / "codec" / "decode.py"
SHORT = ("--steps", "30", "--preset", "nano", "--device", "cpu")


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mdlzip", *map(str, arguments)],
        cwd=folder,
        env=cli_environment(MDLZIP_MODELS=str(folder / "kept")),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of sources, `code.mdlm`, and the report of its training."""
    folder = tmp_path_factory.mktemp("models")
    done = run(folder, "train", SOURCES, "-o", "code.mdlm", *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    (folder / "report.json").write_text(done.stdout)
    (folder / "data").write_bytes(UNSEEN.read_bytes())
    return folder


def one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It failed with `code`, and one line that holds `words`."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("mdlzip: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def test_training_reports_what_it_has_not_seen(trained: Path) -> None:
    (report,) = json.loads((trained / "report.json").read_text())["models"]
    model = trained / "code.mdlm"
    assert report["model_bytes"] == model.stat().st_size
    files = [path for path in SOURCES.rglob("*") if path.is_file()]
    assert report["n_files"] == len(files)
    size = sum(path.stat().st_size for path in files)
    assert report["trained_bytes"] + report["held_out_bytes"] == size
    assert 0.02 * size < report["held_out_bytes"] < 0.15 * size
    assert 0.5 < report["trained_bits_per_byte"] < 5
    assert 0.5 < report["held_out_bits_per_byte"] < 6
    assert report["advice"]
    listed = run(trained, "list", "-v", "code.mdlm")
    assert "code" in listed.stdout and "bits per byte" in listed.stdout


def test_a_file_is_coded_with_it_and_comes_back(trained: Path) -> None:
    done = run(trained, "compress", "data", "-D", "code.mdlm", "--no-fallback", "--json")
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["files"]
    assert report["method"] == "learned"
    assert report["model_bytes"] == (trained / "code.mdlm").stat().st_size
    # the model's text is of the same kind: even a network that hardly learned beats LZMA
    least = len(lzma.compress(UNSEEN.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
    assert (trained / "data.mdlz").stat().st_size < 0.85 * least
    one_line(
        run(trained, "decompress", "data.mdlz", "-o", "back"), 8, report["model_id"][:16], "-D"
    )
    assert not (trained / "back").exists()
    assert run(trained, "models", "add", "code.mdlm").returncode == 0
    listed = run(trained, "models", "list")
    assert report["model_id"][:16] in listed.stdout and "code" in listed.stdout
    assert run(trained, "models", "path").stdout.strip() == str(trained / "kept")
    assert run(trained, "decompress", "data.mdlz", "-o", "back").returncode == 0
    assert (trained / "back").read_bytes() == UNSEEN.read_bytes()
    again = run(trained, "compress", "data", "-D", "code", "-o", "again.mdlz", "--no-fallback")
    assert again.returncode == 0, again.stderr
    assert "(not in the file)" in again.stdout
    part = run(trained, "cat", "again.mdlz", "--range", "10:50")
    assert part.stdout == UNSEEN.read_text()[10:50]
    assert run(trained, "models", "remove", "code").returncode == 0
    one_line(run(trained, "test", "data.mdlz"), 8, "models add")


def test_records_with_a_model_of_lines(trained: Path) -> None:
    """Lines that training never saw, each by itself, in less than LZMA makes of all together."""
    lines = [b'{"id": %d, "name": "user %d", "ok": true}' % (n, n * n % 89) for n in range(4000)]
    (trained / "seen.jsonl").write_bytes(b"\n".join(lines[:3900]) + b"\n")
    done = run(trained, "train", "seen.jsonl", "--lines", "-o", "lines.mdlm", *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["models"]
    assert report["n_records"] == 3900
    codec = mdlzip.Codec(trained / "lines.mdlm")
    coded = codec.encode_many(lines[3900:])
    assert codec.decode_many(coded) == lines[3900:]
    assert sum(map(len, coded)) < 0.5 * sum(map(len, lines[3900:]))


def test_mistakes_are_one_line(trained: Path) -> None:
    (trained / "empty").mkdir(exist_ok=True)
    one_line(run(trained, "train", "empty", "-o", "x.mdlm", *SHORT), 2, "nothing to train on")
    one_line(run(trained, "train", "*.nothing", "-o", "x.mdlm", *SHORT), 2, "no file has a name")
    one_line(run(trained, "train", "missing", "-o", "x.mdlm", *SHORT), 1, "missing")
    one_line(run(trained, "train", "data", "-o", "code.mdlm", *SHORT), 6, "code.mdlm")
    one_line(run(trained, "compress", "data", "-D", "nothing", "-o", "y"), 8, "neither a file")
    one_line(run(trained, "compress", "data", "-D", "data", "-o", "y"), 3, "data")
    one_line(run(trained, "compress", "data", "-D", "code.mdlm", "--steps", "3"), 2, "steps")
    one_line(run(trained, "models", "add", "data"), 3, "not an mdlzip archive")
    one_line(run(trained, "models", "remove", "nothing"), 8, "nothing")
    assert not (trained / "x.mdlm").exists() and not (trained / "y").exists()


def test_a_folder_that_holds_the_output(trained: Path) -> None:
    """Neither the model nor the checkpoints in it are sources; a source is never replaced."""
    folder = trained / "folder"
    folder.mkdir()
    (folder / "text").write_bytes(UNSEEN.read_bytes() * 3)
    command = ("train", "folder", "-o", "folder/m.mdlm", "--preset", "nano", "--device", "cpu")
    words = [sys.executable, "-m", "mdlzip", *command, "--budget", "60s", "--progress", "json"]
    with subprocess.Popen(
        words, cwd=trained, env=cli_environment(), stderr=subprocess.PIPE, text=True
    ) as going:
        assert going.stderr is not None
        for line in going.stderr:
            if '"train"' in line:
                going.send_signal(signal.SIGINT)
                break
        going.stderr.read()
    assert going.returncode == 130
    assert list(folder.glob(".*.work"))
    done = run(trained, *command, "--budget", "5s", "--resume", "--json")
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["models"]
    assert report["n_files"] == 1
    one_line(run(trained, "train", "data", "-o", "data", "-f", *SHORT), 2, "would overwrite")
    assert (trained / "data").read_bytes() == UNSEEN.read_bytes()
