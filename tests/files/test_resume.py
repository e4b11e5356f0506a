"""`--resume` goes on with what the checkpoint was made with, or says why not and stops."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import mdlzip
from mdlzip.codec import CompressOptions
from mdlzip.codec.work import work_folder
from mdlzip.errors import Interrupted, UsageError
from tests.archive_tools import Record, compressible
from tests.conftest import cli_environment

HERE = {"device": "cpu", "threads": 1, "fallback": False}
OPTIONS = CompressOptions(
    **HERE, preset="micro", steps=6, seed=5, chunk_size=256,
    overrides=("model.d_model=16", "model.d_ff=32"),
)  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_bytes(compressible(9000))
    return path


def stop_at(source: Path, step: int, options: CompressOptions = OPTIONS) -> None:
    """Train until a checkpoint after `step` steps."""
    steps: list[float] = []

    def note(phase: str, done: float, total: float, text: str) -> None:
        if phase == "train":
            steps.append(done)

    with pytest.raises(Interrupted, match="--resume"):
        mdlzip.compress(
            source, options=options, on_progress=note, should_stop=lambda: len(steps) >= step
        )


def resumed(source: Path, **more: object) -> tuple[mdlzip.CompressReport, str]:
    told: list[str] = []

    def note(phase: str, done: float, total: float, text: str) -> None:
        if phase == "plan":
            told.append(text)

    options = CompressOptions(**HERE, resume=True, **more)  # type: ignore[arg-type]
    return mdlzip.compress(source, options=options, on_progress=note), "".join(told)


def test_all_settings_come_from_the_checkpoint(source: Path, tmp_path: Path) -> None:
    whole = mdlzip.compress(source, tmp_path / "whole", OPTIONS)
    stop_at(source, 3)
    report, told = resumed(source)
    assert "going on at step" in told
    assert (report.config, report.chunk_size) == (whole.config, 256)
    assert {**report.ledger, "metadata": 0} == {
        **whole.ledger,
        "metadata": 0,  # only one of them holds the name
        "checksums": report.ledger["checksums"],
        "header": report.ledger["header"],
    }
    assert sorted(os.listdir(tmp_path)) == ["text", "text.mdlz", "whole"]


def test_stopped_anywhere_it_ends_in_the_same_archive(
    source: Path, tmp_path: Path, record_property: Record
) -> None:
    """At ten random steps of one run, each a stop and a fresh start: no bit is different."""
    options = replace(OPTIONS, steps=40)
    (tmp_path / "other").mkdir()
    whole = mdlzip.compress(source, tmp_path / "other" / "text.mdlz", options).path.read_bytes()
    stops = sorted(random.Random(6).sample(range(1, 40), 10))
    record_property("stops", len(stops))
    stop_at(source, stops[0], options)
    for before, step in pairwise(stops):
        stop_at(source, step - before, CompressOptions(**HERE, resume=True))
    report, told = resumed(source)
    assert f"going on at step {stops[-1]}" in told
    assert report.path.read_bytes() == whole


@pytest.mark.parametrize(
    "other",
    [
        {"preset": "nano"}, {"seed": 6}, {"steps": 7}, {"chunk_size": 1024}, {"group_chunks": 3},
        {"context": "solid"}, {"access_s": 0.5},
        {"budget_s": 60.0}, {"level": 3}, {"method": "drr"}, {"overrides": ("train.alpha=1",)},
    ],
    ids=str,
)  # fmt: skip
def test_a_wish_against_the_checkpoint_stops(source: Path, tmp_path: Path, other: dict) -> None:
    stop_at(source, 2)
    with pytest.raises(UsageError, match="was not made with"):
        resumed(source, **other)
    assert list(work_folder(tmp_path / "text.mdlz", b"", None, resume=True).iterdir())


def test_what_was_given_then_may_be_given_again(source: Path) -> None:
    stop_at(source, 2)
    report, _ = resumed(
        source, preset="micro", steps=6, seed=5, chunk_size=256, overrides=OPTIONS.overrides
    )
    assert report.method == "learned"


def test_nothing_to_go_on_from_is_said(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no checkpoint"):
        resumed(source)
    assert os.listdir(tmp_path) == ["text"]


def test_checkpoints_that_are_all_damaged_are_said(source: Path, tmp_path: Path) -> None:
    stop_at(source, 2)
    folder = work_folder(tmp_path / "text.mdlz", b"", None, resume=True)
    for path in folder.glob("step-*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="damaged"):
        resumed(source)


def test_a_changed_source_stops_at_the_next_checkpoint(source: Path, tmp_path: Path) -> None:
    from mdlzip.errors import SourceChanged

    steps: list[float] = []

    def change(phase: str, done: float, total: float, text: str) -> None:
        if phase == "train" and not steps:
            source.write_bytes(compressible(9000)[::-1])
        if phase == "train":
            steps.append(done)

    with pytest.raises(SourceChanged):
        mdlzip.compress(source, options=replace(OPTIONS, steps=1000), on_progress=change)
    assert len(steps) < 20
    assert os.listdir(tmp_path) == ["text"]  # such a checkpoint is of no use


FULL_DISK = """
import resource, signal, sys, mdlzip
from mdlzip.codec import CompressOptions
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
told = []
def note(phase, done, total, text):
    if phase == "train" and not told:  # the checkpoint is larger than the archive
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    if phase == "warning":
        told.append(text)
options = CompressOptions(device="cpu", threads=1, preset="nano", steps=3, fallback=False)
report = mdlzip.compress(sys.argv[1], options=options, on_progress=note)
assert told and "checkpoint cannot be written" in told[0], told
assert report.warnings == tuple(told), report.warnings
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit of file sizes here")
def test_a_checkpoint_that_cannot_be_written_is_a_warning(source: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(source)],
        env=cli_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["text", "text.mdlz"]
    with mdlzip.open(tmp_path / "text.mdlz") as archive:
        assert archive.read(0, 1 << 20) == source.read_bytes()


def test_stopped_where_no_checkpoint_can_be_written(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mdlzip.training import checkpoint

    def full(*args: object, **more: object) -> None:
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    training: list[str] = []

    def note(phase: str, done: float, total: float, text: str) -> None:
        if phase == "train":
            training.append(phase)

    with pytest.raises(Interrupted, match="could not be written"):
        mdlzip.compress(
            source, options=OPTIONS, on_progress=note, should_stop=lambda: bool(training)
        )
