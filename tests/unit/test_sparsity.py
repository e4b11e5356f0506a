"""R-L1, DRR, schedules, masks: against hand-worked numbers and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.masks import (
    MaskHold,
    apply_masks_,
    density,
    from_nonzero,
    nnz,
)
from mdlzip.sparsity.methods import METHODS, make_method
from mdlzip.sparsity.schedule import AlphaSchedule


def params_of(**values: list) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.tensor(value)) for name, value in values.items()}


def random_params(seed: int = 0) -> dict[str, nn.Parameter]:
    source = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (4, 3), "conv": (2, 3, 2, 2), "bias": (5,)}
    return {
        name: nn.Parameter(torch.randn(shape, generator=source)) for name, shape in shapes.items()
    }


GRADIENT_CASES = [
    ("none", {}),
    ("rl1", {}),
    ("drr", {}),
    ("drr", {"beta": 2.0}),
    ("drr", {"relaxation": "gaussian", "beta": 0.7}),
    ("drr", {"relaxation": "student", "beta": 0.7}),
    ("drr", {"layerwise": "cells"}),
    ("drr-o", {"rho": 0.3}),
]


@pytest.mark.parametrize(("name", "options"), GRADIENT_CASES)
def test_gradient_is_that_of_the_objective(name: str, options: dict) -> None:
    params = random_params()
    method = make_method(name, **options)
    method.attach(params)
    for param in params.values():
        param.grad = torch.full_like(param, 0.25)
    method.add_to_gradients(0.7)
    objective = method.objective(0.7)
    if name == "none":
        assert objective == 0
        assert all(torch.all(p.grad == 0.25) for p in params.values())
        return
    expected = torch.autograd.grad(objective, list(params.values()))
    for param, gradient in zip(params.values(), expected, strict=True):
        torch.testing.assert_close(param.grad, gradient + 0.25)


def test_rl1_by_hand() -> None:
    params = params_of(a=[0.5, -2.0, 0.0], b=[[1.0]])
    method = make_method("rl1")
    method.attach(params)
    method.add_to_gradients(0.1)  # a missing .grad is created
    torch.testing.assert_close(params["a"].grad, torch.tensor([0.1, -0.1, 0.0]))
    torch.testing.assert_close(params["b"].grad, torch.tensor([[0.1]]))
    assert method.penalty().item() == pytest.approx(3.5)


def test_rl1_shrink_by_hand_stops_at_zero() -> None:
    params = params_of(a=[0.5, -2.0, 0.0, 0.02, -0.05], b=[[1.0, -0.01]])
    method = make_method("rl1")
    method.attach(params)
    method.shrink(0.5, {"a": 0.1, "b": 0.02})  # thresholds 0.05 and 0.01
    torch.testing.assert_close(params["a"].data, torch.tensor([0.45, -1.95, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(params["b"].data, torch.tensor([[0.99, 0.0]]))
    assert params["a"].data[3:].count_nonzero() == 0  # exactly
    assert method.final_masks()["a"].tolist() == [True, True, False, False, False]


def test_rl1_shrink_is_the_proximal_step() -> None:
    grid = torch.linspace(-3, 3, 60001, dtype=torch.float64)
    for start in (-1.3, -0.2, 0.05, 0.4, 2.0):
        params = params_of(a=[start])
        method = make_method("rl1")
        method.attach(params)
        method.shrink(0.6, 0.5)
        best = grid[torch.argmin((grid - start) ** 2 / 2 + 0.3 * grid.abs())].item()
        assert params["a"].item() == pytest.approx(best, abs=1e-4)


def test_drr_by_hand() -> None:
    params = params_of(a=[0.2, -0.2, 0.0, 3.0])
    method = make_method("drr")
    method.attach(params)
    method.add_to_gradients(0.1)
    force = 0.1 * 5 * math.exp(-1)  # alpha * beta * exp(-beta * 0.2)
    expected = torch.tensor([force, -force, 0.0, 0.1 * 5 * math.exp(-15)])
    torch.testing.assert_close(params["a"].grad, expected)
    assert method.penalty().item() == pytest.approx(2 * (1 - math.exp(-1)) + 1, abs=1e-5)


def test_relaxations_of_eq_36_by_hand() -> None:
    expected = {"gaussian": 1 - math.exp(-0.5), "student": 1 - 1 / (1 + 1 / 3)}
    for name, value in expected.items():
        method = make_method("drr", relaxation=name, beta=0.4)
        method.attach(params_of(a=[-0.4]))
        assert method.penalty().item() == pytest.approx(value, abs=1e-6)


def test_drr_shrink_by_hand_and_never_across() -> None:
    params = params_of(a=[0.2, -0.01, 3.0])
    method = make_method("drr")
    method.attach(params)
    method.shrink(0.1, 0.5)
    step = 0.5 * 0.1 * 5 * math.exp(-1)
    torch.testing.assert_close(
        params["a"].data, torch.tensor([0.2 - step, 0.0, 3.0]), atol=1e-6, rtol=0
    )
    assert params["a"][1] == 0


def test_drr_shrink_matches_its_gradient_for_small_rates() -> None:
    for options in ({}, {"relative": True}, {"rho": 0.2, "layerwise": "units"}):
        params = random_params(3)
        before = {name: param.detach().clone() for name, param in params.items()}
        method = make_method("drr", **options)
        method.attach(params)
        method.add_to_gradients(0.5)
        method.shrink(0.5, 1e-3)
        for name, param in params.items():
            step = (before[name] - param.detach()) / 1e-3
            torch.testing.assert_close(step, param.grad, atol=2e-3, rtol=2e-3)


def test_relative_drr_does_not_see_the_scale_of_a_tensor() -> None:
    base = torch.tensor([0.1, -0.5, 2.0, 0.0])
    methods = []
    for factor in (1.0, 100.0):
        params = {"a": nn.Parameter(base * factor)}
        method = make_method("drr", relative=True)
        method.attach(params)
        method.add_to_gradients(1.0)
        methods.append((method.penalty().item(), params["a"].grad * factor))
    assert methods[0][0] == pytest.approx(methods[1][0], rel=1e-5)
    torch.testing.assert_close(methods[0][1], methods[1][1])


def test_relative_drr_survives_a_tensor_of_zeros() -> None:
    params = params_of(a=[0.0, 0.0])
    method = make_method("drr", relative=True)
    method.attach(params)
    method.add_to_gradients(1.0)
    method.shrink(1.0, 0.1)
    assert params["a"].tolist() == [0, 0] and params["a"].grad.tolist() == [0, 0]


def test_layerwise_factors_by_hand() -> None:
    params = {"m": nn.Parameter(torch.ones(2, 3)), "v": nn.Parameter(torch.ones(6))}
    method = make_method("drr-o")
    method.attach(params)
    # 1/2 and 1/6 with 6 weights each: mean 1/3, so 1.5 and 0.5
    assert method.weights == pytest.approx([1.5, 0.5])
    conv = make_method("drr", layerwise="units")
    conv.attach({"c": nn.Parameter(torch.ones(2, 3, 2, 2)), "m": params["m"]})
    # 24 weights at 1/6 and 6 at 1/2: mean 7/30
    assert conv.weights == pytest.approx([30 / 42, 30 / 14])


def test_methods_refuse_bad_use() -> None:
    with pytest.raises(UsageError, match=r"rl1, drr"):
        make_method("l1")
    with pytest.raises(UsageError, match="it takes beta"):
        make_method("drr", betta=3)
    with pytest.raises(UsageError, match="alpha"):
        make_method("rl1", alpha=-1.0)
    with pytest.raises(UsageError, match="beta"):
        make_method("drr", beta=0.0)
    with pytest.raises(UsageError, match="gaussian"):
        make_method("drr", relaxation="cauchy")
    for name in METHODS:
        method = make_method(name)
        with pytest.raises(UsageError, match="no parameters"):
            method.attach({})
    method = make_method("rl1")
    method.attach(params_of(a=[1.0]))
    with pytest.raises(UsageError, match="alpha"):
        method.add_to_gradients(-0.1)
    with pytest.raises(UsageError, match="alpha"):
        method.shrink(math.nan, 0.1)
    with pytest.raises(UsageError, match="learning rate"):
        method.shrink(0.1, {"b": 0.1})


def test_schedule_by_hand() -> None:
    linear = AlphaSchedule(2.0, warmup=0.4, ramp="linear", start=0.1, stop=0.8)
    assert [linear(p) for p in (0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.81, 1.0)] == pytest.approx(
        [0, 0, 1, 2, 2, 2, 0, 0]
    )
    cosine = AlphaSchedule(2.0, warmup=0.5, ramp="cosine")
    assert cosine(0.125) == pytest.approx(2 * (0.5 - 0.5 * math.cos(math.pi / 4)))
    assert cosine(0.25) == pytest.approx(1.0)
    steps = AlphaSchedule(2.0, warmup=0.5, ramp="constant")
    assert [steps(p) for p in (0.0, 0.49, 0.5, 1.0, 7.0)] == [0, 0, 2, 2, 2]
    assert AlphaSchedule(3.0)(0.0) == 3.0


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": -1.0},
        {"alpha": math.inf},
        {"alpha": 1.0, "ramp": "cubic"},
        {"alpha": 1.0, "start": 0.6, "stop": 0.5},
        {"alpha": 1.0, "warmup": 1.5},
    ],
)
def test_schedule_refuses(options: dict) -> None:
    with pytest.raises(UsageError):
        AlphaSchedule(**options)


def test_masks_clean_weights_gradients_and_momentum() -> None:
    params = params_of(a=[1.0, 2.0, 3.0], b=[4.0])
    optimiser = torch.optim.Adam(params.values(), lr=0.1)
    for param in params.values():
        param.grad = torch.ones_like(param)
    optimiser.step()
    masks = {"a": torch.tensor([True, False, True])}
    apply_masks_(params, masks, optimiser)
    assert params["a"][1] == 0 and params["a"].grad.tolist() == [1, 0, 1]
    state = optimiser.state[params["a"]]
    assert state["exp_avg"][1] == 0 and state["exp_avg_sq"][1] == 0 and state["exp_avg"][0] != 0
    assert params["b"] != 0 and params["b"].grad == 1
    assert nnz(masks) == 2 and density(masks) == pytest.approx(2 / 3)
    assert nnz(params) == 3 and from_nonzero(params)["a"].tolist() == [True, False, True]
    assert density({}) == 1.0


def test_masks_refuse_misfits() -> None:
    params = params_of(a=[1.0, 2.0])
    for masks in (
        {"x": torch.tensor([True])},
        {"a": torch.tensor([True])},
        {"a": torch.tensor([1.0, 0.0])},
    ):
        with pytest.raises(UsageError):
            apply_masks_(params, masks)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_held_masks_stay_dead_under_momentum_and_decay(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    params = dict(model.named_parameters())
    optimiser = (
        torch.optim.AdamW(params.values(), lr=0.05, weight_decay=0.1)
        if kind == "adamw"
        else torch.optim.SGD(params.values(), lr=0.05, momentum=0.9, nesterov=True)
    )

    def train(steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            (model(torch.randn(8, 6)) - 1).square().mean().backward()
            optimiser.step()

    train(3)
    masks = {"weight": torch.rand(4, 6) < 0.5}
    start = params["weight"].detach().clone()
    with MaskHold(params, masks, optimiser):
        train(5)
        assert torch.equal(params["weight"].detach() != 0, masks["weight"])
        assert not torch.equal(params["weight"].detach() * masks["weight"], start * masks["weight"])
    train(1)
    assert params["weight"].count_nonzero() == 24  # released
