"""The memory that is predicted for a device is what the tensors of the backend take."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mdlzip.config import load_preset
from mdlzip.errors import LimitExceeded
from mdlzip.networks.registry import activation_sites, tensor_specs
from mdlzip.quantised import kernels_torch
from mdlzip.quantised.device_memory import (
    MOST_CHUNKS,
    MOST_SYMBOLS,
    call_bytes,
    device_limit,
    fit_tiles,
)
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.quantised.predictor import Predictor
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.vocabulary import N_BYTES, Vocabulary

LAYOUT = Layout(1 << 24, 512, 128)
GIB = 1 << 30


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that are there at a time; peak: the most of them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone() -> None:
            self.now -= size
            self._known.discard(key)

        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, gone)


def network(preset: str) -> IntegerNetwork:
    config = replace(load_preset(preset).model, n_merges=0)
    rng, tensors = np.random.default_rng(0), {}
    for name, spec in tensor_specs(config).items():
        codes = rng.integers(-3, 4, spec.shape).astype(np.int8)
        tensors[name] = QuantTensor(codes, 40000, 20 if spec.is_matrix and spec.by_symbol else 22)
    exponents = dict.fromkeys(activation_sites(config), 4)
    return IntegerNetwork(config, tensors, exponents, Vocabulary())


@pytest.mark.parametrize(("preset", "chunks", "positions"), [
    ("nano", 64, 1), ("nano", 16, 128), ("base", 64, 1), ("base", 8, 128), ("ut4", 8, 64),
    ("ut4", 16, 1),
])  # fmt: skip
def test_a_call_takes_what_is_predicted(preset: str, chunks: int, positions: int) -> None:
    net = network(preset)
    rng, room = np.random.default_rng(1), LAYOUT.chunk_size
    symbols = rng.integers(0, 256, (chunks, room), dtype=np.int16)
    predictor, live = Predictor(net, room, kernels="torch"), Live()
    start = room - 2 * positions  # the caches are full, and a call like that under test was before
    with live:
        state = predictor.new_state(chunks)
        for t in range(0, start, 64):
            predictor.forward(symbols[:, t : min(t + 64, start)], state)
        predictor.forward(symbols[:, start : start + positions], state)
        live.peak = live.now
        predictor.forward(symbols[:, start + positions :], state)
    predicted = call_bytes(net.shape, LAYOUT, N_BYTES, chunks, positions)
    assert 1.0 <= predicted / live.peak <= 2.0


def test_scores_are_never_more_than_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same integers in parts of a few queries as at once; a long chunk takes less memory."""
    net, peaks, found = network("nano"), [], []
    symbols = np.random.default_rng(1).integers(0, 256, (2, 512), dtype=np.int16)
    for bound in (1 << 30, 1 << 12):
        monkeypatch.setattr(kernels_torch, "SCORES_AT_ONCE", bound)
        predictor, live = Predictor(net, 512, kernels="torch"), Live()
        with live:
            found.append(predictor.forward(symbols, predictor.new_state(2)).copy())
        peaks.append(live.peak)
    assert np.array_equal(*found)
    assert peaks[1] < peaks[0] / 2


@pytest.mark.parametrize("preset", ["nano", "base", "large", "huge", "ut4", "ut25", "ut308"])
def test_tiles_keep_the_limit(preset: str) -> None:
    config = load_preset(preset).model
    free = fit_tiles(config, LAYOUT, N_BYTES, threads=4, limit=None)
    assert (free.threads, free.chunks, free.symbols) == (4, MOST_CHUNKS, MOST_SYMBOLS)
    before = free.memory_bytes
    for limit in (80 * GIB, 24 * GIB, 8 * GIB):
        tiles = fit_tiles(config, LAYOUT, N_BYTES, threads=4, limit=limit)
        assert tiles.memory_bytes <= min(limit, before)
        assert tiles.chunks >= LAYOUT.group_chunks
        before = tiles.memory_bytes
    with pytest.raises(LimitExceeded, match="--device cpu"):
        fit_tiles(config, LAYOUT, N_BYTES, threads=4, limit=1 << 20)


def test_the_limit_is_what_was_given_where_nothing_tells_what_is_free() -> None:
    assert device_limit("cpu", 5) == 5
    assert device_limit("cpu", None) is None
