"""The page of the format suffices: a decoder written from it reads what mdlzip writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdlzip.coding.weight_model import WeightEncoder
from mdlzip.config import ModelConfig
from mdlzip.quantised.network import tensor_shapes
from tests.weight_tools import PAPER, TINY, random_network
from tests.weights_second_decoder import SecondDecoder


@pytest.mark.parametrize(
    ("config", "density", "size"),
    [
        (replace(TINY, d_model=8, n_heads=1, d_ff=12), 0.3, 4),
        (replace(PAPER, d_model=8, n_heads=1, d_ff=10), 0.9, 20),
    ],
)
def test_it_gives_the_same_codes(config: ModelConfig, density: float, size: float) -> None:
    network = random_network(config, density=density, size=size)
    encoder = WeightEncoder()
    for name, tensor in network.tensors.items():
        encoder.encode(name, tensor.codes)
    second = SecondDecoder(encoder.finish())
    for name, shape in tensor_shapes(config).items():
        found = np.array(second.tensor(name, shape)).reshape(shape)
        assert np.array_equal(found, network.tensors[name].codes), name
