"""A seeded random network and the digest that every machine must compute from it."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np

from mdlzip.chunks import Layout
from mdlzip.config import ModelConfig
from mdlzip.quantised.groups import decode_batch, encode_group
from mdlzip.quantised.network import (
    IntegerNetwork,
    QuantTensor,
    activation_sites,
    all_bytes,
    is_matrix,
    tensor_shapes,
)
from mdlzip.quantised.predictor import Predictor, shifted

CONFIGS = (
    ModelConfig(d_model=32, n_layers=2, d_ff=64, window=16),
    ModelConfig(
        d_model=32,
        n_layers=1,
        n_heads=2,
        d_ff=64,
        window=0,
        conv_width=0,
        norm="layer",
        activation="gelu",
        positions="sinusoidal",
        biases=True,
        shared_norm=True,
        match_min=0,
    ),
)
# Configuration and alphabet: both families, and a head whose 37 rows fit no kernel's block.
CASES = (
    (CONFIGS[0], all_bytes()),
    (CONFIGS[1], all_bytes()),
    (CONFIGS[0], all_bytes()[3::7]),
    (CONFIGS[0], all_bytes()[97:101]),  # four letters: matches everywhere
)
EXPECTED = "5da09b6acebf977b847f167870e528b671f64804ccce271da6804671a13ef262"


def _uniform(n: int, seed: int) -> np.ndarray:
    """n integers 0..2**31 - 1 from a linear congruential generator: needs no library's promise."""
    out, state = np.empty(n, np.int64), seed
    for i in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        out[i] = state >> 33
    return out


def random_network(config: ModelConfig, seed: int = 1) -> IntegerNetwork:
    """A network of bell-shaped random codes with steps that keep its activations alive."""
    tensors = {}
    for index, (name, shape) in enumerate(tensor_shapes(config).items()):
        size = int(np.prod(shape))
        draws = _uniform(3 * size, seed * 1000 + index).reshape(3, size)
        codes = (draws % 15 - 7).sum(axis=0)  # bell-shaped, |code| <= 21
        codes = codes.reshape(shape).astype(np.int8)
        # Steps of about 0.4 for what is added to the stream, smaller for wide matrices.
        exponent = 15 + (4 if is_matrix(name) and name not in ("embedding", "head") else 2)
        if not is_matrix(name):
            exponent = 15 + 4
        tensors[name] = QuantTensor(codes, 40000 + 97 * index, exponent + 3)
    return IntegerNetwork(config, tensors, dict.fromkeys(activation_sites(config), 4))


def digest(predictor: Predictor, symbols: np.ndarray, positions_per_call: int) -> str:
    """SHA-256 of all logit gaps of `symbols` (B, T), asked for so many positions at a time."""
    previous = shifted(symbols)
    state = predictor.new_state(len(symbols))
    parts = [
        np.asarray(predictor.forward(previous[:, t : t + positions_per_call], state))
        for t in range(0, previous.shape[1], positions_per_call)
    ]
    return sha256(np.concatenate(parts, axis=1).astype("<u2").tobytes()).hexdigest()


def self_test(device: str = "cpu") -> str:
    """Run 4 KiB through every case, in parallel and stepwise, and back; one digest.

    Raises AssertionError if the stepwise predictor or the coder disagrees with the parallel one.
    """
    whole = sha256()
    for config, alphabet in CASES:
        symbols = alphabet[_uniform(4096, 7) % alphabet.size].reshape(16, 256)
        network = replace(random_network(config), alphabet=alphabet)
        predictor = Predictor(network, 256, device=device)
        parallel = digest(predictor, symbols, 256)
        assert digest(predictor, symbols, 1) == parallel, "stepwise differs from parallel"
        coded = encode_group(predictor, symbols, [256] * 16)
        decoded = decode_batch(predictor, Layout(4096, 256, 16), [(0, coded)])
        assert decoded[0][1] == symbols.tobytes(), "the coder does not give the bytes back"
        whole.update(parallel.encode())
        whole.update(coded)
    return whole.hexdigest()
