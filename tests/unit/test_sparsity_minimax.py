"""PMMP, FPP and ADMM: against brute force over masks, hand-worked steps and autograd."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.admm import ADMM, hard_threshold
from mdlzip.sparsity.base import Method
from mdlzip.sparsity.layerwise import LayerProblem
from mdlzip.sparsity.methods import make_method
from mdlzip.sparsity.pmmp import FPP, PMMP, constraint
from mdlzip.sparsity.updater import Updater


def attached(method: Method, *values: float) -> tuple[Method, nn.Parameter]:
    param = nn.Parameter(torch.tensor(values))
    method.attach({"a": param})
    return method, param


def all_masks(n: int) -> torch.Tensor:
    """Every mask of n entries, float64, shape (2**n, n)."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)


def probabilities(masks: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    return torch.where(masks == 1, gamma, 1 - gamma).prod(dim=1)


def ten(seed: int) -> tuple[torch.Tensor, ...]:
    """theta, w, gamma, u of ten weights, float64."""
    source = torch.Generator().manual_seed(seed)
    theta, w = torch.randn(2, 10, generator=source, dtype=torch.float64)
    gamma, u = torch.rand(2, 10, generator=source, dtype=torch.float64)
    return theta, w, gamma, u


def test_eq_9_against_all_masks() -> None:
    _, w, gamma, _ = ten(1)
    x, target = torch.randn(6, 10, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
    masks = all_masks(10)
    errors = (x @ target - (masks * w) @ x.T).square().sum(dim=1)
    expected = (probabilities(masks, gamma) * errors).sum() / 6
    layer = LayerProblem(target[None], x.T @ x / 6, 0.0)
    torch.testing.assert_close(layer.value(w[None], gamma[None]), expected)


def test_eq_11_against_all_masks_and_its_minimum_is_a_mask() -> None:
    theta, w, gamma, u = ten(2)
    masks = all_masks(10)
    costs = 0.3 * masks.sum(dim=1) + (u * (theta - w * masks).square()).sum(dim=1)
    method = PMMP()
    method.attach({"a": nn.Parameter(theta.clone())})
    for own, value in ((method.w, w), (method.gamma, gamma), (method.u, u)):
        own[0].copy_(value)
    expected = (probabilities(masks, gamma) * costs).sum()
    torch.testing.assert_close(method.objective(0.3).detach(), expected)
    # Prop. 3.2: descending gamma alone ends at the best of the 1,024 masks.
    for _ in range(400):
        method.gamma[0] -= 0.5 * method._slopes_gamma(0.3)[0]
        method.gamma[0].clamp_(0, 1)
    assert torch.equal(method.gamma[0], masks[costs.argmin()])
    torch.testing.assert_close(method.objective(0.3).detach(), costs.min())


def test_pmmp_slopes_are_those_of_the_objective() -> None:
    theta, w, gamma, u = (value.requires_grad_() for value in ten(3))
    value = 0.2 * gamma.sum() + (u * constraint(theta, w, gamma)).sum()
    by_theta, by_w, by_gamma, by_u = torch.autograd.grad(value, (theta, w, gamma, u))
    method = PMMP(weight_decay=0.5)
    param = nn.Parameter(theta.detach().clone())
    method.attach({"a": param})
    for own, start in ((method.w, w), (method.gamma, gamma), (method.u, u)):
        own[0].copy_(start.detach())
    method.add_to_gradients(0.2)
    torch.testing.assert_close(param.grad, by_theta + 0.2 * 0.5 * theta.detach())
    torch.testing.assert_close(method._slopes_w()[0], by_w)
    torch.testing.assert_close(method._slopes_gamma(0.2)[0], by_gamma)
    torch.testing.assert_close(constraint(theta, w, gamma), by_u)
    (own_gradient,) = torch.autograd.grad(method.objective(0.2), param)
    torch.testing.assert_close(own_gradient, param.grad)


def test_pmmp_step_by_hand() -> None:
    method, _ = attached(PMMP(p=0.5, u=2.0, u_multiplier=10.0, update="sgd"), 0.4, 3.0)
    method.advance(1.0, 0.1)
    # w = theta: slope of w is 0; slope of gamma is alpha - u theta^2 = 0.68 and -17
    torch.testing.assert_close(method.w[0], torch.tensor([0.4, 3.0]))
    torch.testing.assert_close(method.gamma[0], torch.tensor([0.432, 1.0]))  # projected
    # u rises at 10 * 0.1 by theta^2 (1 - gamma) = 0.16 * 0.568, and by 0 where gamma = 1
    torch.testing.assert_close(method.u[0], torch.tensor([2 + 0.09088, 2.0]))
    assert method.penalty().item() == pytest.approx(1.432)
    assert method.final_masks()["a"].tolist() == [False, True]


def test_pmmp_shrink_is_the_proximal_step() -> None:
    method, param = attached(PMMP(p=0.5, u=2.0, weight_decay=3.0), 1.0)
    method.shrink(0.7, 0.1)
    # argmin (x - 1)^2 / 2 + 0.1 (2 (x - 0.5)^2 + 0.7 * 3 x^2 / 2)
    assert param.item() == pytest.approx((1 + 0.4 * 0.5) / (1 + 0.4 + 0.21))


@pytest.mark.parametrize("name", ["pmmp", "fpp"])
def test_minimax_finds_the_best_subset(name: str) -> None:
    """Least squares with one useful weight in three: brute force says which survive."""
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    truth = torch.tensor([1.5, 0.0, -0.7, 0.0, 0.02, 0.0])
    y = x @ truth
    alpha = 0.05
    costs = {}
    for keep in itertools.product((False, True), repeat=6):
        mask = torch.tensor(keep)
        fit = torch.linalg.lstsq(x[:, mask], y).solution if mask.any() else torch.zeros(0)
        error = (y - x[:, mask] @ fit).square().mean()
        costs[keep] = float(error) + alpha * sum(keep)
    param = nn.Parameter(torch.full((6,), 0.3))
    method = make_method(name, p=1.0, u=1.0)
    method.attach({"a": param})
    optimiser = torch.optim.Adam([param], lr=0.01)
    for _ in range(1500):
        optimiser.zero_grad()
        (y - x @ param).square().mean().backward()
        method.add_to_gradients(alpha)
        optimiser.step()
        method.advance(alpha, 0.01)
    best = min(costs, key=costs.__getitem__)
    assert tuple(method.final_masks()["a"].tolist()) == best == (True, False, True, *[False] * 3)


def test_fpp_sees_histories_by_hand() -> None:
    method, param = attached(FPP(p=0.5, u=2.0, update="sgd"), 1.0)
    method.advance(0.0, 0.1)
    # gamma: 0.5 + 0.1 * 2 = 0.7 (u's average is 2); u rises by 0.1 * theta^2 (1 - 0.5): it sees
    # gamma's average, still 0.5, where plain PMMP would see 0.7
    assert method.gamma[0].item() == pytest.approx(0.7)
    assert method.u[0].item() == pytest.approx(2.05)
    assert method.means.gamma[0].item() == pytest.approx(0.6)  # exact mean of 0.5 and 0.7
    assert method.means.u[0].item() == pytest.approx(2.025)
    param.data.fill_(0.8)
    method.add_to_gradients(0.0)
    assert param.grad.item() == pytest.approx(2 * 2.025 * (0.8 - 0.7))  # average of u, own gamma
    method.advance(0.0, 0.0)
    assert method.means.theta[0].item() == pytest.approx((1 + 1 + 0.8) / 3)
    moving, _ = attached(FPP(p=0.5, u=2.0, update="sgd", average=0.25), 1.0)
    moving.advance(0.0, 0.1)
    assert moving.means.gamma[0].item() == pytest.approx(0.75 * 0.5 + 0.25 * 0.7)


def test_hard_threshold_of_eq_33_is_the_exact_minimum() -> None:
    torch.manual_seed(1)
    shards = [torch.randn(50) for _ in range(3)]
    z = hard_threshold(shards, alpha=0.4, rho=0.9)

    def cost(point: torch.Tensor) -> torch.Tensor:
        gaps = sum((0.45 * (shard - point).square() for shard in shards), torch.zeros(50))
        return 0.4 * (point != 0) + gaps

    grid = torch.linspace(-4, 4, 8001)
    best = torch.stack([cost(torch.full((50,), float(g))) for g in grid]).amin(dim=0)
    assert torch.all(cost(z) <= best + 1e-6)
    assert 0 < z.count_nonzero() < 50
    edge = torch.tensor([1.0])
    assert hard_threshold([edge], alpha=0.5, rho=1.0) == 0  # 2 alpha = rho w^2: zero
    assert hard_threshold([edge], alpha=0.499, rho=1.0) == 1


def test_admm_by_hand() -> None:
    method, param = attached(ADMM(rho=2.0, every=2), 1.0, 0.3)
    param.data += 0.1  # x = 1.1, 0.4, z = 1, 0.3, u = 0
    method.add_to_gradients(0.25)
    torch.testing.assert_close(param.grad, torch.tensor([0.2, 0.2]))
    method.shrink(0.25, 0.5)  # (x + 1 * z) / 2
    torch.testing.assert_close(param.data, torch.tensor([1.05, 0.35]))
    method.advance(0.25, 0.5)
    assert method.penalty() == 2  # no consensus yet
    method.advance(0.25, 0.5)  # threshold 2 * 0.25 < 2 w^2: |w| > 0.5
    torch.testing.assert_close(method.z[0], torch.tensor([1.05, 0.0]))
    torch.testing.assert_close(method.u[0][0], torch.tensor([0.0, 0.35]))
    assert method.final_masks()["a"].tolist() == [True, False]
    (gradient,) = torch.autograd.grad(method.objective(0.25), param)
    param.grad = None
    method.add_to_gradients(0.25)
    torch.testing.assert_close(param.grad, gradient)


def test_admm_shards_agree_on_the_common_minimum() -> None:
    """Two quadratics with minima at 1 and 3 (and 0.1, 0.1): consensus at 2, the small one at 0."""
    centres = torch.tensor([[1.0, 0.1], [3.0, 0.1]])
    method, param = attached(ADMM(rho=1.0, shards=2), 1.0, 0.1)
    for _ in range(60):
        for shard in range(2):
            method.enter(shard)
            for _ in range(40):
                param.grad = param.detach() - centres[shard]
                method.add_to_gradients(0.1)
                param.data -= 0.3 * param.grad
        method.consensus(0.1)
    torch.testing.assert_close(method.z[0], torch.tensor([2.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(method.x[0][0][0], torch.tensor(2.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_updater_is_torchs_optimiser(kind: str) -> None:
    torch.manual_seed(0)
    own = torch.randn(5)
    param = nn.Parameter(own.clone())
    optimiser = (
        torch.optim.Adam([param], lr=0.1) if kind == "adam" else torch.optim.SGD([param], lr=0.1)
    )
    updater = Updater([own], kind)
    for _ in range(5):
        param.grad = torch.randn(5)
        updater.step([param.grad], [0.1])
        optimiser.step()
    torch.testing.assert_close(own, param.detach())


@pytest.mark.parametrize(
    ("name", "options"),
    [("pmmp", {}), ("pmmp", {"update": "sgd"}), ("fpp", {}), ("admm", {"every": 3})],
)
def test_a_run_goes_on_to_the_bit_from_its_state(name: str, options: dict) -> None:
    def run(steps: int, method: Method, param: nn.Parameter) -> None:
        for _ in range(steps):
            param.grad = param.detach() - 0.4
            method.add_to_gradients(0.01)
            param.data -= 0.05 * param.grad
            method.advance(0.01, 0.05)

    whole, param = attached(make_method(name, **options), 0.5, -0.2, 0.01)
    run(10, whole, param)
    first, half = attached(make_method(name, **options), 0.5, -0.2, 0.01)
    run(5, first, half)
    saved = {key: value.clone() for key, value in first.state_dict().items()}
    second, again = attached(make_method(name, **options), *half.tolist())
    second.load_state_dict(saved)
    run(5, second, again)
    assert torch.equal(again, param)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in second.state_dict().items())
    with pytest.raises(UsageError, match="does not fit"):
        second.load_state_dict({"w.b": torch.zeros(3)})
    with pytest.raises(UsageError, match="shape"):
        second.load_state_dict({key: torch.zeros(7) for key in saved})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pmmp", {"p": 1.5}),
        ("pmmp", {"u": -1.0}),
        ("pmmp", {"u": math.inf}),
        ("pmmp", {"rate": 0.0}),
        ("pmmp", {"update": "lion"}),
        ("fpp", {"average": 0.0}),
        ("admm", {"rho": 0.0}),
        ("admm", {"every": 0}),
    ],
)
def test_minimax_methods_refuse(name: str, options: dict) -> None:
    with pytest.raises(UsageError):
        make_method(name, **options)
