"""Code lengths of the paper that are not an archive's: of real numbers, and of learning itself.

Lengths are in bits unless a name says nats or bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mdlzip.errors import UsageError


def gaussian_bits(residuals: np.ndarray, sigma: float) -> np.ndarray:
    """-log2 of the density N(0, sigma^2) at each of `residuals` (eq. 6 and 16), float64.

    Negative where the density exceeds 1. Raises UsageError unless sigma > 0.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise UsageError(f"sigma = {sigma!r} must be above 0")
    squares = np.square(np.asarray(residuals, np.float64))
    return 0.5 * math.log2(2 * math.pi * sigma**2) + squares / (2 * math.log(2) * sigma**2)


def best_sigma(residuals: np.ndarray) -> float:
    """The sigma with the least sum of `gaussian_bits`: the root mean square of the residuals."""
    return math.sqrt(float(np.mean(np.square(np.asarray(residuals, np.float64)))))


def float32_spacing(values: np.ndarray) -> np.ndarray:
    """Distance from each value to the next float32 away from zero: the A_i of eq. 14."""
    return np.spacing(np.abs(np.asarray(values, np.float32))).astype(np.float64)


def regression_bits(
    targets: np.ndarray, residuals: np.ndarray, sigma: float, *, cell: float | None = None
) -> float:
    """Bits of float32 `targets` given the model whose errors are `residuals` (eq. 14 to 16).

    The density is turned into probabilities of cells as wide as float32 is fine at each target:
    -sum log2(A_i p(y_i)). The log2(N) of eq. 15, which says which sample it is, is left out: the
    order of the samples is known. A cell never costs less than nothing.

    cell: one width > 0 for all targets, the uniform spacing of appendix A.2, in place of float32's.
    """
    cells = float32_spacing(targets) if cell is None else np.float64(cell)
    bits = gaussian_bits(residuals, sigma) - np.log2(cells)
    return float(np.maximum(bits, 0.0).sum())


@dataclass(frozen=True)
class PowerLaw:
    """loss = a (x - offset)^b, x in units of the training log, loss in nats (eq. 37)."""

    a: float
    b: float
    offset: float = 1.0

    def __call__(self, x: float) -> float:
        """The loss at x > offset."""
        return self.a * (x - self.offset) ** self.b

    def area(self, stop: float) -> float:
        """Integral from `offset` to `stop`, the online code length (eq. 38); needs b > -1."""
        if self.b <= -1:
            raise UsageError(f"the area under a power law of exponent {self.b} is not finite")
        return self.a / (self.b + 1) * (stop - self.offset) ** (self.b + 1)
