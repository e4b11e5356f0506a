"""First-order updates of a method's own variables, small enough to sit in a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor

from mdlzip.errors import UsageError

UPDATES = ("adam", "sgd")
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Updater:
    """Adam or plain gradient steps on a list of tensors, in place; descent or ascent.

    kind: "adam" (bias-corrected, betas 0.9 and 0.999) or "sgd" (no momentum, no state).
    """

    def __init__(self, values: list[Tensor], kind: str) -> None:
        if kind not in UPDATES:
            raise UsageError(f"update {kind!r} must be one of {', '.join(UPDATES)}")
        self.values, self.kind = values, kind
        adam = kind == "adam"
        self.first = [torch.zeros_like(value) for value in values] if adam else []
        self.second = [torch.zeros_like(value) for value in values] if adam else []
        self.steps = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, gradients: list[Tensor], rates: list[float]) -> None:
        """Move each value by -rate times its (normalised) gradient; a rate < 0 ascends."""
        self.steps += 1
        moves = list(gradients)
        if self.kind == "adam":
            count = int(self.steps)
            torch._foreach_lerp_(self.first, gradients, 1 - BETAS[0])
            squares = list(torch._foreach_mul(gradients, gradients))
            torch._foreach_lerp_(self.second, squares, 1 - BETAS[1])
            bottoms = list(torch._foreach_div(self.second, 1 - BETAS[1] ** count))
            torch._foreach_sqrt_(bottoms)
            torch._foreach_add_(bottoms, EPSILON)
            moves = list(torch._foreach_div(self.first, bottoms))
            torch._foreach_div_(moves, 1 - BETAS[0] ** count)
        scaled = torch._foreach_mul(moves, [-rate for rate in rates])
        torch._foreach_add_(self.values, list(scaled))

    def state(self, names: list[str]) -> dict[str, Tensor]:
        """Moments and step count; `names` name the values in order."""
        state = {"steps": self.steps}
        for kind, tensors in (("first", self.first), ("second", self.second)):
            state |= {f"{kind}.{name}": t for name, t in zip(names, tensors, strict=False)}
        return state
