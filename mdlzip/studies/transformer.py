"""Sweeps of one setting of the compressor on real files: the U-curves of Fig. 1c, 6 and 7.

Every point is an archive that was written, decoded and compared; its bytes are those on disk. The
loss is the code length of the file itself, which is what is paid for; the paper shows a test loss.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mdlzip import codec
from mdlzip.callbacks import OnProgress
from mdlzip.config import TrainConfig, check_method, load_preset
from mdlzip.errors import UsageError
from mdlzip.report import compress_figures
from mdlzip.studies.plots import Axes, Curve, draw
from mdlzip.studies.run_log import RunLog

OVER = {
    "alpha": (1.0, 0.125, 0.25, 0.5, 2.0, 4.0, 8.0),
    "coarseness": (1.0, 0.25, 0.5, 0.7, 1.4, 2.0, 4.0),
    "chunk-size": (512.0, 256.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0),
}
"""What a sweep may go over, and its values: of alpha (price of a weight) and coarseness (step of
the weights' codes) multiples of what is chosen without the sweep; of chunk-size bytes."""
UNREGULARISED = "none"


@dataclass(frozen=True)
class Sweep:
    """What is varied. crosses: presets that are trained without regularisation beside (UT).

    Raises UsageError for an unknown axis or method, or a value that cannot be.
    """

    over: str = "alpha"
    values: tuple[float, ...] = ()
    methods: tuple[str, ...] = ("rl1",)
    crosses: tuple[str, ...] = ()
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.over not in OVER:
            raise UsageError(f"cannot sweep over {self.over!r}; choose one of {', '.join(OVER)}")
        for method in self.methods:
            check_method(method)
        if not self.methods:
            raise UsageError("a sweep needs at least one method")
        for value in self.values:
            if not (np.isfinite(value) and value >= 0):
                raise UsageError(f"a value of a sweep must be a number of at least 0, not {value}")
            if self.over == "chunk-size" and value != int(value):
                raise UsageError(f"a chunk size is a whole number of bytes, not {value}")

    @property
    def points(self) -> tuple[float, ...]:
        """The values, the automatic choice first: the others are its multiples."""
        first = OVER[self.over][0]
        wanted = self.values or OVER[self.over]
        return (first, *(v for v in dict.fromkeys(wanted) if v != first))


@dataclass(frozen=True)
class _Run:
    """One archive to make: its key in the log, and how."""

    key: dict[str, Any]
    options: codec.CompressOptions


def check_sweep(paths: Sequence[Path], sweep: Sweep, options: codec.CompressOptions) -> None:
    """Raise UsageError for a missing file or bad settings, before hours go by or a log is begun."""
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path} is not a regular file")
    for preset in (options.preset or "nano", *sweep.crosses):
        load_preset(preset, options.config_file, options.overrides)


def run_sweep(
    path: Path,
    sweep: Sweep,
    options: codec.CompressOptions,
    log: RunLog,
    on_progress: OnProgress,
) -> list[dict[str, Any]]:
    """Make every archive of the sweep that `log` does not hold yet; give all of this file's runs.

    options: as for compress; method, alpha and the like are the sweep's. Each run has "key" and
    the figures of `report.figures`, with units in their names, "seconds" and "ledger".
    """
    check_sweep([path], sweep, options)
    options = replace(options, fallback=False)
    total = sweep.seeds * (len(sweep.methods) * len(sweep.points) + len(sweep.crosses))
    runs = []
    for number, run in enumerate(_runs(path, sweep, options, log)):
        label = " ".join(str(run.key[k]) for k in ("method", "preset", "over", "value"))
        on_progress("runs", number, total, label)
        known = log.find(run.key)
        runs.append(known or log.add(run.key, _compress(path, run, number, total, on_progress)))
    on_progress("runs", total, total, "")
    return runs


def _runs(path: Path, sweep: Sweep, options: codec.CompressOptions, log: RunLog) -> Iterator[_Run]:
    """The runs in order; the first of each method tells the alpha that the others multiply."""
    base: dict[str, Any] = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "preset": options.preset or "auto",
        "steps": options.steps,
        "budget_s": options.budget_s,
        "level": options.level,
        "chunk_size": options.chunk_bytes(),
        "overrides": list(options.overrides),
        "config": str(options.config_file) if options.config_file else None,
    }
    for seed in range(sweep.seeds):
        for method in sweep.methods:
            first: dict[str, Any] | None = None
            for value in sweep.points:
                key = {**base, "method": method, "over": sweep.over, "value": value, "seed": seed}
                chosen = replace(options, method=method, seed=seed)
                if sweep.over == "chunk-size":
                    chosen = replace(chosen, chunk_size=int(value), group_chunks=None)
                elif first is not None:
                    name, centre = _centre(sweep.over, first, chosen)
                    # An alpha of exactly 0 would be chosen automatically.
                    setting = f"train.{name}={max(value * centre, 1e-12):.9g}"
                    chosen = replace(chosen, overrides=(*chosen.overrides, setting))
                yield _Run(key, chosen)
                first = first or log.find(key)
        for cross in sweep.crosses:
            key = {**base, "method": UNREGULARISED, "over": sweep.over, "value": 0.0, "seed": seed}
            key["preset"] = cross
            yield _Run(key, replace(options, method=UNREGULARISED, preset=cross, seed=seed))


def _centre(over: str, first: dict[str, Any], options: codec.CompressOptions) -> tuple[str, float]:
    """The setting that a sweep over alpha or coarseness multiplies, and its automatic value."""
    if over == "alpha":
        return "alpha", float(first["figures"]["alpha"])
    train = TrainConfig()
    if options.preset is not None:
        train = load_preset(options.preset, options.config_file, options.overrides).train
    return "coarseness", train.coarseness


def _compress(
    path: Path, run: _Run, number: int, total: int, on_progress: OnProgress
) -> dict[str, Any]:
    """Compress, verify and report one run."""

    def show(phase: str, done: float, out_of: float, note: str) -> None:
        if phase == "train" and out_of:
            label = f"{run.key['method']} {run.key['over']} {run.key['value']:g}: {note}"
            on_progress("runs", number + done / out_of, total, label)

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mdlzip-study-") as folder:
        target = str(Path(folder) / "run.mdlz")
        report = codec.compress(str(path), target, run.options, on_progress=show)
    return {
        "figures": compress_figures(report),
        "ledger": dict(report.ledger),
        "seconds": round(time.monotonic() - began, 1),
    }


def best(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run with the fewest archive bytes."""
    return min(runs, key=lambda run: run["figures"]["archive_bytes"])


def plot_sweep(folder: Path, runs: Sequence[dict[str, Any]]) -> list[Path]:
    """Figures 1c/6, 7 and total against the setting, for one file's runs; the paths written."""
    if not runs:
        return []
    key = runs[0]["key"]
    over, stem, size = key["over"], Path(key["file"]).stem, int(key["bytes"])
    regular = [r for r in runs if r["key"]["method"] != UNREGULARISED]
    crosses = [r for r in runs if r["key"]["method"] == UNREGULARISED]
    setting = "alpha" if over == "alpha" else "value"

    def curves(x: str, y: str) -> list[Curve]:
        methods = dict.fromkeys(r["key"]["method"] for r in regular)
        out = [_curve(m, [r for r in regular if r["key"]["method"] == m], x, y) for m in methods]
        for cross in dict.fromkeys(r["key"]["preset"] for r in crosses):
            chosen = [r for r in crosses if r["key"]["preset"] == cross]
            out.append(replace(_curve(f"UT {cross}", chosen, x, y), line=False))
        return out

    total = "archive, bytes"
    paths = draw(
        folder / f"{stem}-{over}-loss-against-model",
        Axes(
            "stored weights, bytes",
            "data, bits per byte",
            f"{key['file']}: loss against model size",
            x_log=True,
            isolines=lambda x, y: x + y * size / 8,
            isolines_label=total,
        ),
        curves("weight_bytes", "data_bits_per_byte"),
    )
    paths += draw(
        folder / f"{stem}-{over}-total-against-model",
        Axes(
            "stored weights, bytes", total, f"{key['file']}: total against model size", x_log=True
        ),
        curves("weight_bytes", "archive_bytes"),
    )
    labels = {"alpha": "alpha", "coarseness": "step, times the chosen one", "chunk-size": "bytes"}
    swept = [c for c in curves(setting, "archive_bytes") if c.line]
    axes = Axes(labels[over], total, f"{key['file']}: total against {over}", x_log=True)
    return paths + draw(folder / f"{stem}-{over}-total", axes, swept)


def _curve(label: str, runs: Sequence[dict[str, Any]], x: str, y: str) -> Curve:
    """Medians over seeds at each value of the sweep, with the extremes as the tube."""

    def number(run: dict[str, Any], name: str) -> float:
        return float(run["key"]["value"] if name == "value" else run["figures"][name])

    values = dict.fromkeys(run["key"]["value"] for run in runs)
    groups = [[run for run in runs if run["key"]["value"] == v] for v in values]
    xs = [float(np.median([number(run, x) for run in group])) for group in groups]
    ys = [[number(run, y) for run in group] for group in groups]
    several = any(len(group) > 1 for group in groups)
    return Curve(
        label,
        xs,
        [float(np.median(y)) for y in ys],
        [min(y) for y in ys] if several else None,
        [max(y) for y in ys] if several else None,
    )
