"""An alpha per student in one batched tensor gives what separate runs with numbers give."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.base import Method
from mdlzip.sparsity.methods import make_method

ALPHAS = [0.0, 0.02, 0.3]
SHAPES = {"weight": (4, 3), "bias": (1, 4)}
CASES = [
    ("none", {}),
    ("rl1", {}),
    ("drr", {}),
    ("drr", {"relaxation": "gaussian", "rho": 0.1}),
    ("pmmp", {"p": 0.3, "u": 0.7, "weight_decay": 0.2}),
    ("pmmp", {"update": "sgd"}),
    ("fpp", {"p": 0.6}),
    ("admm", {"every": 2, "rho": 0.4}),
]


def start(students: list[int]) -> dict[str, nn.Parameter]:
    """Parameters [S, ...] of the students with these numbers, each from its own seed."""
    drawn = []
    for student in students:
        source = torch.Generator().manual_seed(student)
        drawn.append({n: torch.randn(shape, generator=source) for n, shape in SHAPES.items()})
    return {n: nn.Parameter(torch.stack([d[n] for d in drawn])) for n in SHAPES}


def descend(params: dict[str, nn.Parameter], method: Method, alpha: object, form: str) -> None:
    """Five steps towards 1 under the method; coupled or decoupled."""
    for _ in range(5):
        for param in params.values():
            param.grad = param.detach() - 1
        if form == "coupled":
            method.add_to_gradients(alpha)
        with torch.no_grad():
            for param in params.values():
                param.sub_(param.grad, alpha=0.1)
        if form == "decoupled":
            method.shrink(alpha, 0.1)
        method.advance(alpha, 0.1)


@pytest.mark.parametrize("form", ["coupled", "decoupled"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_batch_equals_separate_runs(name: str, options: dict, form: str) -> None:
    students = list(range(len(ALPHAS)))
    batch, method = start(students), make_method(name, **options)
    method.attach(batch)
    strengths = torch.tensor(ALPHAS).reshape(-1, 1, 1)
    descend(batch, method, strengths, form)
    masks, objective = method.final_masks(), 0.0
    for student, alpha in zip(students, ALPHAS, strict=True):
        alone, own = start([student]), make_method(name, **options)
        own.attach(alone)
        descend(alone, own, alpha, form)
        for key in SHAPES:
            torch.testing.assert_close(batch[key][student], alone[key][0], rtol=1e-5, atol=1e-6)
            assert torch.equal(masks[key][student], own.final_masks()[key][0])
        objective += float(own.objective(alpha).detach())
    assert float(method.objective(strengths).detach()) == pytest.approx(objective, rel=1e-5)


def test_strengths_matter_student_by_student() -> None:
    """Guards the comparison above: equal results would also come from ignoring alpha."""
    params = start([0, 0, 0])
    method = make_method("rl1")
    method.attach(params)
    descend(params, method, torch.tensor(ALPHAS).reshape(-1, 1, 1), "coupled")
    sums = params["weight"].detach().sum(dim=(1, 2))
    assert len(set(sums.tolist())) == 3


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["rl1", "drr", "pmmp", "fpp", "admm"])
def test_one_bad_strength_is_refused(name: str, bad: float) -> None:
    params = start([0, 1])
    method = make_method(name)
    method.attach(params)
    with pytest.raises(UsageError, match="every alpha must be a finite number of at least 0"):
        method.add_to_gradients(torch.tensor([0.1, bad]).reshape(-1, 1, 1))
