"""Figures 1a, 4 and 5 of the paper, from the runs of the teacher-student study."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdlzip.studies.plots import Axes, Curve, adaptive_bins, draw
from mdlzip.studies.students.training import BYTES_OF_SIGMAS

LABELS = {"pmmp": "PMMP", "drr": "DRR", "rl1": "R-L1", "none": "unpruned"}
FIGURE_1A = (300, 0.08, "gauss")
EMPTY_BYTES = 2.0  # where a model without weights stands on a logarithmic axis
LEAST_POINTS = 5  # in a bin; the paper has at least 10, of many more runs
BYTES_PER_TARGET = 4  # verbatim float32


def draw_figures(folder: Path, records: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write fig4-* and fig5-* of every setting and loss, and fig1a; the paths."""
    groups: dict[tuple[int, float, str], list[Mapping[str, Any]]] = {}
    for record in records:
        key = record["key"]
        groups.setdefault((key["n"], key["noise"], key["loss"]), []).append(record)
    paths = []
    for setting, members in groups.items():
        n, noise, loss = setting
        name = f"n{n}-noise{noise:g}-{loss}"
        if setting == FIGURE_1A:
            paths += _loss_against_size(folder / "fig1a", setting, members)
        paths += _loss_against_size(folder / f"fig4-{name}", setting, members)
        paths += _length_against_alpha(folder / f"fig5-{name}", setting, members)
    return paths


def _title(setting: tuple[int, float, str]) -> str:
    n, noise, loss = setting
    return f"N = {n}, noise variance {noise:g}, {'Gaussian loss' if loss == 'gauss' else 'MSE'}"


def _loss_against_size(
    base: Path, setting: tuple[int, float, str], records: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Figures 1a and 4: test error against model bytes, bins with quartiles, isolines."""
    curves, cells = [], []
    for record in records:
        method, students = record["key"]["method"], record["students"]
        sizes = [max(float(s["model_bytes"]), EMPTY_BYTES) for s in students]
        errors = [float(s["test_mse"]) for s in students]
        cells += [float(s["cell"]) for s in students]
        bins = adaptive_bins(sizes, errors, least=LEAST_POINTS)
        x, y = [b.x for b in bins], [b.median for b in bins]
        low, high = [b.low for b in bins], [b.high for b in bins]
        curves.append(Curve(LABELS[method], x, y, low, high, line=method != "none"))
    axes = Axes(
        x=f"model, bytes (an empty one at {EMPTY_BYTES:g})",
        y="test loss, mean squared error",
        title=_title(setting),
        x_log=True,
        y_log=True,
        isolines=description_length(setting[0], float(np.median(cells))),
        isolines_label="description length in bytes, training as well coded as test",
    )
    return draw(base, axes, curves)


def description_length(n: int, cell: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Bytes of a model of x bytes with mean squared error y on both sets of n targets each."""

    def length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        bits = 0.5 * np.log2(2 * math.pi * math.e * y) - math.log2(cell)
        return x + BYTES_OF_SIGMAS + 2 * n * np.maximum(bits, 0.0) / 8

    return length


def _length_against_alpha(
    base: Path, setting: tuple[int, float, str], records: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Figure 5: description length against alpha, medians and quartiles over seeds."""
    curves = []
    for record in records:
        key = record["key"]
        if key["method"] == "none":
            continue
        of = [[s["uniform_bytes"] for s in record["students"] if s["alpha"] == a]
              for a in key["alphas"]]  # fmt: skip
        low, middle, high = ([float(np.quantile(g, q)) for g in of] for q in (0.25, 0.5, 0.75))
        curves.append(Curve(LABELS[key["method"]], key["alphas"], middle, low, high))
    axes = Axes(
        x="alpha, units of the loss",
        y="description length of training and test, bytes",
        title=_title(setting),
        x_log=True,
        levels_y={"verbatim": float(BYTES_PER_TARGET * 2 * setting[0])},
    )
    return draw(base, axes, curves)
