"""Plots of the studies, as SVG and PNG; matplotlib (extra `studies`) is loaded only here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_SIZE_INCHES = (6.4, 4.4)
_DOTS_PER_INCH = 150
_GRID = 160  # points a side on which isolines are evaluated
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass(frozen=True)
class Curve:
    """Points of one method; `low` and `high`, if given, are the edges of an error tube.

    line: join the points in order of x; without it they are crosses.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    line: bool = True


@dataclass(frozen=True)
class Axes:
    """Labels with units, scales, and the isolines: a function of arrays x and y, and its name."""

    x: str
    y: str
    title: str = ""
    x_log: bool = False
    y_log: bool = False
    isolines: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    isolines_label: str = ""
    levels_y: dict[str, float] = field(default_factory=dict)


class Bin(NamedTuple):
    """Median and quartiles of the points of one bin, and the median of their x."""

    x: float
    median: float
    low: float
    high: float


def adaptive_bins(
    x: Sequence[float], y: Sequence[float], *, least: int = 10, width: float = 0.1
) -> list[Bin]:
    """Bins along x of at least `least` points and at least `width` in log10 x (appendix D.1).

    x > 0. What is left over at the right end joins the last bin; fewer than `least` points in all
    are one bin.
    """
    order = np.argsort(np.asarray(x, np.float64), kind="stable")
    xs, ys = np.asarray(x, np.float64)[order], np.asarray(y, np.float64)[order]
    edges = [0]
    for i in range(1, len(xs)):
        start = edges[-1]
        if i - start >= least and np.log10(xs[i - 1] / xs[start]) >= width and xs[i] > xs[i - 1]:
            edges.append(i)
    if len(edges) > 1 and len(xs) - edges[-1] < least:
        edges.pop()
    pairs = zip(edges, [*edges[1:], len(xs)], strict=True)
    groups = [(xs[a:b], ys[a:b]) for a, b in pairs if b > a]
    return [
        Bin(float(np.median(gx)), *(float(np.quantile(gy, q)) for q in (0.5, 0.25, 0.75)))
        for gx, gy in groups
    ]


def draw(base: Path, axes: Axes, curves: Sequence[Curve]) -> list[Path]:
    """Write base.svg and base.png and give their paths; curves without points are left out."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    plot = figure.add_subplot()
    for i, curve in enumerate(c for c in curves if len(c.x)):
        order = np.argsort(np.asarray(curve.x), kind="stable")
        colour = _COLOURS[i % len(_COLOURS)]
        x, y = np.asarray(curve.x)[order], np.asarray(curve.y)[order]
        marker, joined = ("o", "-") if curve.line else ("x", "")
        plot.plot(
            x, y, color=colour, label=curve.label, marker=marker, linestyle=joined, markersize=4
        )
        if curve.low is not None and curve.high is not None:
            low, high = np.asarray(curve.low)[order], np.asarray(curve.high)[order]
            plot.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    plot.set(xlabel=axes.x, ylabel=axes.y, title=axes.title)
    plot.set_xscale("log" if axes.x_log else "linear")
    plot.set_yscale("log" if axes.y_log else "linear")
    for label, level in axes.levels_y.items():
        plot.axhline(level, color="0.4", linestyle="--", linewidth=1)
        plot.annotate(
            label, (0.99, level), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            xytext=(0, 2), textcoords="offset points",
        )  # fmt: skip
    if axes.isolines is not None and any(len(c.x) for c in curves):
        _isolines(plot, axes)
    if any(len(c.x) for c in curves):
        plot.legend(frameon=False)
    paths = [base.with_name(base.name + suffix) for suffix in (".svg", ".png")]
    for path in paths:
        # No date and fixed ids: the same runs give the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        with rc_context({"svg.hashsalt": base.name}):
            figure.savefig(path, dpi=_DOTS_PER_INCH, metadata=metadata)
    return paths


def _isolines(plot: Any, axes: Axes) -> None:
    """Lines of equal `axes.isolines` over the area that the points take up, with their values."""
    assert axes.isolines is not None
    spans = []
    for limits, log in ((plot.get_xlim(), axes.x_log), (plot.get_ylim(), axes.y_log)):
        low, high = limits
        spans.append(
            np.geomspace(max(low, 1e-12), high, _GRID) if log else np.linspace(low, high, _GRID)
        )
    grid_x, grid_y = np.meshgrid(*spans)
    values = np.asarray(axes.isolines(grid_x, grid_y))
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if not (np.isfinite([low, high]).all() and high > low):
        return
    lines = plot.contour(
        grid_x, grid_y, values, levels=_levels(low, high), cmap="viridis", linewidths=0.7
    )
    plot.clabel(lines, fontsize=7, fmt=lambda v: f"{v:,.0f}" if v >= 1000 else f"{v:.4g}")
    if axes.isolines_label:
        words = f"thin lines: {axes.isolines_label}"
        plot.text(0.01, 0.01, words, fontsize=7, transform=plot.transAxes)


def _levels(low: float, high: float) -> np.ndarray:
    """Some ten values between low and high: round ones, or where they span decades, even ratios."""
    from matplotlib.ticker import MaxNLocator

    if 0 < 10 * low < high:
        return np.geomspace(low, high, 10)[1:-1]
    values = np.asarray(MaxNLocator(10).tick_values(low, high))
    return values[(values > low) & (values < high)]
