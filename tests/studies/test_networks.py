"""The classifiers: parameter counts, shapes, and small copies that compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mdlzip.errors import UsageError
from mdlzip.studies.classifiers.compact import Compaction, can_shrink
from mdlzip.studies.classifiers.networks import (
    NETWORKS,
    Bottleneck,
    count_parameters,
    make_network,
    prunable,
    resnet_50,
)

MNIST = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("lenet-300-100", 10, 266_610),
        ("lenet-5-caffe", 10, 431_080),
        ("vgg-16-512", 10, 14_986_698),
        ("resnet-50", 1000, 25_557_032),
    ],
)
def test_parameter_counts(name: str, classes: int, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(NETWORKS[name](classes)) == count


def test_shapes() -> None:
    for name in ("lenet-300-100", "lenet-5-caffe"):
        assert make_network(name, 10, 0)(MNIST).shape == (3, 10)
    assert make_network("vgg-16-512", 7, 0).eval()(torch.rand(1, 3, 32, 32)).shape == (1, 7)
    block = Bottleneck(16, 8, stride=2).eval()
    assert block(torch.rand(2, 16, 8, 8)).shape == (2, 32, 4, 4)


def test_resnet_keeps_the_published_names_of_its_sizes() -> None:
    with torch.device("meta"):
        model = resnet_50(10)
    assert sum(isinstance(m, Bottleneck) for m in model) == 16
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 53


def test_seed_decides_and_the_global_state_stays() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, third = (make_network("lenet-300-100", 10, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first[1].weight, second[1].weight)
    assert not torch.equal(first[1].weight, third[1].weight)


def test_unknown_net() -> None:
    with pytest.raises(UsageError, match="choose one of lenet-300-100"):
        make_network("alexnet", 10, 0)


def test_norms_are_not_thresholded() -> None:
    with torch.device("meta"):
        model = make_network("vgg-16-512", 10, 0)
    names = set(prunable(model))
    assert count_parameters(model) - sum(p.numel() for p in prunable(model).values()) == 8448
    assert "0.weight" in names and "1.weight" not in names


def thinned(name: str, share: float) -> nn.Sequential:
    """A network with units dead in each layer and a `share` of the other weights at 0."""
    model = make_network(name, 10, 0)
    generator = torch.Generator().manual_seed(1)
    layers = [m for m in model if isinstance(m, (nn.Linear, nn.Conv2d))]
    with torch.no_grad():
        for layer in layers:
            layer.weight[torch.rand(layer.weight.shape, generator=generator) < share] = 0
            assert layer.bias is not None
            if layer is not layers[-1]:
                dead = torch.rand(layer.weight.shape[0], generator=generator) < 0.4
                layer.weight[dead], layer.bias[dead] = 0, 0
    return model


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5-caffe"])
def test_small_copy_computes_the_same(name: str) -> None:
    model = thinned(name, 0.5)
    assert can_shrink(model)
    compaction = Compaction(model)
    small = compaction.shrink(model)
    assert count_parameters(small) < 0.6 * count_parameters(model)
    assert torch.allclose(small(MNIST), model(MNIST), atol=1e-5)
    with torch.no_grad():
        for param in small.parameters():
            param.add_(0.01 * (param != 0))
    compaction.put(small, model)
    assert torch.allclose(small(MNIST), model(MNIST), atol=1e-5)
    for a, b in zip(small.parameters(), model.parameters(), strict=True):
        assert torch.count_nonzero(a) == torch.count_nonzero(b) > 0


def test_small_copy_of_a_dead_network_still_runs() -> None:
    model = make_network("lenet-5-caffe", 10, 0)
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
    small = Compaction(model).shrink(model)
    assert torch.equal(small(MNIST), torch.zeros(3, 10))


def test_only_plain_chains_shrink() -> None:
    with torch.device("meta"):
        assert not can_shrink(make_network("vgg-16-512", 10, 0))
