"""What all studies share: the log of runs and the plots."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from mdlzip.errors import OutputExists, UsageError
from mdlzip.studies.plots import Axes, Curve, adaptive_bins, draw
from mdlzip.studies.run_log import FILE_NAME, RunLog


def test_a_log_goes_on_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    log = RunLog(folder)
    for n in (30, 300):
        log.add({"n": n, "loss": "mse"}, {"bytes": n * 6})
    path = folder / FILE_NAME
    path.write_bytes(path.read_bytes()[:-9])  # killed while writing the second line
    again = RunLog(folder, resume=True)
    assert len(again) == 1
    assert again.find({"loss": "mse", "n": 30}) == {"key": {"n": 30, "loss": "mse"}, "bytes": 180}
    assert again.find({"n": 300, "loss": "mse"}) is None
    again.add({"n": 300, "loss": "mse"}, {"bytes": 1})
    assert [run["bytes"] for run in RunLog(folder, resume=True)] == [180, 1]


def test_a_log_is_not_overwritten_unasked(tmp_path: Path) -> None:
    RunLog(tmp_path).add({"a": 1}, {})
    with pytest.raises(OutputExists, match=r"--resume goes on with it, --force begins anew"):
        RunLog(tmp_path)
    assert len(RunLog(tmp_path, resume=True)) == 1
    assert len(RunLog(tmp_path, force=True)) == 0


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"bytes": 3}', "\xff"])
def test_a_strange_log_is_refused(tmp_path: Path, line: str) -> None:
    good = json.dumps({"key": {"a": 1}})
    (tmp_path / FILE_NAME).write_text(f"{good}\n{line}\n{good}\n", encoding="latin-1")
    with pytest.raises(UsageError, match="line 2 is not a run of a study"):
        RunLog(tmp_path, resume=True)


def test_bins_hold_enough_points_and_width() -> None:
    x = np.geomspace(1, 1000, 301)
    bins = adaptive_bins(list(x), list(np.log10(x)))
    assert 20 <= len(bins) <= 30  # 0.1 in log10, 100 points a decade: 10 or 11 points each
    assert all(b.low <= b.median <= b.high for b in bins)
    assert all(abs(b.median - np.log10(b.x)) < 0.01 for b in bins)
    dense = adaptive_bins([1.0] * 50 + [1.001] * 50, list(range(100)))
    assert len(dense) == 1 and dense[0].median == 49.5
    assert adaptive_bins([], []) == []
    assert adaptive_bins([3.0, 2.0], [1.0, 5.0]) == [(2.5, 3.0, 2.0, 4.0)]


def test_plots_are_whole_files_and_repeatable(tmp_path: Path) -> None:
    curves = [
        Curve("a method", [1, 10, 100], [3.0, 2.0, 2.5], [2.9, 1.9, 2.4], [3.1, 2.1, 2.6]),
        Curve("crosses", [20], [2.2], line=False),
        Curve("nothing", [], []),
    ]
    axes = Axes(
        "model, bytes", "loss", x_log=True, isolines=lambda x, y: x + 50 * y,
        isolines_label="total", levels_y={"verbatim": 2.8},
    )  # fmt: skip
    svg, png = draw(tmp_path / "one", axes, curves)
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and png.stat().st_size > 5000
    words = "".join(ElementTree.parse(svg).getroot().itertext())
    assert svg.suffix == ".svg" and "2.8" not in words  # text is drawn as shapes
    (tmp_path / "again").mkdir()
    assert draw(tmp_path / "again" / "one", axes, curves)[0].read_bytes() == svg.read_bytes()
    shapes = svg.read_text()
    assert shapes.count("<!-- a method -->") == 1 and "<!-- nothing -->" not in shapes
    for part in ("verbatim", "crosses", "thin lines: total", "140", "200"):  # round isolines
        assert f"<!-- {part} -->" in shapes, part
