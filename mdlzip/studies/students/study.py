"""Teacher and student: Table 5 and figures 1a, 4 and 5 of the paper.

**Protocol.** One fixed teacher [2, 5, 8, 1]. Per seed: fresh inputs, noise and initial weights of a
student [2, 25, 25, 1] (751 weights). For each of N = 30, 300, 2000, noise variance 1e-5, 0.08, loss
"mse" (eq. 6 with a constant sigma) or "gauss" (eq. 17, sigma learned) and method, all alphas times
all seeds are one batched training: Adam, penalty climbing to alpha, cosine to rate 0; the method's
mask, TAMADE, random gradient pruning; fine-tuning under the fixed mask. A fixed number of steps
stands for the paper's convergence criterion.

**Description length** (bytes; the paper does not publish its own definition). Model: 4 a non-zero
weight, no indices (the paper's unpruned cells imply 751 x 4 = 3,004 and nothing else), plus 8 for
two sigmas. Data: the N training and N test targets by eq. 14 to 16, -log2(A p(y)), each set under
the sigma that suits it best, no cell below 0 bits. "uniform", the one that is compared: A is the
float32 spacing at the largest of the 2N targets, for all of them (appendix A.2 names uniform
spacing as an option, and the size of the paper's cells fits it, see `networks.TEACHER_RMS`).
"float32", beside it: A_i is the float32 spacing at y_i. Verbatim: 4 a target.

**Cell of the table**: the median over seeds at the alpha whose median is least.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdlzip.callbacks import OnProgress
from mdlzip.errors import UsageError
from mdlzip.studies.run_log import Key, RunLog
from mdlzip.studies.students.figures import draw_figures
from mdlzip.studies.students.training import (
    FINE_TUNING,
    FULL_BATCH,
    Setting,
    train_students,
)
from mdlzip.studies.workers import Report, run_jobs

SIZES = (30, 300, 2000)
NOISES = (1e-5, 0.08)
LOSSES = ("mse", "gauss")
METHODS = ("pmmp", "drr", "rl1", "none")
STEPS = 5000
SEEDS = 5
ALPHAS = 10
TABLE_NAME = "table5.json"
DEFINITION = (
    "description length in bytes of 2N targets (training + test): 4 x nnz + 8 for two sigmas + "
    "-log2(A p(y)) / 8, A = float32 spacing at the largest target, a sigma per set"
)
CLOSE = 1.1  # a cell counts as reproduced up to this multiple of the paper's

_COLUMNS = [(m, loss) for m in METHODS[:3] for loss in LOSSES] + [("none", "mse")]
_PAPER_ROWS = {
    (30, 1e-5): (182, 212, 187, 195, 180, 220, 3111),
    (300, 1e-5): (1637, 1732, 1623, 1623, 1586, 1611, 4199),
    (2000, 1e-5): (9400, 9000, 8600, 8800, 8860, 8790, 10860),
    (30, 0.08): (182, 197, 187, 195, 180, 209, 3105),
    (300, 0.08): (1692, 1722, 1675, 1678, 1666, 1668, 4468),
    (2000, 0.08): (10650, 10660, 10570, 10610, 10580, 10570, 13270),
}
PAPER = {
    (n, noise, loss, method): bytes_
    for (n, noise), row in _PAPER_ROWS.items()
    for (method, loss), bytes_ in zip(_COLUMNS, row, strict=True)
}
"""Table 5: (N, noise, loss, method) -> bytes. Its one unpruned column stands at loss "mse"."""

# Alpha times N of the dense part of the grid, found by short pilots with one to three seeds. One
# weight of 32 bits over 2N samples costs 16 / N bits a sample; the plain squared error is worth
# 1 / (2 ln 2 mse) bits, R-L1 pays by size. PMMP with the Gaussian loss prunes later.
_DENSE = {"gauss": (1.5, 150.0), "mse": (1.0, 300.0)}
_LATER = {("pmmp", "gauss"): 8.0}
_LOWER = (1 / 30, 1 / 5)  # down to next to no pruning, as shares of the dense part's least
_HIGHEST = 30.0  # prunes everything at any N


def alpha_grid(setting: Setting, method: str, count: int) -> list[float]:
    """Strengths, ascending: two below, one far above, the others closely around the best.

    In the units of the loss: bits a sample, or squared units of y. [0.0] for "none". Fewer than
    five are spread evenly between the extremes. Raises UsageError for fewer than two.
    """
    if method == "none":
        return [0.0]
    if count < 2:
        raise UsageError(f"alphas = {count}: at least 2 are needed")
    factor = _LATER.get((method, setting.loss), 1.0) / setting.n
    low, high = (factor * value for value in _DENSE[setting.loss])
    top = max(_HIGHEST, 2 * high)
    if count < 5:
        return [float(a) for a in np.geomspace(low * _LOWER[0], top, count)]
    dense = [float(a) for a in np.geomspace(low, high, count - 3)]
    return [*(low * share for share in _LOWER), *dense, top]


@dataclass(frozen=True)
class Plan:
    """What to run: settings, methods, seeds 0..seeds-1, alphas per method, penalised steps."""

    sizes: Sequence[int] = SIZES
    noises: Sequence[float] = NOISES
    losses: Sequence[str] = LOSSES
    methods: Sequence[str] = METHODS
    seeds: int = SEEDS
    alphas: int = ALPHAS
    steps: int = STEPS

    def __post_init__(self) -> None:
        """Validate; raises UsageError."""
        for what, given, known in (
            ("loss", self.losses, LOSSES),
            ("method", self.methods, METHODS),
        ):
            for name in given:
                if name not in known:
                    raise UsageError(f"unknown {what} {name!r}; choose from {', '.join(known)}")
        if not (self.sizes and self.noises and self.losses and self.methods):
            raise UsageError("nothing to run: a list of sizes, noises, losses or methods is empty")
        if min(self.sizes) < 2:
            raise UsageError(f"N = {min(self.sizes)}: at least 2 training samples are needed")
        if not all(math.isfinite(noise) and noise >= 0 for noise in self.noises):
            raise UsageError("the noise variance must be a finite number of at least 0")
        if self.seeds < 1 or self.steps < 1 or self.alphas < 2:
            raise UsageError("at least 1 seed, 1 step and 2 alphas are needed")

    def runs(self) -> Iterator[tuple[Setting, str]]:
        """Settings and methods in the order in which they are run, short ones first."""
        for n in self.sizes:
            for noise in self.noises:
                for loss in self.losses:
                    for method in self.methods:
                        yield Setting(n, noise, loss), method

    def key(self, setting: Setting, method: str) -> dict[str, Any]:
        """All that the result of a run depends on."""
        return {
            "n": setting.n,
            "noise": setting.noise,
            "loss": setting.loss,
            "method": method,
            "alphas": alpha_grid(setting, method, self.alphas),
            "seeds": self.seeds,
            "steps": self.steps,
        }


@dataclass(frozen=True)
class StudyResult:
    """table: what `table5.json` holds; plots: the files drawn."""

    table: dict[str, Any]
    plots: list[Path]


def run_study(
    plan: Plan,
    log: RunLog,
    *,
    workers: int = 1,
    on_progress: OnProgress = lambda *_: None,
) -> StudyResult:
    """Run what `log` lacks, then write table5.json and the figures beside it.

    workers: runs at a time, each on one thread. on_progress: phase "students", in units of
    estimated cost.
    """
    folder = log.path.parent
    runs = list(plan.runs())
    keys = [plan.key(*run) for run in runs]
    total = sum(_cost(key) for key in keys)
    # the long ones first, so that the workers end together
    missing = sorted((key for key in keys if log.find(key) is None), key=_cost, reverse=True)
    made = total - sum(_cost(key) for key in missing)

    def show(shares: Sequence[float]) -> None:
        done = made + sum(_cost(key) * s for key, s in zip(missing, shares, strict=True))
        going = [key for key, s in zip(missing, shares, strict=True) if 0 < s < 1]
        on_progress("students", done, total, _describe(going[-1]) if going else "")

    with closing(run_jobs(_train, missing, workers, show)) as finished:
        for key, record in finished:
            log.add(key, record)
    records = [log.find(plan.key(*run)) for run in runs]
    done = [record for record in records if record is not None]
    table = make_table(done)
    path = folder / TABLE_NAME
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return StudyResult(table, draw_figures(folder, done))


def _train(key: Key, report: Report) -> dict[str, Any]:
    """Train the students of `key`: what is logged."""
    setting = Setting(key["n"], key["noise"], key["loss"])
    started = time.monotonic()
    before = 1 / (1 + FINE_TUNING)

    def show(phase: str, done: float, total: float, note: str) -> None:
        part = done / total
        report(before + (1 - before) * part if phase == "fine-tune" else before * part)

    students = train_students(
        setting, key["method"], key["alphas"], range(key["seeds"]), key["steps"], show
    )
    return {"students": students, "seconds": round(time.monotonic() - started, 2)}


def _describe(key: Key) -> str:
    return f"N {key['n']}, noise {key['noise']:g}, {key['loss']}, {key['method']}"


def _cost(key: Key) -> float:
    """Relative time of a run: measured, a step takes 1 + 6e-4 per student and sample."""
    rows = min(key["n"], FULL_BATCH)
    return float(key["steps"] * (1 + 6e-4 * len(key["alphas"]) * key["seeds"] * rows))


def best_cell(record: Mapping[str, Any]) -> dict[str, Any]:
    """The cell of a run: median over seeds at the alpha of the least median (the lower of equals).

    Bytes by "uniform" with quartiles, "float32" at the same alpha, nnz, both errors.
    """
    key = record["key"]
    groups = [[s for s in record["students"] if s["alpha"] == a] for a in key["alphas"]]
    group = min(groups, key=lambda g: _median(g, "uniform_bytes"))
    low, high = (float(np.quantile([s["uniform_bytes"] for s in group], q)) for q in (0.25, 0.75))
    paper = PAPER.get((key["n"], key["noise"], key["loss"], key["method"]))
    found = _median(group, "uniform_bytes")
    return {
        **{name: key[name] for name in ("n", "noise", "loss", "method")},
        "alpha": group[0]["alpha"],
        "bytes": found,
        "low_bytes": low,
        "high_bytes": high,
        "iqr_bytes": high - low,
        "float32_bytes": _median(group, "float32_bytes"),
        "verbatim_bytes": 4 * 2 * key["n"],
        "nnz": _median(group, "nnz"),
        "train_mse": _median(group, "train_mse"),
        "test_mse": _median(group, "test_mse"),
        "paper_bytes": paper,
        "reproduced": None if paper is None else found <= CLOSE * paper,
    }


def _median(students: Iterable[Mapping[str, Any]], name: str) -> float:
    return float(np.median([student[name] for student in students]))


def make_table(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Table 5 as JSON: a cell per run beside the paper's, and how many are close or below."""
    cells = [best_cell(record) for record in records]
    judged = [cell["reproduced"] for cell in cells if cell["reproduced"] is not None]
    return {
        "schema": 1,
        "definition": DEFINITION,
        "cells": cells,
        "compared": len(judged),
        "within_10_percent_or_below": sum(judged),
        "seconds": round(sum(record["seconds"] for record in records), 1),
    }
