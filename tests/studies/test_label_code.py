"""Bytes of a classifier and of labels: what comes back is what was coded, and every byte counts."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from mdlzip.errors import CorruptArchive
from mdlzip.sparsity.base import NoMethod
from mdlzip.studies.classifiers.datasets import InMemory
from mdlzip.studies.classifiers.label_code import (
    best_code,
    choose_step,
    label_bits,
    layout,
    load,
    pack_network,
    step_of,
    unpack_network,
)
from mdlzip.studies.classifiers.networks import make_network, prunable
from mdlzip.studies.classifiers.pruning import Bounds, prune
from mdlzip.studies.classifiers.training import Phase, Trainer, non_zeros
from tests.studies.classifier_tools import NET, QUICK, blob_problem, blob_split, silent


def sparse_network(name: str, keep: float) -> nn.Module:
    model = make_network(name, 10, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for param in prunable(model).values():
            param[torch.rand(param.shape, generator=generator) > keep] = 0
    return model


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5-caffe"])
def test_network_comes_back_from_its_bytes(name: str) -> None:
    model, other = sparse_network(name, 0.02), make_network(name, 10, 9)
    blob = pack_network(model, 0.2)
    nnz = non_zeros(dict(model.named_parameters()))
    assert nnz / 2 < len(blob) < 3 * nnz  # about a byte and a half a weight, places included
    load(other, unpack_network(blob, other))
    for stored in layout(model):
        a, b = (dict(m.named_parameters())[stored.name].detach() for m in (model, other))
        step = step_of(choose_step(a.numpy(), 0.2, 63 if a.ndim > 1 else 127))
        assert float((a - b).abs().max()) <= 0.5001 * step
        assert torch.equal((b / step).round() * step, b)


def test_statistics_of_norms_are_counted_and_come_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    model(torch.rand(8, 3, 6, 6))
    blob = pack_network(model, 0.1)
    assert len(blob) > 2 * 4 * 4
    tensors = unpack_network(blob, model)
    assert torch.equal(tensors["1.running_var"], dict(model.named_buffers())["1.running_var"])
    assert set(tensors) == {n for n in model.state_dict() if "batches" not in n}


def test_damaged_bytes_of_a_network() -> None:
    model = sparse_network("lenet-300-100", 0.01)
    blob = pack_network(model, 0.2)
    for bad in (blob[:5], blob[:-1], blob + b"\0", b"\3" + blob[1:], b""):
        with pytest.raises(CorruptArchive):
            unpack_network(bad, model)
    with pytest.raises(CorruptArchive):
        unpack_network(blob, make_network("lenet-5-caffe", 10, 0))


def test_steps_hold_the_largest_weight() -> None:
    values = np.array([0.0, 1e-3, -2e-3, 9.0], np.float32)
    step = step_of(choose_step(values, 0.1, 63))
    assert 9 / step <= 63.5
    assert choose_step(np.zeros(3, np.float32), 0.1, 63) == 0
    assert -128 <= choose_step(np.full(3, 1e-30, np.float32), 0.1, 63)


def test_label_bits() -> None:
    split = blob_split(40, 0)
    model = make_network(NET, 10, 0)
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
    assert label_bits(model, InMemory(split)) == pytest.approx(40 * math.log2(10))
    with torch.no_grad():
        model[5].bias[3] = math.log(9)  # p(3) = 1/2, the others 1/18
    expected = 4 * 1 + 36 * math.log2(18)
    assert label_bits(model, InMemory(split)) == pytest.approx(expected, rel=1e-6)


def test_best_code_leaves_the_decoded_network() -> None:
    data = blob_problem()
    model = make_network(NET, 10, 0)
    own = Trainer(model, data.train, data.valid, QUICK, NoMethod(), 0, silent)
    own.fit(Phase("train", 4, 1e-3))
    generator = torch.Generator().manual_seed(0)
    prune(model, QUICK, data.plain, data.valid, Bounds(0, 3000), generator)
    finest = deepcopy(model)
    coded = best_code(model, (data.plain,), silent)
    for name, tensor in unpack_network(coded.data, model).items():
        assert torch.equal(dict(model.named_parameters())[name], tensor)
    total = len(coded.data) + label_bits(model, data.plain) / 8
    blob = pack_network(finest, 0.06)
    load(finest, unpack_network(blob, finest))
    assert total <= len(blob) + label_bits(finest, data.plain) / 8 + 1e-6
