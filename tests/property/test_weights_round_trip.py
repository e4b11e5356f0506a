"""Whatever the network, the section gives it back; whatever the bytes, nothing but our errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mdlzip.archive.weights import pack_weights, unpack_weights
from mdlzip.archive.weights_head import weights_summary
from mdlzip.config import ModelConfig
from mdlzip.errors import CorruptArchive
from tests.archive_tools import weights_source
from tests.weight_tools import PAPER, TINY, random_network, same_network

CONFIGS = st.builds(
    lambda base, width, ff, layers, taps: replace(
        base, d_model=2 * width, d_ff=ff, n_layers=layers, n_heads=1, conv_width=taps
    ),
    st.sampled_from([TINY, PAPER]),
    st.integers(4, 9),
    st.integers(8, 20),
    st.integers(1, 3),
    st.integers(0, 3),
)


@settings(max_examples=30, deadline=None)
@given(
    config=CONFIGS,
    seed=st.integers(0, 1 << 30),
    density=st.floats(0, 1),
    size=st.floats(0.3, 60),
    mode=st.sampled_from(["coded", "coo"]),
)
def test_round_trip(config: ModelConfig, seed: int, density: float, size: float, mode: str) -> None:
    network = random_network(config, seed, density, size)
    packed = pack_weights(network, mode)
    assert sum(packed.ledger.values()) == len(packed.data)
    assert same_network(unpack_weights(packed.data, config), network)
    assert weights_summary(weights_source(packed.data), config).ledger == packed.ledger


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(["coded", "coo"]),
    seed=st.integers(0, 1 << 30),
    flips=st.integers(1, 8),
    cut=st.none() | st.integers(0, 6000),
)
def test_damage_gives_an_error_or_another_network(
    mode: str, seed: int, flips: int, cut: int | None
) -> None:
    data = bytearray(pack_weights(random_network(), mode).data)
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), size=flips):
        data[place] ^= 1 << int(rng.integers(8))
    try:
        unpack_weights(bytes(data[:cut]), TINY)
    except CorruptArchive:
        pass
