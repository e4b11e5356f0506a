"""When a loss curve has converged (appendix C.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mdlzip.errors import UsageError


def default_bandwidth(n: int) -> float:
    """Kernel half-width for n points on [0, 1]: n^(-1/5) n^(-3/35) ln(n)^(-1/16), at most 1.

    The rule of the collocation method that the paper takes its smoothing from.
    """
    if n < 3:
        return 1.0
    return min(1.0, n ** (-1 / 5) * n ** (-3 / 35) * math.log(n) ** (-1 / 16))


def smooth(values: Sequence[float] | np.ndarray, bandwidth: float | None = None) -> np.ndarray:
    """Local linear fit to equally spaced values under an Epanechnikov kernel; float64, same length.

    bandwidth: half-width of the kernel 3/4 (1 - d^2) as a fraction of the whole span. A straight
    line comes back unchanged. Where the kernel covers one point only, that point comes back.
    """
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    if n < 2:
        return data.copy()
    time = np.linspace(0.0, 1.0, n)
    width = default_bandwidth(n) if bandwidth is None else bandwidth
    if not width > 0:
        raise UsageError(f"bandwidth = {bandwidth!r} must be above 0")
    gaps = time[None, :] - time[:, None]  # row i: distance of every point from point i
    kernel = np.clip(0.75 * (1 - (gaps / width) ** 2), 0.0, None)
    # Weighted least squares of a line around each point; its value there is the first coefficient.
    s0, s1, s2 = (np.sum(kernel * gaps**power, axis=1) for power in range(3))
    t0, t1 = np.sum(kernel * data, axis=1), np.sum(kernel * gaps * data, axis=1)
    bottom = s0 * s2 - s1 * s1
    lonely = bottom <= 1e-12 * np.maximum(s0 * s2, 1e-300)
    return np.where(lonely, t0 / s0, (s2 * t0 - s1 * t1) / np.where(lonely, 1.0, bottom))


def has_converged(losses: Sequence[float], window: int, tolerance: float = 0.0) -> bool:
    """Has the curve stopped falling, up to its own noise? (appendix C.3)

    losses: one value per epoch (or check), oldest first; any constant unit.
    window: even, >= 4. With fewer values the answer is False. The last `window` values are
        split into halves; converged when mean(first) - mean(second) <= s + tolerance, where s is
        the smaller standard deviation of the two halves around their smoothed curves.
    Raises UsageError for a bad window or tolerance; values that are not finite never converge.
    """
    if window < 4 or window % 2:
        raise UsageError(f"window = {window} must be an even number of at least 4")
    if not tolerance >= 0:
        raise UsageError(f"tolerance = {tolerance!r} must be at least 0")
    if len(losses) < window:
        return False
    last = np.asarray(losses[-window:], dtype=np.float64)
    if not np.isfinite(last).all():
        return False
    first, second = last[: window // 2], last[window // 2 :]
    noise = min(float(np.std(half - smooth(half))) for half in (first, second))
    return bool(first.mean() - second.mean() <= noise + tolerance)
