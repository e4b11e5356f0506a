"""ADMM for l0 regularised learning (appendix B.1, eq. 33 and 34)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.base import Alpha, LearningRate, Method, check_alpha, gradients_of, rate_of
from mdlzip.sparsity.masks import Masks


def hard_threshold(shards: Sequence[Tensor], alpha: Alpha, rho: float) -> Tensor:
    """The z-step of eq. 33, exact: w = mean of the shards, kept where 2 alpha < rho N w^2.

    shards: the N tensors x_i + u_i (M = P = 1, c = 0), equal shapes. A tie is set to 0.
    It minimises alpha * l0(z) + sum_i rho/2 |x_i + u_i - z|^2 over z.
    """
    w = torch.stack(list(shards)).mean(dim=0)
    return torch.where(2 * alpha < rho * len(shards) * w.square(), w, torch.zeros_like(w))


class ADMM(Method):
    """ADMM: sum_i f_i(x_i) + alpha * l0(z) subject to x_i = z, in scaled form (eq. 34).

    x-step: the training loop minimises f_i(x_i) + rho/2 |x_i - z + u_i|^2 by gradient descent from
    where it stands (warm start); `add_to_gradients` and `shrink` supply the quadratic term.
    z-step: the exact hard threshold of eq. 33; u-step: u_i += x_i - z. Both happen in `consensus`.

    With one shard, `advance` calls `consensus` by itself after every `every` steps. With N > 1
    data shards the caller trains them in turn, the model's parameters holding one x_i at a time:

        for shard in range(n): method.enter(shard); ...steps on D_shard...
        method.consensus(alpha)

    rho: strength of the quadratic term, > 0: a weight survives if w^2 > 2 alpha / (rho N).
    """

    name = "admm"

    def __init__(self, rho: float = 1e-3, every: int = 100, shards: int = 1) -> None:
        super().__init__()
        if not (math.isfinite(rho) and rho > 0):
            raise UsageError(f"rho = {rho!r} must be above 0")
        if every < 1 or shards < 1:
            raise UsageError("every and shards must be at least 1")
        self.rho, self.every, self.shards = float(rho), every, shards

    @torch.no_grad()
    def attach(self, named_params: Mapping[str, nn.Parameter]) -> None:
        """Set the parameters; every x_i and z start as copies of them, every u_i as 0."""
        super().attach(named_params)
        copies = range(self.shards)
        self.x = [[param.detach().clone() for param in self.params] for _ in copies]
        self.u = [[torch.zeros_like(value) for value in self.x[0]] for _ in copies]
        self.z = [value.clone() for value in self.x[0]]
        # Shard that the model holds, and steps since the last consensus.
        self._place = torch.zeros(2, dtype=torch.int64)

    @property
    def shard(self) -> int:
        """The shard whose x_i the model's parameters hold."""
        return int(self._place[0])

    @torch.no_grad()
    def enter(self, shard: int) -> None:
        """Store the present shard's x and load those of `shard` into the parameters."""
        if not 0 <= shard < self.shards:
            raise UsageError(f"shard {shard} is outside 0..{self.shards - 1}")
        torch._foreach_copy_(self.x[self.shard], self.params)
        torch._foreach_copy_(self.params, self.x[shard])
        self._place[0] = shard

    @torch.no_grad()
    def add_to_gradients(self, alpha: Alpha) -> None:
        """Add rho (x - z + u) for the present shard; alpha enters in the z-step only."""
        check_alpha(alpha)
        terms = zip(gradients_of(self.params), self.params, self.z, self.u[self.shard], strict=True)
        for grad, x, z, u in terms:
            grad.add_(x - z + u, alpha=self.rho)

    @torch.no_grad()
    def shrink(self, alpha: Alpha, lr: LearningRate) -> None:
        """Exact proximal step of rho/2 |x - z + u|^2."""
        check_alpha(alpha)
        terms = zip(self.names, self.params, self.z, self.u[self.shard], strict=True)
        for name, x, z, u in terms:
            pull = rate_of(lr, name) * self.rho
            x.add_(z - u, alpha=pull).div_(1 + pull)

    def advance(self, alpha: Alpha, lr: LearningRate) -> None:
        """With one shard: consensus after every `every` steps. With more: nothing."""
        if self.shards > 1:
            return
        self._place[1] += 1
        if int(self._place[1]) >= self.every:
            self.consensus(alpha)

    @torch.no_grad()
    def consensus(self, alpha: Alpha) -> None:
        """The z-step of eq. 33 over all shards, then the u-step of each (eq. 34)."""
        check_alpha(alpha)
        torch._foreach_copy_(self.x[self.shard], self.params)
        for j, z in enumerate(self.z):
            pairs = zip(self.x, self.u, strict=True)
            z.copy_(hard_threshold([x[j] + u[j] for x, u in pairs], alpha, self.rho))
        for x, u in zip(self.x, self.u, strict=True):
            torch._foreach_add_(u, x)
            torch._foreach_sub_(u, self.z)
        self._place[1] = 0

    def penalty(self) -> Tensor:
        """l0(z), the number of non-zeros at the last consensus."""
        return torch.stack([z.count_nonzero() for z in self.z]).sum().float()

    def entries(self) -> list[Tensor]:
        """1 where z is not zero."""
        return [(z != 0).float() for z in self.z]

    def objective(self, alpha: Alpha) -> Tensor:
        """alpha * l0(z) + rho/2 |x - z + u|^2 of the present shard; differentiable in x."""
        terms = zip(self.params, self.z, self.u[self.shard], strict=True)
        gaps = torch.stack([(x - z + u).square().sum() for x, z, u in terms]).sum()
        return super().objective(alpha) + 0.5 * self.rho * gaps

    def final_masks(self) -> Masks:
        """The weights that survived the last hard threshold and are not zero now."""
        triples = zip(self.names, self.params, self.z, strict=True)
        return {name: (z != 0) & (x.detach() != 0) for name, x, z in triples}

    def state_dict(self) -> dict[str, Tensor]:
        """z, every x_i and u_i, the shard in the model and the steps since the consensus."""
        state = {"place": self._place}
        state |= {f"z.{name}": z for name, z in zip(self.names, self.z, strict=True)}
        for kind, groups in (("x", self.x), ("u", self.u)):
            for i, group in enumerate(groups):
                state |= {f"{kind}{i}.{n}": t for n, t in zip(self.names, group, strict=True)}
        return state
