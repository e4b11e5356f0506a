"""The whole path on a small problem: regularise, threshold, clean up, fine-tune under the mask."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mdlzip.sparsity.masks import MaskHold, nnz
from mdlzip.sparsity.methods import make_method
from mdlzip.sparsity.random_gradient import random_gradient_prune
from mdlzip.sparsity.schedule import AlphaSchedule
from mdlzip.sparsity.tamade import find_threshold

STEPS = 600


def teacher_data() -> tuple[torch.Tensor, torch.Tensor]:
    """256 samples of a sparse teacher: y = 2 relu(x0 - x1) - relu(x2 + 0.5)."""
    x = torch.randn(256, 5, generator=torch.Generator().manual_seed(0))
    return x, 2 * torch.relu(x[:, 0] - x[:, 1]) - torch.relu(x[:, 2] + 0.5)


@pytest.mark.parametrize(
    ("name", "alpha", "decoupled"),
    [("rl1", 3e-3, False), ("rl1", 0.1, True), ("drr", 1e-3, False), ("drr", 0.03, True)],
)
def test_a_sparse_student_is_found(name: str, alpha: float, decoupled: bool) -> None:
    torch.manual_seed(1)
    x, y = teacher_data()
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))
    params = dict(model.named_parameters())
    method, schedule = make_method(name, alpha=alpha), AlphaSchedule(alpha, warmup=0.5)
    method.attach(params)
    optimiser = torch.optim.Adam(params.values(), lr=0.01)

    def loss() -> torch.Tensor:
        return (model(x)[:, 0] - y).square().mean()

    for step in range(STEPS):
        now = schedule(step / STEPS)
        optimiser.zero_grad()
        loss().backward()
        if not decoupled:
            method.add_to_gradients(now)
        optimiser.step()
        if decoupled:
            method.shrink(now, 0.01)
        method.advance(now, 0.01)
    found = find_threshold(params, lambda: loss().item(), 0.1)
    masks = random_gradient_prune(model, lambda: model(torch.randn(64, 5)))
    assert nnz(masks) <= nnz(found.masks)
    pruned = loss().item()
    with MaskHold(params, masks, optimiser):
        for _ in range(300):
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()
    assert loss().item() < min(pruned, 0.02)  # the shrinkage bias is gone
    assert nnz(params) <= 40 < 113  # the dense student has 113; 8 would do
