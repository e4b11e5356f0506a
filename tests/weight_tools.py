"""Small integer networks for tests of the weight coder, made from seeds."""

from __future__ import annotations

import numpy as np

from mdlzip.config import ModelConfig
from mdlzip.networks.registry import site_specs, tensor_shapes
from mdlzip.networks.spec import code_limit
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.symbols.vocabulary import N_BYTES, Vocabulary, alphabet_of, no_merges

TINY = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=24, window=8)
PAPER = ModelConfig(
    d_model=16, n_layers=2, n_heads=2, d_ff=32, window=0, conv_width=0, norm="layer",
    activation="gelu", positions="sinusoidal", biases=True, shared_norm=True, match_min=0,
)  # fmt: skip


def laplace_codes(
    rng: np.random.Generator, shape: tuple[int, ...], density: float, size: float
) -> np.ndarray:
    """Independent codes, int8: `density` of the cells is not zero, mean magnitude about `size`."""
    codes = np.ceil(rng.exponential(size, size=shape)) * rng.choice([-1, 1], size=shape)
    codes *= rng.random(shape) < density
    return np.clip(codes, -code_limit(shape), code_limit(shape)).astype(np.int8)


def structured_codes(
    rng: np.random.Generator, shape: tuple[int, int], density: float, size: float
) -> np.ndarray:
    """Codes whose rows and columns differ in scale, some of them dead; pruned by magnitude."""
    weights = rng.laplace(size=shape)
    weights *= np.exp(rng.normal(0, 0.4, size=(shape[0], 1)))
    weights *= np.exp(rng.normal(0, 0.4, size=(1, shape[1])))
    weights[rng.random(shape[0]) < 0.05] = 0
    weights[:, rng.random(shape[1]) < 0.05] = 0
    weights[np.abs(weights) <= np.quantile(np.abs(weights), 1 - density)] = 0
    weights *= size / np.abs(weights[weights != 0]).mean()
    return np.clip(np.rint(weights), -63, 63).astype(np.int8)


def random_network(
    config: ModelConfig = TINY, seed: int = 0, density: float = 0.3, size: float = 4.0
) -> IntegerNetwork:
    """Independent codes; steps, exponents and alphabets over their whole ranges."""
    rng = np.random.default_rng(seed)
    tensors = {
        name: QuantTensor(
            laplace_codes(rng, shape, density, size),
            int(rng.integers(1, 0x10000)),
            int(rng.integers(-40, 41)),
        )
        for name, shape in tensor_shapes(config).items()
    }
    exponents = {
        name: max(int(rng.integers(-12, 13)), site.least)
        for name, site in site_specs(config).items()
    }
    alphabet = alphabet_of(rng.random(N_BYTES) < rng.random())
    merges = no_merges()
    if config.n_merges:
        merges = rng.choice(alphabet, (config.n_merges, 2)).astype(np.uint16)
        merges[1:, 0] = 257 + np.arange(config.n_merges - 1) // 2
    return IntegerNetwork(config, tensors, exponents, Vocabulary(alphabet, merges))


def same_network(a: IntegerNetwork, b: IntegerNetwork) -> bool:
    """Whether every number of both networks is the same."""
    return (
        a.config == b.config
        and a.exponents == b.exponents
        and np.array_equal(a.alphabet, b.alphabet)
        and np.array_equal(a.vocabulary.merges, b.vocabulary.merges)
        and list(a.tensors) == list(b.tensors)
        and all(
            (t.mantissa, t.exponent) == (b.tensors[n].mantissa, b.tensors[n].exponent)
            and np.array_equal(t.codes, b.tensors[n].codes)
            for n, t in a.tensors.items()
        )
    )


def order0_bits(codes: np.ndarray) -> float:
    """Empirical entropy of the codes, zeros included, in bits for the whole tensor."""
    counts = np.bincount(codes.ravel().astype(np.int64) + 128)
    share = counts[counts > 0] / codes.size
    return float(-(share * np.log2(share)).sum() * codes.size)
