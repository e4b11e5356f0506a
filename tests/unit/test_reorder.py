"""Hidden units and values in a chain of neighbours: a permutation, and worth its name in bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdlzip.archive.weights import pack_weights
from mdlzip.config import ModelConfig
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.reorder import chain, like_next_to_like
from tests.weight_tools import PAPER, TINY, random_network


def test_chain_by_hand() -> None:
    rows = np.array(
        [
            [9, 0, 0, 9],  # 9 counts as 2
            [1, 0, 0, 0],  # lightest: the start
            [0, 3, -2, 0],
            [-2, 0, 0, -1],
            [0, 5, 1, 0],
        ],
        np.int8,
    )
    # From row 1: 3 to row 0, 5 to 2, 2 to 3, 4 to 4. From 3: 1 to 0. From 0: 8 to 2, 7 to 4.
    assert chain(rows).tolist() == [1, 3, 0, 4, 2]


@pytest.mark.parametrize("n", [1, 7, 5000])
def test_chain_is_a_permutation(n: int) -> None:
    rows = np.random.default_rng(n).integers(-3, 4, (n, 6)).astype(np.int8)
    assert np.array_equal(np.sort(chain(rows)), np.arange(n))


def clustered() -> IntegerNetwork:
    """A network whose hidden units are of four kinds, each listening to other channels."""
    network = random_network(replace(TINY, d_model=32, d_ff=512))
    tensors = dict(network.tensors)
    for name in ("blocks.0.mlp.up", "blocks.1.mlp.up"):
        codes = tensors[name].codes.copy()
        kinds = np.random.default_rng(1).integers(0, 4, len(codes))
        codes[(np.arange(32) // 8)[None] != kinds[:, None]] = 0
        tensors[name] = replace(tensors[name], codes=codes)
    return replace(network, tensors=tensors)


def test_units_that_are_alike_cost_less_side_by_side() -> None:
    network = clustered()
    before, after = (pack_weights(n).ledger for n in (network, like_next_to_like(network)))
    assert after["positions"] < 0.97 * before["positions"]


@pytest.mark.parametrize("config", [TINY, PAPER], ids=["ours", "paper"])
def test_every_head_keeps_its_values(config: ModelConfig) -> None:
    network = random_network(config)
    reordered = like_next_to_like(network)
    width = network.config.d_model // network.config.n_heads
    for i in range(network.config.n_layers):
        old, new = (n.tensors[f"blocks.{i}.attn.qkv"].codes for n in (network, reordered))
        start = 2 * network.config.d_model
        assert np.array_equal(old[:start], new[:start]), "queries and keys must stay"
        for head in range(start, 3 * network.config.d_model, width):
            rows = [sorted(map(tuple, codes[head : head + width])) for codes in (old, new)]
            assert rows[0] == rows[1]
