"""PMMP, probabilistic minimax pruning (eq. 11), and FPP, its fictitious play (appendix D.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.base import (
    Alpha,
    LearningRate,
    Method,
    check_alpha,
    gradients_of,
    rate_of,
    weighted_sum,
)
from mdlzip.sparsity.masks import Masks
from mdlzip.sparsity.updater import Updater


def constraint(theta: Tensor, w: Tensor, gamma: Tensor) -> Tensor:
    """E (theta - w z)^2 for z ~ Bernoulli(gamma), per entry: what u multiplies in eq. 11.

    (theta - w gamma)^2 + w^2 gamma (1 - gamma) = theta^2 + w gamma (w - 2 theta): affine in gamma,
    never negative, and zero only at gamma = 1, theta = w or at theta = 0 with w gamma = 0.
    """
    return theta.square() + w * gamma * (w - 2 * theta)


class Variables(NamedTuple):
    """What one side of the game sees of the variables, a tensor per parameter each."""

    theta: list[Tensor]
    w: list[Tensor]
    gamma: list[Tensor]
    u: list[Tensor]


class PMMP(Method):
    """PMMP: min over theta, w, gamma, max over u of eq. 11,

    alpha * sum gamma + loss(theta) + u . (theta - w gamma)^2 + u . (w^2 gamma (1 - gamma)).

    theta are the model's weights and follow its optimiser; w, gamma in [0, 1] (projected) and the
    multipliers u belong to the method: `advance` steps w and gamma down, then u up, alternating.
    No sampling: the expectation over masks is exact (Prop. 3.2, eq. 9). `final_masks` keeps
    gamma > 1/2.

    p: initial gamma in [0, 1].   u: initial multiplier, >= 0 (0 inhibits training of ResNet-50).
    u_multiplier: the ascent of u runs at this multiple of the learning rate, >= 0.
    rate: the descent of w and gamma runs at this multiple of the learning rate, > 0.
    weight_decay: l2 force on theta in proportion to alpha: adds alpha * weight_decay * theta.
    update: "adam" or "sgd", how w, gamma and u move.
    """

    name = "pmmp"

    def __init__(
        self,
        p: float = 1.0,
        u: float = 1.0,
        u_multiplier: float = 1.0,
        rate: float = 1.0,
        weight_decay: float = 0.0,
        update: str = "adam",
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise UsageError(f"p = {p!r} is outside 0..1")
        for key, value in (
            ("u", u),
            ("u_multiplier", u_multiplier),
            ("weight_decay", weight_decay),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{key} = {value!r} must be at least 0")
        if not (math.isfinite(rate) and rate > 0):
            raise UsageError(f"rate = {rate!r} must be above 0")
        Updater([], update)  # an unknown name fails here, not at the first step
        self.p, self.initial_u, self.update = float(p), float(u), update
        self.u_multiplier, self.rate, self.weight_decay = u_multiplier, rate, weight_decay

    @torch.no_grad()
    def attach(self, named_params: Mapping[str, nn.Parameter]) -> None:
        """Set theta; w starts as theta, gamma as p, u as its initial value."""
        super().attach(named_params)
        self.w = [param.detach().clone() for param in self.params]
        self.gamma = [torch.full_like(param, self.p) for param in self.w]
        self.u = [torch.full_like(param, self.initial_u) for param in self.w]
        self._descent = Updater([*self.w, *self.gamma], self.update)
        self._ascent = Updater(self.u, self.update)

    def seen_by_descent(self) -> Variables:
        """The variables as theta, w and gamma see them."""
        theta = [param.detach() for param in self.params]
        return Variables(theta, self.w, self.gamma, self.u)

    def seen_by_ascent(self) -> Variables:
        """The variables as u sees them."""
        return self.seen_by_descent()

    @torch.no_grad()
    def add_to_gradients(self, alpha: Alpha) -> None:
        """Add d/dtheta = 2 u (theta - w gamma) + alpha * weight_decay * theta."""
        check_alpha(alpha)
        seen = self.seen_by_descent()
        for grad, theta, w, gamma, u in zip(gradients_of(self.params), *seen, strict=True):
            grad.add_(u * (theta - w * gamma), alpha=2)
            if isinstance(alpha, Tensor):
                grad.add_(theta * alpha, alpha=self.weight_decay)
            else:
                grad.add_(theta, alpha=alpha * self.weight_decay)

    @torch.no_grad()
    def shrink(self, alpha: Alpha, lr: LearningRate) -> None:
        """Exact proximal step of the terms in theta: a weighted mean of theta and w gamma."""
        check_alpha(alpha)
        seen = self.seen_by_descent()
        for name, param, w, gamma, u in zip(self.names, self.params, *seen[1:], strict=True):
            rate = rate_of(lr, name)
            pull = 2 * rate * u
            param.add_(pull * w * gamma).div_(1 + pull + rate * alpha * self.weight_decay)

    @torch.no_grad()
    def advance(self, alpha: Alpha, lr: LearningRate) -> None:
        """Step w and gamma down and project gamma, then step u up with the new values."""
        check_alpha(alpha)
        rates = [self.rate * rate_of(lr, name) for name in self.names]
        self._descent.step([*self._slopes_w(), *self._slopes_gamma(alpha)], rates + rates)
        torch._foreach_clamp_min_(self.gamma, 0.0)
        torch._foreach_clamp_max_(self.gamma, 1.0)
        ups = [-self.u_multiplier * rate_of(lr, name) for name in self.names]
        theta, w, gamma, _ = self.seen_by_ascent()
        gaps = [constraint(*triple) for triple in zip(theta, w, gamma, strict=True)]
        self._ascent.step(gaps, ups)

    def _slopes_w(self) -> list[Tensor]:
        """d/dw = 2 u gamma (w - theta)."""
        parts = zip(*self.seen_by_descent(), strict=True)
        return [2 * u * gamma * (w - theta) for theta, w, gamma, u in parts]

    def _slopes_gamma(self, alpha: Alpha) -> list[Tensor]:
        """d/dgamma = alpha + u w (w - 2 theta); gamma itself drops out."""
        parts = zip(*self.seen_by_descent(), strict=True)
        return [alpha + u * w * (w - 2 * theta) for theta, w, _, u in parts]

    def penalty(self) -> Tensor:
        """Expected l0 norm, the sum of gamma (eq. 8)."""
        return torch.stack([gamma.sum() for gamma in self.gamma]).sum()

    def entries(self) -> list[Tensor]:
        """gamma of every weight."""
        return list(self.gamma)

    def objective(self, alpha: Alpha) -> Tensor:
        """All of eq. 11 but the loss, plus the weight decay; differentiable in theta."""
        terms = zip(self.params, self.w, self.gamma, self.u, strict=True)
        value = torch.stack([(u * constraint(t, w, g)).sum() for t, w, g, u in terms]).sum()
        if isinstance(alpha, Tensor):
            decay = [0.5 * self.weight_decay * param.square() for param in self.params]
            return weighted_sum([*self.entries(), *decay], alpha) + value
        squares = torch.stack([param.square().sum() for param in self.params]).sum()
        return alpha * (self.penalty() + 0.5 * self.weight_decay * squares) + value

    def final_masks(self) -> Masks:
        """Those whose gamma exceeds 1/2, by eq. 7 all but 0 or 1 at an optimum, and theta != 0."""
        triples = zip(self.names, self.params, self.gamma, strict=True)
        return {name: (gamma > 0.5) & (theta.detach() != 0) for name, theta, gamma in triples}

    def state_dict(self) -> dict[str, Tensor]:
        """w, gamma, u and the moments of their updates."""
        state: dict[str, Tensor] = {}
        for kind, tensors in (("w", self.w), ("gamma", self.gamma), ("u", self.u)):
            state |= {f"{kind}.{n}": t for n, t in zip(self.names, tensors, strict=True)}
        doubled = [f"{kind}.{name}" for kind in ("w", "gamma") for name in self.names]
        for side, updater, names in (
            ("descent", self._descent, doubled),
            ("ascent", self._ascent, self.names),
        ):
            state |= {f"{side}.{key}": t for key, t in updater.state(names).items()}
        return state


class FPP(PMMP):
    """FPP, fictitious play pruning: PMMP whose opponents see each other's history (appendix D.4).

    theta, w and gamma are updated against the historical average of u, and u against the
    historical averages of theta, w and gamma; each side sees its own variables as they are.

    average: 1.0 for the exact mean over all steps; below 1 the weight of the newest value in a
    moving average. The attached values count as the first entry of the history.
    """

    name = "fpp"

    def __init__(
        self,
        p: float = 1.0,
        u: float = 1.0,
        u_multiplier: float = 1.0,
        rate: float = 1.0,
        weight_decay: float = 0.0,
        update: str = "adam",
        average: float = 1.0,
    ) -> None:
        super().__init__(p, u, u_multiplier, rate, weight_decay, update)
        if not 0 < average <= 1:
            raise UsageError(f"average = {average!r} is outside 0..1")
        self.average = average

    @torch.no_grad()
    def attach(self, named_params: Mapping[str, nn.Parameter]) -> None:
        """Set theta and start the histories with the present values."""
        super().attach(named_params)
        self._rounds = torch.ones((), dtype=torch.int64)
        self.means = Variables(
            *([value.clone() for value in group] for group in super().seen_by_descent())
        )

    def seen_by_descent(self) -> Variables:
        """Own variables as they are, u as its historical average."""
        return super().seen_by_descent()._replace(u=self.means.u)

    def seen_by_ascent(self) -> Variables:
        """u as it is, the others as their historical averages."""
        return self.means._replace(u=self.u)

    @torch.no_grad()
    def advance(self, alpha: Alpha, lr: LearningRate) -> None:
        """Play a round, then take the new values into the averages."""
        super().advance(alpha, lr)
        self._rounds += 1
        share = self.average if self.average < 1 else 1 / int(self._rounds)
        for means, values in zip(self.means, PMMP.seen_by_descent(self), strict=True):
            torch._foreach_lerp_(means, values, share)

    def state_dict(self) -> dict[str, Tensor]:
        """PMMP's state, the averages and the number of rounds."""
        state = super().state_dict() | {"rounds": self._rounds}
        for kind, tensors in self.means._asdict().items():
            state |= {f"mean.{kind}.{n}": t for n, t in zip(self.names, tensors, strict=True)}
        return state
