"""Layerwise pruning and the convergence criterion: against brute force and hand-worked curves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.convergence import default_bandwidth, has_converged, smooth
from mdlzip.sparsity.layerwise import (
    LayerProblem,
    gram_of,
    prune_layer_,
    prune_layers_,
    prune_matrix,
)
from mdlzip.sparsity.random_gradient import random_gradient_prune


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated inputs (50, 7) and one row of weights (1, 7) of falling size."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 7, generator=source) @ torch.randn(7, 7, generator=source)
    sizes = torch.tensor([1, 1, 1, 0.3, 0.3, 0.1, 0.03])
    return x / x.std(), torch.randn(1, 7, generator=source) * sizes


def best_subset(x: torch.Tensor, target: torch.Tensor, alpha: float) -> float:
    """Smallest mean squared error + alpha * nnz over all 128 supports, each refitted."""
    y, best = x @ target[0], math.inf
    for keep in itertools.product((False, True), repeat=7):
        mask = torch.tensor(keep)
        fit = torch.linalg.lstsq(x[:, mask], y).solution if mask.any() else torch.zeros(0)
        error = float((y - x[:, mask] @ fit).square().mean())
        best = min(best, error + alpha * sum(keep))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_pruned_row_is_near_the_best_subset(seed: int) -> None:
    x, target = problem(seed)
    pruned = prune_matrix(target, x.T @ x / 50, 0.05)
    cost = float((x @ (target - pruned)[0]).square().mean()) + 0.05 * int(pruned.count_nonzero())
    best = best_subset(x, target, 0.05)
    assert best - 1e-4 <= cost <= 1.25 * best
    assert cost < 0.05 * 7


def test_objective_is_eq_35_and_its_slopes() -> None:
    source = torch.Generator().manual_seed(5)
    x = torch.randn(20, 4, generator=source)
    target, w = torch.randn(2, 3, 4, generator=source)
    gamma = torch.rand(3, 4, generator=source)
    layer = LayerProblem(target, x.T @ x / 20, 0.3)
    bias = (x @ (target - w * gamma).T).square().sum()
    variance = (w.square() * gamma * (1 - gamma) * x.square().sum(dim=0)).sum()
    expected = (bias + variance) / 20 + 0.3 * gamma.sum()
    torch.testing.assert_close(layer.value(w, gamma), expected)
    w.requires_grad_()
    gamma.requires_grad_()
    by_w, by_gamma = torch.autograd.grad(layer.value(w, gamma), (w, gamma))
    own_w, own_gamma = layer.slopes(w.detach(), gamma.detach())
    torch.testing.assert_close(own_w, by_w)
    torch.testing.assert_close(own_gamma, by_gamma)


def test_settling_ends_at_a_mask_and_never_rises() -> None:
    for seed in range(10):
        x, target = problem(seed)
        layer = LayerProblem(target, x.T @ x / 50, 0.02)
        gamma = torch.rand(1, 7, generator=torch.Generator().manual_seed(seed))
        before = layer.value(target, gamma)
        layer.settle(target, gamma)
        assert set(gamma.flatten().tolist()) <= {0.0, 1.0}
        assert layer.value(target, gamma) <= before + 1e-6
        for j in range(7):  # no single flip is better
            other = gamma.clone()
            other[0, j] = 1 - other[0, j]
            assert layer.value(target, other) >= layer.value(target, gamma) - 1e-6


def test_price_zero_keeps_and_a_high_price_removes_everything() -> None:
    x, target = problem(0)
    gram = x.T @ x / 50
    torch.testing.assert_close(prune_matrix(target, gram, 0.0), target, atol=1e-3, rtol=0)
    assert prune_matrix(target, gram, 1e3).count_nonzero() == 0
    target[0, :3] = 0
    assert prune_matrix(target, gram, 1e-6)[0, :3].count_nonzero() == 0  # zeros stay zero


@pytest.mark.parametrize("bias", [True, False])
def test_convolution_sees_its_patches(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=bias)
    images = torch.randn(4, 2, 8, 8)
    gram = gram_of(layer, lambda: layer(images))
    out = layer(images).detach().transpose(0, 1).flatten(1)  # (3, positions)
    matrix = layer.weight.detach().flatten(1)
    if bias:
        matrix = torch.cat([matrix, layer.bias.detach()[:, None]], dim=1)
    energy = ((matrix @ gram) * matrix).sum(dim=1)
    torch.testing.assert_close(energy, out.square().mean(dim=1), rtol=1e-4, atol=1e-5)


def test_linear_layer_loses_what_its_inputs_make_useless() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    nn.init.uniform_(layer.weight, 0.2, 0.8)
    x = torch.randn(100, 4)
    x[:, 1] *= 1e-3  # an input that is nearly off, and one that is
    x[:, 2] = 0
    before = layer(x).detach()
    prune_layer_(layer, gram_of(layer, lambda: layer(x)), 1e-4)
    assert layer.weight[:, 1:3].count_nonzero() == 0
    assert (layer.weight[:, [0, 3]] != 0).all() and (layer.bias != 0).all()
    assert (layer(x) - before).square().mean() < 1e-4


def test_network_is_pruned_from_the_last_layer_down() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        model[4].weight[0, 4:] *= 1e-3  # half of the last hidden layer hardly matters
    x = torch.randn(200, 3)
    before = model(x).detach()
    order: list[int] = []

    def between() -> None:
        order.append(int(model[4].weight.count_nonzero()))
        random_gradient_prune(model, lambda: model(torch.randn(64, 3)))

    prune_layers_(model, lambda: model(x), 1e-4, between=between, steps=100)
    assert len(order) == 3 and order[0] <= 4
    assert model[2].weight[4:].count_nonzero() == 0  # their incoming weights went with them
    assert (model(x) - before).square().mean() < 0.05 * before.var()


def test_layerwise_refuses() -> None:
    layer = nn.Conv2d(4, 4, 3, groups=2)
    with pytest.raises(UsageError, match="one group"):
        gram_of(layer, lambda: layer(torch.zeros(1, 4, 5, 5)))
    with pytest.raises(UsageError, match="never reaches"):
        gram_of(nn.Linear(2, 2), lambda: None)
    with pytest.raises(UsageError, match="alpha"):
        prune_matrix(torch.ones(1, 2), torch.eye(2), -1.0)


def test_smoothing_by_hand() -> None:
    # Three points, width 0.75: around the middle both neighbours weigh 3/4 (1 - 4/9) = 5/12,
    # the middle 3/4; a symmetric neighbourhood has no slope: a weighted mean
    assert smooth([3.0, 6.0, 0.0], 0.75)[1] == pytest.approx((5 / 12 * 3 + 4.5) / (19 / 12))
    # At the left end only one neighbour is covered: the line through both points
    assert smooth([3.0, 6.0, 0.0], 0.75)[0] == pytest.approx(3.0)


def test_smoothing_keeps_lines_and_lonely_points() -> None:
    line = 3 - 0.5 * np.arange(12)
    np.testing.assert_allclose(smooth(line), line, atol=1e-9)
    values = [1.0, 5.0, 2.0, 8.0]
    np.testing.assert_allclose(smooth(values, 0.1), values)
    assert default_bandwidth(20) == pytest.approx(20 ** (-2 / 7) * math.log(20) ** (-1 / 16))


def test_convergence_tells_flat_from_falling() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 40)
    assert has_converged(list(1 + noise), 20)
    assert not has_converged(list(np.linspace(3, 1, 40) + noise), 20)
    falling_then_flat = np.concatenate([np.linspace(3, 1, 30), np.ones(30)])
    assert not has_converged(list(falling_then_flat[:40]), 20)
    assert has_converged(list(falling_then_flat), 20)
    assert has_converged(list(np.linspace(1, 2, 20)), 20)  # rising: certainly not falling


def test_convergence_by_hand() -> None:
    # Straight halves have no residual: mean falls by 2 * 0.1 = 0.2
    curve = [1.0, 0.9, 0.8, 0.7]
    assert not has_converged(curve, 4, 0.19) and has_converged(curve, 4, 0.21)
    assert not has_converged(curve[:3], 4)
    assert not has_converged([1.0, math.nan, 1.0, 1.0], 4)
    for window, tolerance in ((3, 0.0), (2, 0.0), (4, -1.0)):
        with pytest.raises(UsageError):
            has_converged(curve, window, tolerance)
