"""How the strength alpha of the penalty moves over a run (appendix C.1, dynamic schedules)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mdlzip.errors import UsageError
from mdlzip.sparsity.base import check_alpha

RAMPS = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class AlphaSchedule:
    """Strength of the penalty at a progress between 0 and 1.

    alpha: the full strength, >= 0.
    start, stop: the penalty is on for start <= progress <= stop and 0 elsewhere; `start` > 0 is
    a phase without regularisation, `stop` < 1 the relaxed phase of R-L1.
    warmup: length of the climb from 0 to alpha after `start`, as a fraction of the whole run; a
    climb longer than stop - start is cut off by `stop`.
    ramp: shape of the climb: "linear", "cosine" (flat at both ends), or "constant" (no climb: the
    full strength at once, 0 during warmup).
    """

    alpha: float
    warmup: float = 0.0
    ramp: str = "linear"
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        """Validate; raises UsageError."""
        check_alpha(self.alpha)
        if self.ramp not in RAMPS:
            raise UsageError(f"ramp {self.ramp!r} must be one of {', '.join(RAMPS)}")
        if not 0 <= self.start <= self.stop <= 1:
            raise UsageError(f"schedule needs 0 <= start <= stop <= 1: {self.start}, {self.stop}")
        if not 0 <= self.warmup <= 1:
            raise UsageError(f"warmup = {self.warmup!r} is outside 0..1")

    def __call__(self, progress: float) -> float:
        """Strength at `progress`, the fraction of the run that is done; clamped to 0..1."""
        progress = min(max(progress, 0.0), 1.0)
        if not self.start <= progress <= self.stop:
            return 0.0
        climbed = progress - self.start
        if climbed >= self.warmup:
            return self.alpha
        if self.ramp == "constant":
            return 0.0
        share = climbed / self.warmup
        return self.alpha * (
            share if self.ramp == "linear" else 0.5 - 0.5 * math.cos(math.pi * share)
        )
