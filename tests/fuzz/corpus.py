"""What is mutated: small golden archives, and archives of random models, contexts and data."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from mdlzip.config import ModelConfig
from mdlzip.errors import ExportRefused
from mdlzip.networks.none import NoNetwork
from mdlzip.networks.registry import site_specs, tensor_specs
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.symbols.context import CHUNK, GROUP, REFERENCE, SOLID, STRICT, Context
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of
from tests.archive_tools import GENERAL_METHODS, general_archive
from tests.fuzz.document import Document, parse
from tests.golden.make_golden import coded_archive
from tests.weight_tools import laplace_codes

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MOST_ARCHIVE_BYTES = 1100  # of the golden ones: the second decoder takes a second for a kilobyte
POOL = 60  # random archives that are mutated again and again
_MOST_DATA_BYTES = 220


@cache
def golden() -> tuple[Document, ...]:
    """The golden archives that are small."""
    found = (path.read_bytes() for path in sorted(GOLDEN.glob("*.mdlz")))
    return tuple(parse(data) for data in found if len(data) <= MOST_ARCHIVE_BYTES)


@cache
def pooled(seed: int, number: int) -> Document:
    """A random archive that is made once."""
    return random_document(random.Random(f"{seed}:pool:{number}"))


def random_document(rng: random.Random) -> Document:
    """An archive that is right: of random data, by a random method, mostly learned."""
    data = random_data(rng)
    if rng.random() < 0.12:
        method = rng.choice(GENERAL_METHODS)
        return parse(general_archive(method, data, None if method == "stored" else "a name"))
    vocabulary = random_vocabulary(rng, data)
    layout = Layout(len(data), rng.choice([16, 17, 32, 40, 64]), rng.choice([1, 1, 2, 3]))
    context = random_context(rng, layout)
    while True:
        network = random_network(rng, vocabulary, alone=context.mode != CHUNK)
        if vocabulary.longest > layout.chunk_size // 2:
            vocabulary = Vocabulary(vocabulary.alphabet)
            continue
        try:
            return parse(
                coded_archive(data, network, layout, context, weights=rng.choice(["coded", "coo"]))
            )
        except ExportRefused:  # sums too large for the predictor
            continue


def random_data(rng: random.Random) -> bytes:
    """1 to 220 bytes: noise, repeated pieces, one value."""
    letters = bytes(rng.sample(range(256), rng.choice([1, 2, 3, 5, 9, 40])))
    n, out = rng.choice([1, 2, 15, 16, 17, 33, rng.randint(1, _MOST_DATA_BYTES)]), b""
    while len(out) < n:
        piece = bytes(rng.choices(letters, k=rng.randint(1, 12)))
        out += piece * rng.choice([1, 1, 2, 5])
        if out and rng.random() < 0.4:
            start = rng.randrange(len(out))
            out += out[start : start + rng.randint(1, 30)]
    return out[:n]


def random_vocabulary(rng: random.Random, data: bytes) -> Vocabulary:
    """The byte values of `data`, perhaps some more, perhaps some merges."""
    present = np.bincount(np.frombuffer(data, np.uint8), minlength=256) > 0
    for _ in range(rng.choice([0, 0, 3])):
        present[rng.randrange(256)] = True
    alphabet = alphabet_of(present)
    if rng.random() < 0.5:
        return Vocabulary(alphabet)
    merges = learn_merges(np.frombuffer(data, np.uint8), rng.randint(1, 12), 2, 0.0, 8)
    return Vocabulary(alphabet, merges)


def random_context(rng: random.Random, layout: Layout) -> Context:
    """Any mode, small tables, any reference groups and waves."""
    mode, n = rng.choice([CHUNK, GROUP, REFERENCE, SOLID]), layout.n_groups
    bits = (rng.randint(8, 10), rng.randint(8, 10), rng.randint(8, 10))
    if mode == CHUNK:
        return STRICT
    if mode == REFERENCE:
        chosen = tuple(sorted(rng.sample(range(n), rng.randint(1, n))))
        return Context(mode, bits, references=chosen)
    if mode == SOLID:
        edges = [0, *sorted(rng.sample(range(1, n), rng.randint(0, n - 1))), n]
        waves = tuple(b - a for a, b in pairwise(edges))
        return Context(mode, bits, waves=waves)
    return Context(mode, bits)


def random_config(rng: random.Random, n_merges: int) -> ModelConfig:
    """A small network with any of the parts that there are."""
    heads, layer = rng.choice([1, 2]), rng.random() < 0.5
    return ModelConfig(
        d_model=rng.choice([8, 12]),
        n_layers=rng.choice([1, 1, 2]),
        n_heads=heads,
        d_ff=rng.choice([8, 9, 20]),
        window=rng.choice([0, 1, 2, 5, 30]),
        conv_width=rng.choice([0, 0, 1, 3, 8]),
        norm="layer" if layer else "rms",
        activation=rng.choice(["gelu", "relu2"]),
        positions=rng.choice(["sinusoidal", "rotary"]),
        biases=rng.random() < 0.5,
        shared_norm=layer and rng.random() < 0.5,
        match_min=rng.choice([0, 2, 3, 8]),
        n_merges=n_merges,
    )


def random_network(rng: random.Random, vocabulary: Vocabulary, *, alone: bool) -> IntegerNetwork:
    """Sparse to dense, dull to almost out of bounds; alone: it may be none."""
    n_merges = len(vocabulary.merges)
    if alone and rng.random() < 0.4:
        return IntegerNetwork(NoNetwork(n_merges), {}, {}, vocabulary)
    config = random_config(rng, n_merges)
    numbers = np.random.default_rng(rng.getrandbits(32))
    density, size = rng.choice([0.02, 0.2, 0.7]), rng.choice([1.0, 4.0, 12.0])
    spread, tensors = rng.choice([0, 2, 6]), {}
    for name, spec in tensor_specs(config).items():
        codes = laplace_codes(numbers, spec.shape, density, size)
        if spec.by_symbol and rng.random() < 0.8:  # else symbols that are not in use have weights
            unused = np.ones(len(codes), bool)
            unused[[s for s in (*vocabulary.symbols, 256) if s < len(codes)]] = False
            codes[unused] = 0
        exponent = (22 if spec.optimiser == "muon" else 20) + rng.randint(-spread, spread)
        tensors[name] = QuantTensor(codes, rng.randint(1, 65535), exponent)
    low = rng.choice([-4, 2])
    exponents = {site: rng.randint(low, 12) for site in site_specs(config)}
    return IntegerNetwork(config, tensors, exponents, vocabulary)
