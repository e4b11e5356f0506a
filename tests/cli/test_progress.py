"""The four displays."""

from __future__ import annotations

import json
import sys
import time

import pytest

from mdlzip.cli.progress import (
    BarProgress,
    JsonProgress,
    NoProgress,
    PlainProgress,
    duration,
    make_progress,
)
from mdlzip.errors import UsageError


def test_mode_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_progress("auto", quiet=False), BarProgress)
    assert type(make_progress("auto", quiet=True)) is NoProgress
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress("auto", quiet=False), PlainProgress)
    assert isinstance(make_progress("json", quiet=True), JsonProgress)
    assert type(make_progress("never", quiet=False)) is NoProgress
    with pytest.raises(UsageError, match="choose one of auto"):
        make_progress("loud", quiet=False)


def test_plain_lines_are_rare_and_the_estimate_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    show = PlainProgress(interval_s=0.05)
    show("plan", 0, 0, "about 10 minutes, 2.3 MB")
    for i in range(20):
        show("train", i, 40, "1.9 bits per byte")
    time.sleep(0.06)
    show("train", 20, 40, "1.8 bits per byte")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "mdlzip: about 10 minutes, 2.3 MB"
    assert lines[1].startswith("mdlzip: train 50 %") and "1.8 bits per byte" in lines[1]
    assert len(lines) == 2


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show = JsonProgress()
    for phase, done in (("train", 0), ("train", 1), ("train", 2), ("encode", 0)):
        show(phase, done, 2, "n")
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(e["phase"], e["done"]) for e in events] == [("train", 0), ("train", 2), ("encode", 0)]
    assert all(e["schema"] == 1 and "eta_s" in e for e in events)


def test_bar_accepts_any_order_of_events(capsys: pytest.CaptureFixture[str]) -> None:
    with BarProgress(force=True) as show:
        show("plan", 0, 0, "[estimate] with brackets")
        show("train", 1, 2, "[red]")
        show("encode", 0, 0, "")
        show("train", 2, 2, "")
    assert "[estimate] with brackets" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1m00s"), (200, "3m20s"), (3900, "1h05m")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
