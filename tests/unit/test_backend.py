"""Both backends of the predictor: calls of any lengths in turn, states apart, buffers kept."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from mdlzip.quantised import selftest
from mdlzip.quantised.backend_cpu import CpuCache
from mdlzip.quantised.predictor import Predictor, shifted

LENGTH = 40
CUTS = (0, 1, 2, 9, 10, 18, 39, 40)  # calls for one position after others, and for as many again


def data(batch: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, LENGTH), dtype=np.uint8)


@pytest.fixture(params=selftest.CONFIGS, ids=lambda c: c.norm)
def whole(request: pytest.FixtureRequest) -> Predictor:
    return Predictor(selftest.random_network(request.param), LENGTH)


@pytest.mark.parametrize("kernels", ["cpu", "torch"])
def test_calls_of_any_lengths_agree(whole: Predictor, kernels: str) -> None:
    network = selftest.random_network(whole.task.config)
    predictor, previous = Predictor(network, LENGTH, kernels=kernels), shifted(data(3))
    expected = whole.forward(previous, whole.new_state(3))
    assert expected.dtype == np.uint16 and expected.any()
    state = predictor.new_state(3)
    for start, stop in pairwise(CUTS):
        found = predictor.forward(previous[:, start:stop], state)
        assert found.dtype == np.uint16
        assert np.array_equal(found, expected[:, start:stop])
    with pytest.raises(ValueError, match="more positions"):
        predictor.forward(previous[:, :1], state)


@pytest.mark.parametrize("kernels", ["cpu", "torch"])
def test_states_share_nothing(whole: Predictor, kernels: str) -> None:
    network = selftest.random_network(whole.task.config)
    predictor = Predictor(network, LENGTH, kernels=kernels)
    inputs = [shifted(data(2, seed)) for seed in (1, 2)]
    expected = [whole.forward(x, whole.new_state(2)).copy() for x in inputs]
    states = [predictor.new_state(2) for _ in inputs]
    for t in range(LENGTH):
        now = slice(t, t + 1)
        found = [predictor.forward(x[:, now], s) for x, s in zip(inputs, states, strict=True)]
        for ours, theirs in zip(found, expected, strict=True):
            assert np.array_equal(ours, theirs[:, now])


def test_a_position_after_another_takes_no_new_memory(whole: Predictor) -> None:
    previous, state = shifted(data(256)), whole.new_state(256)
    for t in range(2):
        whole.forward(previous[:, t : t + 1], state)
    assert isinstance(state.cache, CpuCache)
    gaps = state.cache.gaps
    tracemalloc.start()
    try:
        for t in range(2, 20):
            whole.forward(previous[:, t : t + 1], state)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert state.cache.gaps is gaps
    assert peak < gaps.nbytes / 2  # numpy's own work space of 32 KiB


def test_buffers_follow_the_chunks_that_are_left(whole: Predictor) -> None:
    previous, state = shifted(data(8)), whole.new_state(8)
    whole.forward(previous[:, :1], state)
    rows = np.arange(8) % 2 == 0
    whole.narrow(state, rows)
    assert whole.forward(previous[rows, 1:2], state).shape[0] == 4
    assert state.cache.gaps.shape[:2] == (4, 1)
