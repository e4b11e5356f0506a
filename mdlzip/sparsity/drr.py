"""DRR, smooth relaxations of the l0 norm (section 3.5 and eq. 36), and its original form DRR-O."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.base import (
    Alpha,
    LearningRate,
    Method,
    add_scaled_,
    check_alpha,
    gradients_of,
    is_off,
    rate_of,
    soft_threshold_,
)

LAYERWISE = ("none", "units", "cells")
SMALLEST_RMS = 1e-12  # keeps a tensor of nothing but zeros from dividing by zero


class Relaxation(NamedTuple):
    """A smooth stand-in for [x != 0], as functions of the size x = |theta| >= 0 and of beta.

    value: one size tensor -> values in [0, 1); differentiable.
    slopes: list of size tensors -> their derivatives >= 0, as new tensors.
    """

    beta: float
    value: Callable[[Tensor, float], Tensor]
    slopes: Callable[[list[Tensor], float], list[Tensor]]


def _exponential(size: Tensor, beta: float) -> Tensor:
    return -torch.expm1(-beta * size)


def _exponential_slopes(sizes: list[Tensor], beta: float) -> list[Tensor]:
    slopes = list(torch._foreach_mul(sizes, -beta))
    torch._foreach_exp_(slopes)
    torch._foreach_mul_(slopes, beta)
    return slopes


def _gaussian(size: Tensor, beta: float) -> Tensor:
    return -torch.expm1(-size.square() / (2 * beta**2))


def _gaussian_slopes(sizes: list[Tensor], beta: float) -> list[Tensor]:
    slopes = list(torch._foreach_mul(sizes, sizes))
    torch._foreach_mul_(slopes, -0.5 / beta**2)
    torch._foreach_exp_(slopes)
    torch._foreach_mul_(slopes, sizes)
    torch._foreach_mul_(slopes, 1 / beta**2)
    return slopes


def _student(size: Tensor, beta: float) -> Tensor:
    return 1 - 1 / (1 + size.square() / (3 * beta**2))


def _student_slopes(sizes: list[Tensor], beta: float) -> list[Tensor]:
    bases = list(torch._foreach_mul(sizes, sizes))
    torch._foreach_mul_(bases, 1 / (3 * beta**2))
    torch._foreach_add_(bases, 1.0)
    torch._foreach_mul_(bases, bases)
    slopes = list(torch._foreach_div(sizes, bases))
    torch._foreach_mul_(slopes, 2 / (3 * beta**2))
    return slopes


RELAXATIONS = {
    "exponential": Relaxation(5.0, _exponential, _exponential_slopes),
    "gaussian": Relaxation(0.2, _gaussian, _gaussian_slopes),
    "student": Relaxation(0.2, _student, _student_slopes),
}
"""The three lines of eq. 36. Mind beta: a rate (1/width) in the first, a width in the others."""


def units_of(param: Tensor) -> int:
    """Neurons of a matrix (rows), kernels of a convolution (out x in), entries of a vector."""
    if param.ndim >= 3:
        return param.shape[0] * param.shape[1]
    return param.shape[0] if param.ndim else 1


class SmoothL0(Method):
    """DRR: loss + alpha * sum (1 - exp(-beta |theta|)) (section 3.5; first line of eq. 36).

    Gradient alpha * beta * exp(-beta |theta|) * sign(theta): strong on small weights, nothing on
    large ones, so survivors are hardly shrunk. Options:

    beta: steepness; None means 5 for "exponential" (the paper's; 25 for LeNet-5-Caffe), 0.2 for
        the others, where it is a width.
    relaxation: "exponential", or the other lines of eq. 36: "gaussian" 1 - exp(-theta^2 /
        (2 beta^2)), "student" 1 - 1 / (1 + theta^2 / (3 beta^2)). Their slope is 0 at 0: their
        `shrink` comes arbitrarily close to zero but never gives exact zeros.
    relative: theta / rms(its tensor) in place of theta, the rms taken as a constant of the
        step, so that beta means the same for tensors of different scale.
    rho: l2 term rho * sum theta^2 of DRR-O; it does not follow alpha.
    layerwise: the NORM of DRR-O: alpha and rho of each tensor divided by its number of units
        ("units": neurons or convolution kernels) or of entries ("cells"), then scaled so that
        the mean over all weights is 1 and alpha stays comparable with "none".
    """

    name = "drr"

    def __init__(
        self,
        beta: float | None = None,
        relaxation: str = "exponential",
        relative: bool = False,
        rho: float = 0.0,
        layerwise: str = "none",
    ) -> None:
        super().__init__()
        if relaxation not in RELAXATIONS:
            raise UsageError(f"relaxation {relaxation!r} must be one of {', '.join(RELAXATIONS)}")
        if layerwise not in LAYERWISE:
            raise UsageError(f"layerwise {layerwise!r} must be one of {', '.join(LAYERWISE)}")
        self.relaxation = RELAXATIONS[relaxation]
        self.beta = self.relaxation.beta if beta is None else float(beta)
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise UsageError(f"beta = {beta!r} must be above 0")
        if not (math.isfinite(rho) and rho >= 0):
            raise UsageError(f"rho = {rho!r} must be at least 0")
        self.relative, self.rho, self.layerwise = relative, float(rho), layerwise
        self.weights: list[float] = []

    def attach(self, named_params: Mapping[str, nn.Parameter]) -> None:
        """Set the parameters and work out the layerwise factors."""
        super().attach(named_params)
        count = {"none": lambda _: 1, "units": units_of, "cells": lambda p: p.numel()}
        raw = [1 / max(1, count[self.layerwise](param)) for param in self.params]
        cells = [param.numel() for param in self.params]
        mean = sum(r * n for r, n in zip(raw, cells, strict=True)) / max(1, sum(cells))
        self.weights = [r / mean for r in raw]

    def _scales(self) -> list[Tensor] | None:
        """Rms of each tensor if `relative`, a scalar tensor each; None otherwise."""
        if not self.relative:
            return None
        norms = torch._foreach_norm([param.detach() for param in self.params])
        roots = [max(1, param.numel()) ** 0.5 for param in self.params]
        return [(n / r).clamp_min(SMALLEST_RMS) for n, r in zip(norms, roots, strict=True)]

    def _forces(self) -> list[Tensor]:
        """|d penalty / d theta| per unit of alpha, as new tensors of the parameters' shapes."""
        sizes, scales = list(torch._foreach_abs(self.params)), self._scales()
        if scales is not None:
            torch._foreach_div_(sizes, scales)
        forces = self.relaxation.slopes(sizes, self.beta)
        if scales is not None:
            torch._foreach_div_(forces, scales)
        if self.layerwise != "none":
            torch._foreach_mul_(forces, self.weights)
        return forces

    @torch.no_grad()
    def add_to_gradients(self, alpha: Alpha) -> None:
        """Add alpha * slope(|theta|) * sign(theta) and, with rho, 2 * rho * theta."""
        check_alpha(alpha)
        grads = gradients_of(self.params)
        if not is_off(alpha):
            forces = self._forces()
            torch._foreach_mul_(forces, list(torch._foreach_sign(self.params)))
            add_scaled_(grads, forces, alpha)
        if self.rho:
            decay = torch._foreach_mul(self.params, [2 * self.rho * w for w in self.weights])
            torch._foreach_add_(grads, list(decay))

    @torch.no_grad()
    def shrink(self, alpha: Alpha, lr: LearningRate) -> None:
        """Soft threshold by lr * alpha * slope(|theta|): the penalty linearised at theta.

        It is the proximal step of the tangent, which lies above the concave penalty, hence
        never crosses zero. With rho the exact proximal step of the l2 term follows.
        """
        check_alpha(alpha)
        rates = [rate_of(lr, name) for name in self.names]
        if not is_off(alpha):
            forces = self._forces()
            scales: Any = [alpha * rate for rate in rates]
            torch._foreach_mul_(forces, scales)
            soft_threshold_(self.params, forces)
        if self.rho:
            pairs = zip(rates, self.weights, strict=True)
            torch._foreach_div_(self.params, [1 + 2 * self.rho * r * w for r, w in pairs])

    def _indicators(self) -> list[Tensor]:
        """The relaxed indicator of every weight."""
        sizes, scales = [param.abs() for param in self.params], self._scales()
        if scales is not None:
            sizes = [size / scale for size, scale in zip(sizes, scales, strict=True)]
        return [self.relaxation.value(size, self.beta) for size in sizes]

    def penalty(self) -> Tensor:
        """Sum of the relaxed indicator (times the layerwise factors): about the l0 norm."""
        parts = zip(self._indicators(), self.weights, strict=True)
        return torch.stack([w * value.sum() for value, w in parts]).sum()

    def entries(self) -> list[Tensor]:
        """The relaxed indicator of every weight, times its layerwise factor."""
        return [w * value for value, w in zip(self._indicators(), self.weights, strict=True)]

    def objective(self, alpha: Alpha) -> Tensor:
        """Give alpha * penalty + rho * sum theta^2 (times the layerwise factors)."""
        pairs = zip(self.params, self.weights, strict=True)
        squares = torch.stack([w * param.square().sum() for param, w in pairs]).sum()
        return super().objective(alpha) + self.rho * squares


class OriginalDRR(SmoothL0):
    """DRR-O: DRR with the l2 term and layerwise NORM switched on (section 3.5).

    The paper gives neither rho nor the formula of NORM, only that it scales alpha and rho with
    the size of the layer; see `SmoothL0` for the reading that is used here.
    """

    name = "drr-o"

    def __init__(
        self,
        beta: float | None = None,
        relaxation: str = "exponential",
        relative: bool = False,
        rho: float = 1e-5,
        layerwise: str = "units",
    ) -> None:
        super().__init__(beta, relaxation, relative, rho, layerwise)
