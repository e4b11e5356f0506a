"""The general methods as rivals: bounded in time and memory, and the reason not to train."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import mdlzip
from mdlzip.archive.bodies import BODIES
from mdlzip.archive.bodies.general import General
from mdlzip.codec import CompressOptions, encode, race, rivalry
from mdlzip.codec.generic import compete, hopeless, use_rest
from mdlzip.codec.job import Job
from mdlzip.codec.options import no_progress
from mdlzip.codec.race import Rivals
from mdlzip.corpus import open_corpus
from mdlzip.errors import NoGain
from mdlzip.symbols.layout import Layout
from tests.archive_tools import compressible, with_trainer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(compressible(300_000) + np.random.default_rng(0).bytes(4_000_000))
    return path


def body(label: str) -> General:
    found = next(body for body in BODIES if body.label == label)
    assert isinstance(found, General)
    return found


STORED, ZSTD, XZ = map(body, ("stored", "zstd", "xz"))


def never() -> bool:
    return False


def test_time_is_bounded_and_a_quick_method_takes_over(source: Path) -> None:
    with open_corpus(source) as corpus:
        began = time.monotonic()
        rivals = compete(corpus, None, no_progress, never, limit_s=0.0)
        assert time.monotonic() - began < 30
        assert rivals.cut_short  # one that has read everything by then may finish
        assert {ZSTD, XZ} & set(rivals.sizes)
        assert rivals.best is not STORED
        rivals.close()


def test_an_archive_by_the_quick_method_decodes_and_says_so(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_trainer(monkeypatch)
    monkeypatch.setattr(rivalry, "_RIVALS_S", 0.0)
    options = CompressOptions(budget_s=1e-3, device="cpu", threads=1)
    report = mdlzip.compress(source, options=options)
    assert report.method in ("zstd", "xz")
    assert any("was stopped for lack of time" in text for text in report.warnings)
    out = mdlzip.decompress(f"{source}.mdlz", tmp_path / "out").path
    assert out is not None
    assert out.read_bytes() == source.read_bytes()


def test_time_that_no_training_takes_goes_to_the_general_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are stopped at once, a quick zstd takes over; then training proves to be too slow."""
    source = tmp_path / "f"
    source.write_bytes(compressible(3_000_000))

    def too_slow(*args: object, **kwargs: object) -> None:
        raise NoGain("the budget is too small")

    monkeypatch.setattr(encode, "train_on", too_slow)
    monkeypatch.setattr(encode, "read_input", lambda job, *rest: setattr(job, "tokens", ()))
    monkeypatch.setattr(rivalry, "_RIVALS_SHARE", 0.0)
    monkeypatch.setattr(rivalry, "_RIVALS_S", 0.0)
    report = mdlzip.compress(source, options=CompressOptions(budget_s=60, device="cpu"))
    with open_corpus(source) as corpus:
        hardest = compete(corpus, None, no_progress, never)
        assert report.archive_bytes == min(hardest.sizes.values())
        hardest.close()
    assert not report.warnings
    assert report.skipped_training == "the budget is too small"


@pytest.mark.parametrize("limit_s", [0.0, 1e9])
def test_the_rest_of_the_time_decides_the_level(source: Path, limit_s: float) -> None:
    with open_corpus(source) as corpus:
        rivals = compete(corpus, None, no_progress, never, limit_s=0.0)
        before = dict(rivals.sizes)
        use_rest(rivals, corpus, None, no_progress, never, limit_s=limit_s)
        assert bool(rivals.cut_short) == (limit_s == 0)
        assert all(rivals.sizes[body] <= size for body, size in before.items())
        rivals.close()


@pytest.mark.parametrize("limit_s", [0.0, 1e9])
def test_methods_that_take_turns_all_have_one(
    source: Path, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do where memory or threads do not suffice for both at once."""
    with open_corpus(source) as corpus:
        together = compete(corpus, None, no_progress, never)
        monkeypatch.setattr(race, "_TOGETHER_BYTES", 0)
        turns = compete(corpus, None, no_progress, never, limit_s=limit_s, threads=2)
        assert set(turns.cut_short) == ({ZSTD, XZ} if limit_s == 0 else set())
        if limit_s:
            assert turns.sizes == together.sizes
        for rivals in (together, turns):
            rivals.close()


@pytest.mark.parametrize("seconds", [1.0, 1e6])
def test_what_could_still_be_had_is_a_rival(source: Path, seconds: float) -> None:
    with open_corpus(source) as corpus:
        job = Job(corpus, None, CompressOptions(budget_s=60.0), no_progress, never)
        heading = race.CutShort(10, seconds)
        rivals = Rivals({STORED: 500}, {}, {XZ: heading})
        assert rivalry.least_within_reach(job, rivals) == (10 if seconds == 1.0 else 500)


def test_a_turn_goes_on_if_that_brings_it_to_its_end() -> None:
    now = time.monotonic()
    time_of_turn = race._Time(now - 50, now - 5, now + 50)  # half of it is over
    assert not time_of_turn.is_up(done=60, size=100)
    assert time_of_turn.is_up(done=40, size=100)
    assert not time_of_turn._replace(end=now + 5).is_up(done=0, size=100)
    assert time_of_turn._replace(latest=now - 1).is_up(done=99, size=100)


@pytest.mark.parametrize("enough", [False, True])
def test_what_would_not_open_under_the_limit_does_not_compete(
    source: Path, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_trainer(monkeypatch)
    size = source.stat().st_size
    needs = [body.most_memory_bytes(size) for body in (ZSTD, XZ)]
    memory = max(needs) if enough else min(needs) - 1
    options = CompressOptions(memory=memory, verify=False, device="cpu", threads=1)
    if enough:
        with open_corpus(source) as corpus:
            rivals = compete(corpus, None, no_progress, never, memory=memory)
            assert set(rivals.sizes) == {STORED, ZSTD, XZ}
            rivals.close()
        return
    report = mdlzip.compress(source, options=options)
    assert report.method == "stored"
    mdlzip.test(f"{source}.mdlz", memory=memory)


def test_zeros_are_not_worth_a_model() -> None:
    """300 MB of them: 4,578 groups of ten bytes each are more than xz needs in all."""
    layout = Layout(300_000_000, 512, 128)
    rivals = Rivals({STORED: layout.total_bytes, ZSTD: 9_700})
    assert "less than any model and its index" in str(hopeless(layout, rivals))
    assert hopeless(layout, Rivals({STORED: layout.total_bytes, XZ: 90_000})) is None
