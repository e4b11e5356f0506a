"""TAMADE, threshold adaptive mask determination (Alg. 1, appendix B.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.masks import Masks, from_nonzero

MODES = ("loss", "accuracy")


class Thresholded(NamedTuple):
    """Result of the search: the threshold (in units of `scale`) and the masks that it left."""

    threshold: float
    masks: Masks


def rms_scales(params: Mapping[str, Tensor]) -> dict[str, float]:
    """Root mean square of the non-zero weights of each tensor; 1.0 for one without any.

    Zeros are left out, so that earlier pruning of a tensor does not lower its scale.
    """
    scales = {}
    for name, param in params.items():
        count = int(torch.count_nonzero(param))
        total = float(param.detach().double().square().sum())
        scales[name] = math.sqrt(total / count) if count else 1.0
    return scales


def _within(value: float, target: float, tolerance: float, mode: str) -> bool:
    """Is `value` good enough? NaN never is. Relative for a loss, absolute for an accuracy."""
    if mode == "accuracy":
        return value >= target - tolerance
    return value <= target + tolerance * abs(target)


class _Probe:
    """Cuts clones of the weights at a threshold into the parameters, or puts the clones back."""

    def __init__(self, params: Mapping[str, nn.Parameter], scales: Mapping[str, float]) -> None:
        self.params, self.scales = params, scales
        self.kept = {name: param.detach().clone() for name, param in params.items()}

    @torch.no_grad()
    def cut(self, threshold: float) -> None:
        """Write the original weights with |theta| <= threshold * scale set to 0."""
        for name, param in self.params.items():
            original = self.kept[name]
            alive = original.abs() > threshold * self.scales[name]
            param.copy_(torch.where(alive, original, torch.zeros_like(original)))

    @torch.no_grad()
    def restore(self) -> None:
        """Write the original weights, bit for bit."""
        for name, param in self.params.items():
            param.copy_(self.kept[name])

    def largest(self) -> float:
        """Largest |theta| / scale of all weights, the threshold that prunes everything."""
        tops = [
            float(original.abs().max()) / self.scales[name]
            for name, original in self.kept.items()
            if original.numel()
        ]
        return max(tops, default=0.0)


def _scales_for(
    params: Mapping[str, nn.Parameter], scale: str | Mapping[str, float]
) -> dict[str, float]:
    if isinstance(scale, str):
        if scale not in ("none", "rms"):
            raise UsageError(f"scale {scale!r} must be none, rms or a mapping")
        return rms_scales(params) if scale == "rms" else dict.fromkeys(params, 1.0)
    missing = [name for name in params if not scale.get(name, 0) > 0]
    if missing:
        raise UsageError(f"no positive scale for the parameter {missing[0]!r}")
    return {name: float(scale[name]) for name in params}


def find_threshold(
    params: Mapping[str, nn.Parameter],
    loss_fn: Callable[[], float],
    tolerance: float,
    target: float | None = None,
    mode: str = "loss",
    *,
    steps: int = 20,
    low: float = 0.0,
    high: float | None = None,
    resolution: float = 1e-7,
    scale: str | Mapping[str, float] = "none",
    on_probe: Callable[[float, float, bool], None] | None = None,
) -> Thresholded:
    """Prune by the largest magnitude threshold that the loss tolerates; Alg. 1.

    params: those to prune; leave out whoever must not be cut (norms, biases).
    loss_fn: evaluates the model as it stands, always on the same data, and returns the loss, or
        the accuracy with mode="accuracy". It must not change the parameters.
    tolerance: a threshold is accepted when loss <= target + tolerance * |target| (relative), or
        accuracy >= target - tolerance (absolute).
    target: by default what loss_fn gives before pruning.
    steps: most probes; the search also ends when high - low <= resolution. Each probe is one
        call of loss_fn and halves the interval.
    low, high: ends of the search, in units of `scale`; high defaults to the largest weight.
    scale: "none": the threshold is a magnitude; "rms": a multiple of the root mean square of each
        tensor's non-zero weights; or a positive number per name (a quantisation step, say).
    on_probe: called with (threshold, value, accepted) after each probe.

    Weights with |theta| <= threshold * scale are zero afterwards, the others keep every bit. If
    loss_fn raises, the weights are restored and the exception goes on. If nothing is accepted,
    the result is `low`, unprobed as in Alg. 1. Raises UsageError on bad arguments or a target
    that is not finite.
    """
    if mode not in MODES:
        raise UsageError(f"mode {mode!r} must be one of {', '.join(MODES)}")
    if not (tolerance >= 0 and steps >= 0 and low >= 0 and resolution >= 0):
        raise UsageError("tolerance, steps, low and resolution must be at least 0")
    probe = _Probe(params, _scales_for(params, scale))
    target = loss_fn() if target is None else target
    if not math.isfinite(target):
        raise UsageError(f"cannot prune: the {mode} to hold is {target}")
    high = probe.largest() if high is None else high
    best = low
    try:
        for _ in range(steps):
            if high - low <= resolution:
                break
            middle = (low + high) / 2
            probe.cut(middle)
            value = float(loss_fn())
            accepted = _within(value, target, tolerance, mode)
            if on_probe is not None:
                on_probe(middle, value, accepted)
            if accepted:
                best = low = middle
            else:
                high = middle
    except BaseException:
        probe.restore()
        raise
    probe.cut(best)
    return Thresholded(best, from_nonzero(params))
