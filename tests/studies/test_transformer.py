"""`mdlzip study transformer` on text of the repository, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mdlzip.errors import UsageError
from mdlzip.studies.transformer import Sweep
from tests.conftest import ROOT, RunCli

SMALL = (
    "--preset", "nano", "--steps", "60", "--threads", "1", "-q",
    "--set", "model.d_model=16", "--set", "model.d_ff=32", "--set", "train.alpha=0.02",
)  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_bytes((ROOT / "LICENSE").read_bytes()[:6000])
    return path


def test_a_sweep_over_alpha(cli: RunCli, text: Path, tmp_path: Path) -> None:
    command = ("study", "transformer", "text", *SMALL, "--method", "rl1", "--crosses", "nano")
    done = cli(*command, "--values", "0,20", "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [(r["key"]["method"], r["key"]["value"]) for r in runs] == [
        ("rl1", 1.0), ("rl1", 0.0), ("rl1", 20.0), ("none", 0.0)
    ]  # fmt: skip
    assert [r["figures"]["alpha"] for r in runs[:3]] == pytest.approx([0.02, 0.0, 0.4], abs=1e-9)
    nnz = [r["figures"]["nnz"] for r in runs]
    assert nnz[2] < nnz[0] <= nnz[1]
    for run in runs:
        assert sum(run["ledger"].values()) == run["figures"]["archive_bytes"]
    lines = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == runs
    for name in ("loss-against-model", "total-against-model", "total"):
        assert (tmp_path / "out" / f"text-alpha-{name}.svg").stat().st_size > 1000
        assert (tmp_path / "out" / f"text-alpha-{name}.png").stat().st_size > 1000
    # killed before the last line was whole: only that run is made again
    log = tmp_path / "out" / "runs.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    again = cli(*command, "--values", "0,20", "-o", "out", "--json", "--resume")
    redone = json.loads(again.stdout)["runs"]
    assert redone[:3] == runs[:3]
    assert redone[3]["figures"]["archive_bytes"] == runs[3]["figures"]["archive_bytes"]
    refused = cli(*command, "-o", "out")
    assert refused.returncode == 6 and b"--resume goes on with it" in refused.stderr


@pytest.mark.slow
def test_a_sweep_over_chunk_sizes(cli: RunCli, text: Path) -> None:
    done = cli(
        "study", "transformer", "text", *SMALL, "--steps", "150",
        "--over", "chunk-size", "--values", "64,128", "-o", "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [r["key"]["value"] for r in runs] == [512.0, 64.0, 128.0]
    data = [r["ledger"]["data"] for r in runs]
    assert data[1] > data[2] > data[0]  # the shorter the chunks, the blinder their beginnings


def test_the_table_names_the_least(cli: RunCli, text: Path) -> None:
    command = [word for word in SMALL if word != "-q"]
    done = cli(
        "study", "transformer", "text", *command, "--over", "coarseness", "--values", "2",
        "--progress", "never",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "text: 6,000 bytes" and lines[1].split()[:3] == [
        "method", "preset", "coarseness"
    ]  # fmt: skip
    assert lines[-1].startswith("least: rl1 at coarseness ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--over", "width"), "cannot sweep over 'width'; choose one of alpha"),
        (("--method", "l2"), "unknown method 'l2'; choose one of none, rl1"),
        (("--method", ","), "a sweep needs at least one method"),
        (("--values", "1,x"), "--values 1,x: write values with commas"),
        (("--values", "-1"), "must be a number of at least 0, not -1"),
        (("--crosses", "gigantic"), "unknown preset 'gigantic'"),
        (("--steps", "1", "--budget", "3s"), "exclude each other"),
    ],
)
def test_bad_input_in_one_line(
    cli: RunCli, text: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = cli("study", "transformer", "text", *arguments)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and words in lines[0], lines


@pytest.mark.parametrize("wrong", [("nowhere",), ("--preset", "x"), ("--set", "train.x=1")])
def test_nothing_is_begun_or_lost_on_a_mistake(
    cli: RunCli, text: Path, tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    done = cli("study", "transformer", "text", *wrong, "-o", "out")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    log = tmp_path / "out" / "runs.jsonl"
    log.write_text('{"key": {"a": 1}}\n')
    assert cli("study", "transformer", "text", *wrong, "-o", "out", "--force").returncode == 2
    assert log.read_text() == '{"key": {"a": 1}}\n'


def test_the_automatic_choice_comes_first() -> None:
    assert Sweep(values=(4.0, 1.0, 0.5, 4.0)).points == (1.0, 4.0, 0.5)
    assert Sweep("chunk-size", (256.0,)).points == (512.0, 256.0)
    with pytest.raises(UsageError, match="whole number"):
        Sweep("chunk-size", (0.5,))
