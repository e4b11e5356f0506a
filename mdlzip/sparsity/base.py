"""The interface of every l0 method, and the few tensor helpers that they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.masks import Masks, from_nonzero

LearningRate = Mapping[str, float] | float
Alpha: TypeAlias = float | Tensor
"""Strength of a penalty: one number, or a tensor of the parameters' dtype that broadcasts to each.

A tensor is for many small models trained as one: with parameters of shape [S, out, in], an alpha
of shape [S, 1, 1] gives each of the S models its own strength. Figures of a whole tensor (DRR's
`relative` and `layerwise`) are then taken over all S.
"""


def check_alpha(alpha: Alpha) -> None:
    """Raise UsageError unless the strength `alpha` is finite and not negative, all of a tensor."""
    if isinstance(alpha, Tensor):
        if not bool((torch.isfinite(alpha) & (alpha >= 0)).all()):
            raise UsageError("every alpha must be a finite number of at least 0")
    elif not (math.isfinite(alpha) and alpha >= 0):
        raise UsageError(f"alpha = {alpha!r} must be a finite number of at least 0")


def is_off(alpha: Alpha) -> bool:
    """Whether there is nothing to do: the number 0. A tensor is never looked into for that."""
    return not isinstance(alpha, Tensor) and alpha == 0


def add_scaled_(totals: list[Tensor], terms: list[Tensor], alpha: Alpha) -> None:
    """Add alpha * term to each total; with a tensor alpha the terms are overwritten."""
    if isinstance(alpha, Tensor):
        torch._foreach_mul_(terms, [alpha] * len(terms))
        torch._foreach_add_(totals, terms)
    else:
        torch._foreach_add_(totals, terms, alpha=alpha)


def rate_of(lr: LearningRate, name: str) -> float:
    """Learning rate of the parameter `name`; raises UsageError if a mapping does not hold it."""
    if not isinstance(lr, Mapping):
        return float(lr)
    if name not in lr:
        raise UsageError(f"no learning rate for the parameter {name!r}")
    return float(lr[name])


def gradients_of(params: list[Tensor]) -> list[Tensor]:
    """The `.grad` of each parameter; a missing one is created as zeros, since a penalty has one."""
    grads = []
    for param in params:
        if param.grad is None:
            param.grad = torch.zeros_like(param)
        grads.append(param.grad)
    return grads


def soft_threshold_(params: list[Tensor], limits: Sequence[Alpha]) -> None:
    """Move every weight towards zero by its limit (>= 0), never across: |p| <= limit becomes 0.

    limits: per tensor a number, or a tensor that broadcasts against it. What is
    subtracted is the weight itself clamped to [-limit, limit], so the zeros are exact.
    """
    lows: Any = [-limit for limit in limits]
    highs: Any = list(limits)
    excess = torch._foreach_clamp_max(params, highs)
    torch._foreach_clamp_min_(excess, lows)
    torch._foreach_sub_(params, excess)


class Method(ABC):
    """An l0 method: attached once to the regularised parameters, then called at every step.

    Coupled form (as the paper, with Adam):
        loss.backward(); method.add_to_gradients(alpha); optimiser.step(); method.advance(alpha, lr)
    Decoupled, proximal form (for optimisers that rescale gradients, such as Muon):
        loss.backward(); optimiser.step(); method.shrink(alpha, lr); method.advance(alpha, lr)

    `advance` lets a method with variables of its own update them; R-L1 and DRR have none and the
    call costs nothing. `alpha` is in units of the loss per unit of penalty: with a loss in nats
    per symbol, alpha * penalty is in nats per symbol too. It may be a tensor, see `Alpha`.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self.names: list[str] = []
        self.params: list[Tensor] = []

    def attach(self, named_params: Mapping[str, nn.Parameter]) -> None:
        """Set the parameters that are regularised; raises UsageError if there are none."""
        if not named_params:
            raise UsageError(f"method {self.name}: no parameters to regularise")
        self.names = list(named_params)
        self.params = list(named_params.values())

    @abstractmethod
    def add_to_gradients(self, alpha: Alpha) -> None:
        """Add the penalty's gradient to every `.grad`, which is created where it is missing."""

    @abstractmethod
    def shrink(self, alpha: Alpha, lr: LearningRate) -> None:
        """Apply the penalty to the weights themselves, after the optimiser's step.

        lr: the step's learning rate, one number or one per parameter name.
        """

    @abstractmethod
    def penalty(self) -> Tensor:
        """The penalty per unit of alpha: a scalar, differentiable where it depends on theta."""

    @abstractmethod
    def entries(self) -> list[Tensor]:
        """The penalty weight by weight, tensors of the parameters' shapes: `penalty` is the sum."""

    def objective(self, alpha: Alpha) -> Tensor:
        """Everything that the method adds to the loss at strength `alpha`, differentiable."""
        if isinstance(alpha, Tensor):
            return weighted_sum(self.entries(), alpha)
        return self.penalty() * alpha

    def advance(self, alpha: Alpha, lr: LearningRate) -> None:  # noqa: B027
        """Update the method's own variables after a step; nothing for methods without any."""

    def final_masks(self) -> Masks:
        """Who survives; by default every weight that is not exactly zero now."""
        return from_nonzero(self.named())

    def named(self) -> dict[str, Tensor]:
        """The attached parameters by name."""
        return dict(zip(self.names, self.params, strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """The method's own variables for checkpoints: the live tensors, not copies."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave; raises UsageError on wrong keys or shapes."""
        fill_from(self.state_dict(), state, self.name)


def weighted_sum(entries: list[Tensor], alpha: Tensor) -> Tensor:
    """Sum of alpha * entry over all entries of all tensors, a scalar."""
    return torch.stack([(alpha * entry).sum() for entry in entries]).sum()


def fill_from(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Copy `state` into the tensors of `own` in place; both must have the same keys and shapes."""
    if own.keys() != state.keys():
        odd = ", ".join(sorted(own.keys() ^ state.keys())[:3])
        raise UsageError(f"state of {what} does not fit: {odd}")
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            raise UsageError(f"state of {what}: {key} has shape {tuple(state[key].shape)}")
        tensor.copy_(state[key])


class NoMethod(Method):
    """No regularisation: the unregularised transformer UT of the paper."""

    name = "none"

    def add_to_gradients(self, alpha: Alpha) -> None:
        """Leave the gradients as they are."""

    def shrink(self, alpha: Alpha, lr: LearningRate) -> None:
        """Leave the weights as they are."""

    def penalty(self) -> Tensor:
        """Zero."""
        return torch.zeros((), device=self.params[0].device if self.params else None)

    def entries(self) -> list[Tensor]:
        """Zeros."""
        return [torch.zeros_like(param) for param in self.params]
