"""Weights and optimisers as one flat dictionary of tensors, keyed by names, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Optimisers = Mapping[str, torch.optim.Optimizer]
_WEIGHT = "param"


def collect(model: nn.Module, optimisers: Optimisers) -> dict[str, Tensor]:
    """The live tensors: "param/NAME" and "OPTIMISER/NAME/FIELD"; numbers become 0-dim float64."""
    names: dict[Tensor, str] = {p: n for n, p in model.named_parameters()}
    out = {f"{_WEIGHT}/{n}": p.detach() for n, p in model.named_parameters()}
    for key, optimiser in optimisers.items():
        for p, state in optimiser.state.items():
            for field, value in state.items():
                tensor = value if isinstance(value, Tensor) else torch.tensor(float(value))
                out[f"{key}/{names[p]}/{field}"] = tensor
    return out


@torch.no_grad()
def restore(model: nn.Module, optimisers: Optimisers, tensors: Mapping[str, Tensor]) -> None:
    """Put back copies of what `collect` took; optimisers forget what they knew."""
    params = dict(model.named_parameters())
    for optimiser in optimisers.values():
        optimiser.state.clear()
    for name, value in below(tensors, f"{_WEIGHT}/").items():
        params[name].copy_(value)
    for key, optimiser in optimisers.items():
        for path, value in below(tensors, f"{key}/").items():
            name, _, field = path.partition("/")
            p = params[name]
            # A fused kernel reads its count of steps where the weights are.
            there = value.shape == p.shape or optimiser.defaults.get("fused")
            optimiser.state[p][field] = value.to(p.device if there else value.device, copy=True)


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose keys begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
