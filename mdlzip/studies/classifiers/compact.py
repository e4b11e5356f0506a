"""A pruned LeNet without its dead units: the same function in less time, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d
_SIMPLE = (nn.Flatten, nn.ReLU, nn.MaxPool2d, nn.Linear, nn.Conv2d)


class Place(NamedTuple):
    """Rows and columns (int64 indices) of a layer's weight that the small network keeps."""

    rows: Tensor
    columns: Tensor


def can_shrink(model: nn.Module) -> bool:
    """Whether `model` is a plain chain of layers with biases, as the LeNets are."""
    return isinstance(model, nn.Sequential) and all(isinstance(m, _SIMPLE) for m in model)


def _layers(model: nn.Module) -> list[tuple[str, Layer]]:
    named = model.named_children()
    return [(name, m) for name, m in named if isinstance(m, (nn.Linear, nn.Conv2d))]


class Compaction:
    """Which units of a chain are alive, and how tensors move between the chain and its small copy.

    A unit is dead when its weights and bias are all zero: with ReLU its output is 0, so it can
    be left out. The inputs and the outputs of the network all stay, and one unit of each layer.
    """

    def __init__(self, model: nn.Module) -> None:
        self.places: dict[str, Place] = {}
        layers = _layers(model)
        alive: Tensor | None = None
        for i, (name, layer) in enumerate(layers):
            weight, bias = layer.weight.detach(), layer.bias
            assert bias is not None
            columns = _columns(alive, weight.shape[1], device=weight.device)
            used = (weight.flatten(1) != 0).any(1) | (bias.detach() != 0)
            if i == len(layers) - 1:
                used = torch.ones_like(used)
            if not bool(used.any()):
                used[0] = True
            rows = used.nonzero().flatten()
            self.places[name] = Place(rows, columns)
            alive = used

    def shrink(self, model: nn.Module) -> nn.Module:
        """A small copy of the chain; it computes the same."""
        small = deepcopy(model)
        for name, layer in _layers(small):
            place = self.places[name]
            rows, columns = len(place.rows), len(place.columns)
            if isinstance(layer, nn.Linear):
                layer.in_features, layer.out_features = columns, rows
            else:
                layer.in_channels, layer.out_channels = columns, rows
        taken = self.take({n: p.detach() for n, p in model.named_parameters()})
        for name, param in small.named_parameters():
            param.data = taken[name].clone()
            param.grad = None
        return small

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries of full-size tensors (weights or masks, by parameter name) that stay."""
        return {name: tensor[self._index(name)] for name, tensor in tensors.items()}

    @torch.no_grad()
    def put(self, small: nn.Module, model: nn.Module) -> None:
        """Write the small copy's weights into `model`; the dead entries become 0."""
        params = dict(model.named_parameters())
        for name, param in small.named_parameters():
            params[name].zero_()
            params[name][self._index(name)] = param.detach()

    def _index(self, name: str) -> tuple[Tensor, ...]:
        layer, _, kind = name.rpartition(".")
        place = self.places[layer]
        return (place.rows[:, None], place.columns) if kind == "weight" else (place.rows,)


def _columns(alive: Tensor | None, width: int, device: torch.device) -> Tensor:
    """Columns fed by live units; behind a Flatten each channel feeds `width / channels` of them."""
    if alive is None:
        return torch.arange(width, device=device)
    return alive.repeat_interleave(width // len(alive)).nonzero().flatten()
