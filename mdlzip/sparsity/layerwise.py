"""Layerwise pruning: the sparsest matrix with nearly the same outputs (eq. 9, eq. 35, B.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.base import check_alpha
from mdlzip.sparsity.updater import Updater

# Shapes: N samples, J inputs (with a bias: the last one is constant 1), K outputs.


@dataclass(frozen=True)
class LayerProblem:
    """Eq. 35 + alpha * sum gamma for one layer, per sample, through the Gram matrix of its inputs.

    target_KJ: the matrix whose outputs are to be kept.   gram_JJ: X X^T / N.
    """

    target_KJ: Tensor
    gram_JJ: Tensor
    alpha: float

    def row_values(self, w: Tensor, gamma: Tensor) -> Tensor:
        """The objective of each row, (K,): mean squared output error + alpha * sum gamma."""
        gap = self.target_KJ - w * gamma
        variance = w.square() * gamma * (1 - gamma) * self.gram_JJ.diagonal()
        return ((gap @ self.gram_JJ) * gap + variance + self.alpha * gamma).sum(dim=1)

    def value(self, w: Tensor, gamma: Tensor) -> Tensor:
        """The objective, a scalar: the sum over the rows, which do not see each other."""
        return self.row_values(w, gamma).sum()

    def slopes(self, w: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives by w and by gamma."""
        pull = 2 * (w * gamma - self.target_KJ) @ self.gram_JJ
        power = self.gram_JJ.diagonal()
        by_w = pull * gamma + 2 * w * gamma * (1 - gamma) * power
        by_gamma = pull * w + w.square() * (1 - 2 * gamma) * power + self.alpha
        return by_w, by_gamma

    def descend(self, w: Tensor, gamma: Tensor, steps: int, rate: float, with_gamma: bool) -> None:
        """Adam steps on w and, if `with_gamma`, projected ones on gamma, in place.

        rate: step of gamma, and of w in units of the target's rms; falls linearly to 0.
        """
        updater = Updater([w, gamma] if with_gamma else [w], "adam")
        size = float(self.target_KJ.square().mean().sqrt())
        for step in range(steps):
            now = rate * (1 - step / steps)
            slopes = list(self.slopes(w, gamma))
            if with_gamma:
                updater.step(slopes, [now * size, now])
                gamma.clamp_(0.0, 1.0)
            else:
                updater.step(slopes[:1], [now * size])

    def settle(self, w: Tensor, gamma: Tensor, sweeps: int = 20) -> None:
        """Move every gamma to 0 or 1, in place, without ever raising the objective.

        The objective is affine in each single gamma (Prop. 3.2), so moving one to its better end
        cannot raise it. Column after column, all rows at once, until a sweep changes nothing.
        """
        power = self.gram_JJ.diagonal()
        pull = 2 * (w * gamma - self.target_KJ) @ self.gram_JJ
        for _ in range(sweeps):
            changed = False
            for j in range(w.shape[1]):
                w_K, old_K = w[:, j], gamma[:, j].clone()
                slope_K = pull[:, j] * w_K + w_K.square() * (1 - 2 * old_K) * power[j] + self.alpha
                new_K = (slope_K < 0).to(gamma.dtype)
                if torch.equal(new_K, old_K):
                    continue
                changed = True
                gamma[:, j] = new_K
                pull += torch.outer(2 * w_K * (new_K - old_K), self.gram_JJ[j])
            if not changed:
                return


@torch.no_grad()
def prune_matrix(
    target_KJ: Tensor,
    gram_JJ: Tensor,
    alpha: float,
    *,
    starts: Sequence[float] = (1.0, 0.5),
    steps: int = 300,
    rate: float = 0.02,
) -> Tensor:
    """A sparse matrix (K, J) whose outputs are near those of `target_KJ`; eq. 35.

    gram_JJ: mean of x x^T over the layer's inputs.
    alpha: price of a weight, in units of the squared output error per sample.
    starts: initial values of gamma; the problem has local optima, so each start is tried and each
    row takes its best. From 1 only weights of little effect of their own fall; from 1/2 also
    those that others can replace.
    steps, rate: of the descent on w and gamma, and again on w alone once every gamma is 0 or 1.
    Zeros stay zero, and no row ends worse than it came under error + alpha * nnz.
    """
    check_alpha(alpha)
    target_KJ, gram_JJ = target_KJ.detach().float(), gram_JJ.float()
    problem = LayerProblem(target_KJ, gram_JJ, alpha)
    alive = (target_KJ != 0).float()
    best_KJ, best_K = target_KJ.clone(), problem.row_values(target_KJ, alive)
    for p in starts:
        w, gamma = target_KJ.clone(), p * alive  # where w = 0 the slope of gamma is alpha: it falls
        problem.descend(w, gamma, steps, rate, with_gamma=True)
        problem.settle(w, gamma)
        problem.descend(w, gamma, steps, rate, with_gamma=False)
        value_K = problem.row_values(w, gamma)
        better_K = value_K < best_K
        best_K = torch.where(better_K, value_K, best_K)
        pruned_KJ = torch.where(gamma > 0, w, torch.zeros_like(w))  # w * gamma, without -0.0
        best_KJ = torch.where(better_K[:, None], pruned_KJ, best_KJ)
    return best_KJ


Layer = nn.Linear | nn.Conv2d


def _rows(layer: Layer, inputs: Tensor) -> Tensor:
    """What one output of `layer` sees, as rows: (N, J), with a column of ones for the bias."""
    if isinstance(layer, nn.Conv2d):
        if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise UsageError("layerwise pruning needs plain convolutions: one group, zero padding")
        patches = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = patches.transpose(1, 2).flatten(0, 1)
    else:
        rows = inputs.flatten(0, -2)
    if layer.bias is not None:
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    return rows.detach().float()


@torch.no_grad()
def prune_layer_(layer: Layer, gram_JJ: Tensor, alpha: float, **options: Any) -> None:
    """Prune weight and bias of `layer` in place; `gram_JJ` as from `gram_of`.

    options: those of `prune_matrix`.
    """
    matrix = layer.weight.flatten(1)
    if layer.bias is not None:
        matrix = torch.cat([matrix, layer.bias[:, None]], dim=1)
    pruned = prune_matrix(matrix, gram_JJ, alpha, **options)
    layer.weight.copy_(pruned[:, : layer.weight[0].numel()].reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(pruned[:, -1])


@torch.no_grad()
def gram_of(layer: Layer, forward: Callable[[], object]) -> Tensor:
    """Mean of x x^T over the inputs that `layer` sees during one call of `forward`."""
    total: Tensor | float = 0.0
    count = 0

    def watch(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal count, total
        rows = _rows(layer, args[0])
        total = rows.T @ rows + total
        count += len(rows)

    handle = layer.register_forward_pre_hook(watch)
    try:
        forward()
    finally:
        handle.remove()
    if not isinstance(total, Tensor):
        raise UsageError("the forward function never reaches the layer that is to be pruned")
    return total / count


def prune_layers_(
    model: nn.Module,
    forward: Callable[[], object],
    alpha: float,
    *,
    layers: Sequence[Layer] | None = None,
    between: Callable[[], object] | None = None,
    **options: Any,
) -> None:
    """Layerwise pruning of a whole network from the last layer to the first (appendix B.2).

    forward: runs `model` on a representative batch.
    layers: in the order of the data; by default every Linear and Conv2d as registered.
    between: called after each layer; give it random gradient pruning, which removes units
        without outgoing weights before the layer below is pruned.
    """
    found = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for layer in reversed(list(layers) if layers is not None else found):
        prune_layer_(layer, gram_of(layer, forward), alpha, **options)
        if between is not None:
            between()
