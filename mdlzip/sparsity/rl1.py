"""R-L1, relaxed l1 regularisation (section 3.5 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor

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


class RelaxedL1(Method):
    """R-L1: loss + alpha * sum |theta|, gradient alpha * sign(theta) (section 3.5).

    Every weight is pulled to zero with the same force. "Relaxed": once the active set has settled,
    the penalty is dropped and the survivors are fine-tuned, which takes the shrinkage bias away;
    that part belongs to the schedule and the training loop.
    """

    name = "rl1"

    @torch.no_grad()
    def add_to_gradients(self, alpha: Alpha) -> None:
        """Add alpha * sign(theta); a weight that is exactly zero gets nothing."""
        check_alpha(alpha)
        if is_off(alpha):
            return
        signs = list(torch._foreach_sign(self.params))
        add_scaled_(gradients_of(self.params), signs, alpha)

    @torch.no_grad()
    def shrink(self, alpha: Alpha, lr: LearningRate) -> None:
        """Soft threshold by lr * alpha, the exact proximal step: exact zeros, no crossing."""
        check_alpha(alpha)
        if is_off(alpha):
            return
        soft_threshold_(self.params, [alpha * rate_of(lr, name) for name in self.names])

    def penalty(self) -> Tensor:
        """Sum of |theta|."""
        return torch.stack([entry.sum() for entry in self.entries()]).sum()

    def entries(self) -> list[Tensor]:
        """|theta| of every weight."""
        return [param.abs() for param in self.params]
