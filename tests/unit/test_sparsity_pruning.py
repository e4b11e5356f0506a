"""TAMADE and random gradient pruning: against brute force and small networks drawn by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.masks import nnz
from mdlzip.sparsity.random_gradient import random_gradient_prune
from mdlzip.sparsity.tamade import find_threshold, rms_scales


class Distance:
    """Loss 1 + squared distance from the first weights: monotone in the threshold."""

    def __init__(self, params: dict[str, nn.Parameter]) -> None:
        self.params = params
        self.start = {name: param.detach().clone() for name, param in params.items()}
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        gaps = [(p.detach() - self.start[name]).square().sum() for name, p in self.params.items()]
        return 1.0 + float(torch.stack(gaps).sum())


def two_tensors(seed: int, factor: float = 1.0) -> dict[str, nn.Parameter]:
    source = torch.Generator().manual_seed(seed)
    return {
        "a": nn.Parameter(torch.randn(5, 7, generator=source)),
        "b": nn.Parameter(torch.randn(9, generator=source) * factor),
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", ["none", "rms"])
def test_threshold_agrees_with_brute_force(seed: int, scale: str) -> None:
    params = two_tensors(seed, factor=30.0)
    loss = Distance(params)
    units = rms_scales(params) if scale == "rms" else {"a": 1.0, "b": 1.0}
    sizes = {name: start.abs() / units[name] for name, start in loss.start.items()}
    most = 0  # brute force: try every magnitude that occurs
    for candidate in torch.cat([size.flatten() for size in sizes.values()]).tolist():
        cut = {name: size <= candidate for name, size in sizes.items()}
        added = sum(float(loss.start[n][c].square().sum()) for n, c in cut.items())
        if added <= 0.5:
            most = max(most, sum(int(c.sum()) for c in cut.values()))
    assert most > 0
    threshold, masks = find_threshold(params, loss, 0.5, scale=scale, steps=60)
    assert nnz(masks) == 44 - most
    for name, param in params.items():
        alive = sizes[name] > threshold
        assert torch.equal(masks[name], alive)
        assert torch.equal(param.detach(), loss.start[name] * alive)  # survivors keep every bit


def test_steps_bound_the_probes_and_report_them() -> None:
    params = two_tensors(0)
    loss = Distance(params)
    seen: list[tuple[float, float, bool]] = []
    find_threshold(params, loss, 0.5, steps=6, on_probe=lambda *probe: seen.append(probe))
    assert len(seen) == 6 and loss.calls == 7  # one more for the target
    assert all(accepted == (value <= 1.5) for _, value, accepted in seen)
    top = max(float(start.abs().max()) for start in loss.start.values())
    assert seen[0][0] == pytest.approx(top / 2)


def test_accuracy_mode_is_absolute() -> None:
    weight = nn.Parameter(torch.arange(1.0, 11.0))
    # each lost weight costs 0.05 of accuracy; 0.12 allows two
    threshold, masks = find_threshold(
        {"w": weight},
        lambda: 0.9 - 0.05 * (10 - int(weight.count_nonzero())),
        0.12,
        mode="accuracy",
        steps=40,
    )
    assert masks["w"].tolist() == [False] * 2 + [True] * 8
    assert 2 <= threshold < 3


def test_given_target_and_negative_losses() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    lost = lambda: -10.0 + (3 - int(weight.count_nonzero()))  # noqa: E731
    assert find_threshold({"w": weight}, lost, 0.15).masks["w"].tolist() == [False, True, True]
    weight.data.copy_(torch.tensor([1.0, 2.0, 3.0]))
    masks = find_threshold({"w": weight}, lost, 0.0, target=-8.0).masks
    assert masks["w"].tolist() == [False, False, True]
    weight.data.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert find_threshold({"w": weight}, lost, 0.0, target=-20.0).masks["w"].all()


def test_scale_by_name_and_exact_zeros() -> None:
    params = {
        "a": nn.Parameter(torch.tensor([0.0, 1.0, 4.0])),
        "b": nn.Parameter(torch.tensor([100.0, -500.0])),
    }
    assert rms_scales(params) == pytest.approx({"a": math.sqrt(17 / 2), "b": math.sqrt(130000)})
    loss = Distance(params)
    masks = find_threshold(
        params, loss, 0.0, target=1e4 + 2, scale={"a": 1.0, "b": 100.0}, steps=50
    ).masks
    assert masks["a"].tolist() == [False, False, True] and masks["b"].tolist() == [False, True]


def test_a_failing_loss_restores_the_weights() -> None:
    params = two_tensors(1)
    loss = Distance(params)

    def broken() -> float:
        if loss.calls == 3:
            raise KeyboardInterrupt
        return loss()

    with pytest.raises(KeyboardInterrupt):
        find_threshold(params, broken, 0.5)
    assert all(torch.equal(p.detach(), loss.start[n]) for n, p in params.items())


def test_nan_is_never_accepted() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    masks = find_threshold({"w": weight}, lambda: math.nan, 0.1, target=1.0).masks
    assert masks["w"].all()


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "error"},
        {"tolerance": -0.1},
        {"tolerance": math.nan},
        {"target": math.inf},
        {"scale": "max"},
        {"scale": {"w": 0.0}},
        {"low": -1.0},
    ],
)
def test_tamade_refuses(options: dict) -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    with pytest.raises(UsageError):
        find_threshold({"w": weight}, lambda: 1.0, **{"tolerance": 0.1, **options})
    assert weight == 1.0


class Layered(nn.Module):
    """The two-hidden-layer network of Fig. 2: 2 inputs, 4 + 4 hidden neurons, 1 output."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.activation(self.two(self.activation(self.one(x)))))


def figure_two(activation: nn.Module) -> Layered:
    """A Fig. 2 network: neurons without listeners, and one that hears nothing, in both layers."""
    torch.manual_seed(4)
    model = Layered(activation)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.rand_like(param) + 0.1)
        model.out.weight[0, 0] = 0  # neuron 0 of layer two has no outgoing weights
        model.two.weight[1:, 1] = 0  # neuron 1 of layer one feeds only that neuron
        model.two.weight[3, :] = 0  # neuron 3 of layer two hears nothing
        model.two.bias[3] = 0
        model.one.weight[2, :] = 0  # neuron 2 of layer one hears nothing, but has a bias
    return model


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()])
def test_neurons_of_figure_two_are_deleted(activation: nn.Module) -> None:
    model = figure_two(activation)
    probe = torch.randn(64, 2)
    before = model(probe).detach()
    start = {name: param.detach().clone() for name, param in model.named_parameters()}
    masks = random_gradient_prune(model, lambda: model(torch.randn(16, 2)))
    expected = {name: value != 0 for name, value in start.items()}
    expected["two.weight"][0, :] = False  # into the neuron without listeners
    expected["two.bias"][0] = False
    expected["one.weight"][1, :] = False  # and, through it, one layer down
    expected["one.bias"][1] = False
    expected["out.weight"][0, 3] = False  # out of the neuron that hears nothing
    if isinstance(activation, nn.ReLU):  # relu'(0) = 0: nothing can wake it up
        expected["two.weight"][3, :] = False
    for name, param in model.named_parameters():
        assert torch.equal(masks[name], expected[name]), name
        assert torch.equal(param.detach(), start[name] * expected[name]), name
        assert param.grad is None
    assert torch.equal(model(probe).detach(), before)


def test_excluded_parameters_are_left_alone() -> None:
    model = figure_two(nn.ReLU())
    masks = random_gradient_prune(model, lambda: model(torch.randn(16, 2)), exclude=["two.*"])
    assert set(masks) == {"one.weight", "one.bias", "out.weight", "out.bias"}
    assert (model.two.weight[0, :] != 0).all() and not masks["one.weight"][1].any()


class Lookup(nn.Module):
    """An embedding read by a linear layer; `spare` is used by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(6, 3), nn.Linear(3, 2)
        self.spare = nn.Linear(3, 2)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(symbols))


def test_embedding_rows_need_every_symbol_or_exclusion() -> None:
    torch.manual_seed(0)
    model = Lookup()
    masks = random_gradient_prune(model, lambda: model(torch.randperm(6)))
    assert masks["table.weight"].all() and masks["head.weight"].all()
    assert not masks["spare.weight"].any() and not model.spare.weight.any()
    masks = random_gradient_prune(model, lambda: model(torch.arange(3)), exclude=["table.*"])
    assert model.table.weight.count_nonzero() == 18
    masks = random_gradient_prune(model, lambda: model(torch.arange(3)))  # the trap, documented
    assert masks["table.weight"].sum() == 9


def test_samples_save_units_that_are_off_by_chance() -> None:
    class Gate(nn.Module):
        """A unit that only wakes for z > 1."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0]))

        def forward(self, z: float) -> torch.Tensor:
            return torch.relu(self.weight * z - 1).square()

    draws = [0.5, 0.2, 2.0]
    model = Gate()
    inputs = iter(draws)
    assert random_gradient_prune(model, lambda: model(next(inputs)), samples=3)["weight"].all()
    inputs = iter(draws)
    assert not random_gradient_prune(model, lambda: model(next(inputs)), samples=2)["weight"].any()


def test_random_gradient_pruning_keeps_the_mode_and_is_repeatable() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.drop = nn.Linear(3, 1), nn.Dropout(0.99)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.drop(self.layer(z))

    model = Noisy().train()
    source = torch.Generator().manual_seed(1)
    masks = random_gradient_prune(
        model, lambda: model(torch.ones(1, 3)), samples=1, generator=source
    )
    assert model.training and masks["layer.weight"].all()


def test_random_gradient_pruning_refuses() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(UsageError, match=r"'embedding\.\*'"):
        random_gradient_prune(model, lambda: model(torch.ones(2)), exclude=["embedding.*"])
    with pytest.raises(UsageError, match="samples"):
        random_gradient_prune(model, lambda: model(torch.ones(2)), samples=0)
    with pytest.raises(UsageError, match="gradient"):
        random_gradient_prune(model, lambda: model(torch.ones(2)).detach())
