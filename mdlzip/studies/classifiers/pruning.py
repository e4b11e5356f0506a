"""One pruning step of a classifier: TAMADE on a chosen score, then random gradient pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdlzip.sparsity.masks import Masks
from mdlzip.sparsity.random_gradient import random_gradient_prune
from mdlzip.sparsity.tamade import find_threshold, rms_scales
from mdlzip.studies.classifiers.datasets import Source
from mdlzip.studies.classifiers.networks import prunable
from mdlzip.studies.classifiers.recipes import Recipe
from mdlzip.studies.classifiers.training import evaluate, fisher_diagonal

SAMPLES = 4  # of random gradient pruning, each of ROWS real images and as many of noise
ROWS, ROWS_LARGE = 64, 16  # the latter for images of more than LARGE numbers
LARGE = 1024


class Bounds(NamedTuple):
    """Least and most survivors of the threshold."""

    least: int
    most: int


def scores(
    model: nn.Module, criterion: str, train: Source, batch: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """How much each prunable weight is worth, >= 0 and 0 for those that are zero; float32."""
    params = prunable(model)
    sizes = {name: param.detach().abs() for name, param in params.items()}
    if criterion == "rms":
        scales = rms_scales({name: param.detach() for name, param in params.items()})
        return {name: size / scales[name] for name, size in sizes.items()}
    if criterion == "fisher":
        fisher = fisher_diagonal(model, train, batch, generator)
        return {name: size * fisher[name].sqrt() for name, size in sizes.items()}
    return sizes


def prune(
    model: nn.Module,
    recipe: Recipe,
    train: Source,
    probe: Source,
    bounds: Bounds,
    generator: torch.Generator,
) -> Masks:
    """Zero what the recipe's TAMADE finds dispensable, and what random gradients show to be dead.

    The threshold is bisected on the scores (`find_threshold` works on a copy of them), judged by
    loss or accuracy on `probe`; then as many of the highest scores are kept as `bounds` ask
    for. Random gradient pruning comes on top and may go below them. Returns the masks of all
    trainable parameters, those of norms included.
    """
    worth = scores(model, recipe.criterion, train, recipe.batch, generator)
    params, kept = prunable(model), {n: p.detach().clone() for n, p in prunable(model).items()}
    proxies = {name: nn.Parameter(score, requires_grad=False) for name, score in worth.items()}

    @torch.no_grad()
    def write(alive: dict[str, Tensor]) -> None:
        for name, param in params.items():
            param.copy_(torch.where(alive[name], kept[name], torch.zeros_like(param)))

    def judge() -> float:
        write({name: proxy != 0 for name, proxy in proxies.items()})
        score = evaluate(model, probe)
        return score.accuracy if recipe.mode == "accuracy" else score.loss

    worth = {name: score.clone() for name, score in worth.items()}
    found = find_threshold(proxies, judge, recipe.tolerance, mode=recipe.mode, resolution=0.0)
    write(within(found.masks, worth, bounds))
    return random_gradient_prune(
        model, _mixed_input(model, train, generator), samples=SAMPLES, generator=generator
    )


def within(masks: Masks, worth: dict[str, Tensor], bounds: Bounds) -> Masks:
    """The masks, or those of the highest scores if they keep too few or too many."""
    count = sum(int(mask.sum()) for mask in masks.values())
    wanted = min(max(count, bounds.least), bounds.most)
    if wanted == count:
        return masks
    flat = torch.cat([score.flatten() for score in worth.values()])
    wanted = min(wanted, int((flat > 0).sum()))
    alive = torch.zeros_like(flat, dtype=torch.bool)
    alive[flat.topk(wanted).indices] = True
    parts = alive.split([score.numel() for score in worth.values()])
    return {n: part.view_as(worth[n]) for n, part in zip(worth, parts, strict=True)}


def _mixed_input(
    model: nn.Module, train: Source, generator: torch.Generator
) -> Callable[[], Tensor]:
    """A function that runs the model on fresh rows: real images, so that no unit that they wake
    is condemned, and noise, which reaches what real images leave dark.
    """
    device = next(model.parameters()).device
    real = next(iter(train.batches(SAMPLES * ROWS)))[0]
    n = ROWS if real[0].numel() <= LARGE else ROWS_LARGE

    def forward() -> Tensor:
        rows = torch.randint(len(real), (n,), generator=generator)
        images = real[rows.to(real.device)].to(device)
        noise = torch.randn(images.shape, generator=generator).to(device)
        output: Tensor = model(torch.cat([images, noise]))
        return output

    return forward
