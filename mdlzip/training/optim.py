"""Optimisers: Muon for matrices (ours), AdamW for the rest and for the paper's family.

Muon (Jordan et al. 2024): momentum, then the update is replaced by the nearest semi-orthogonal
matrix, found by five Newton-Schulz steps. Matrices of one shape, turned to lie wide, are stacked,
so that a step is a few batched products.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from mdlzip.config import TrainConfig
from mdlzip.model.transformer import Transformer

# Quintic that pulls singular values towards 1 fast; need not converge exactly.
_NS = (3.4445, -4.7750, 2.0315)
_EPS = 1e-8


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Approximate U V^T of every matrix of the stack g (S, rows, cols); same shape and dtype."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=_NS[1], alpha=_NS[2])
        x = torch.baddbmm(x, b, x, beta=_NS[0], alpha=1.0)
    return x.mT if tall else x


class Optimiser(torch.optim.Optimizer):
    """Base of ours. torch's own load its compiler, which nobody uses here: a second and 70 MiB."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does, but for what keeps it from being compiled."""
        _uncompiled(torch.optim.Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch does, but for what keeps it from being compiled."""
        _uncompiled(torch.optim.Optimizer.zero_grad)(self, set_to_none)


def _uncompiled(method: Any) -> Any:
    return getattr(method, "__wrapped__", method)


class AdamW(Optimiser):
    """torch's AdamW without decay; fused: one kernel for all parameters."""

    def __init__(
        self, params: list[nn.Parameter], lr: float, betas: tuple[float, float], fused: bool
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "fused": fused})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            ps = [p for p in group["params"] if p.grad is not None]
            for p in ps:
                if not self.state[p]:
                    device = p.device if group["fused"] else None
                    self.state[p]["step"] = torch.zeros((), device=device)
                    self.state[p]["exp_avg"] = torch.zeros_like(p)
                    self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
            means, squares, steps = (
                [self.state[p][field] for p in ps] for field in ("exp_avg", "exp_avg_sq", "step")
            )
            grads = [p.grad for p in ps if p.grad is not None]
            beta1, beta2 = group["betas"]
            adamw(
                ps, grads, means, squares, [], steps, fused=group["fused"], amsgrad=False,
                beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=0.0, eps=_EPS,
                maximize=False,
            )  # fmt: skip


class Muon(Optimiser):
    """Muon with Nesterov momentum; every update has a root mean square of about 0.2 x lr.

    parts: how many matrices stand on top of each other in a parameter (q, k and v), 1 by default.
    """

    def __init__(
        self,
        params: list[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        parts: dict[nn.Parameter, int] | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self._parts = parts or {}

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            ps = [p for p in group["params"] if p.grad is not None]
            for p in ps:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum"] for p in ps]
            grads = [p.grad for p in ps if p.grad is not None]
            torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
            blends = torch._foreach_lerp(grads, buffers, group["momentum"])
            stacks: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p, blend in zip(ps, blends, strict=True):
                n = self._parts.get(p, 1)
                for weight, g in zip(p.chunk(n), blend.chunk(n), strict=True):
                    wide = (weight, g) if g.shape[0] <= g.shape[1] else (weight.mT, g.mT)
                    stacks[tuple(wide[0].shape)].append(wide)
            for shape, pairs in stacks.items():
                self._step_stack(shape, pairs, group["lr"])

    def _step_stack(
        self, shape: tuple[int, ...], pairs: list[tuple[Tensor, Tensor]], lr: float
    ) -> None:
        blend = torch.stack([g for _, g in pairs])
        update = orthogonalise(blend.bfloat16() if blend.is_cuda else blend).to(blend.dtype)
        # Unit spectral norm -> the same root mean square for every shape.
        scale = 0.2 * math.sqrt(max(shape))
        weights = [w for w, _ in pairs]
        torch._foreach_add_(weights, list(update.unbind(0)), alpha=-lr * scale)


def make_optimisers(model: Transformer, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """Name -> optimiser, "muon" and "adam" as the specifications say, or "adam" alone."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    parts: dict[nn.Parameter, int] = {}
    for name, p in model.named_parameters():
        spec = model.specs[name]
        parts[p] = len(spec.bands)
        by_muon = config.optimiser == "muon" and spec.optimiser == "muon"
        (matrices if by_muon else rest).append(p)
    fused = all(p.device.type in ("cpu", "cuda") for p in rest)
    out: dict[str, torch.optim.Optimizer] = {
        "adam": AdamW(rest, config.adam_lr, (0.9, config.beta2), fused)
    }
    if matrices:
        out["muon"] = Muon(matrices, config.muon_lr, config.momentum, parts)
    return out
