"""The arithmetic of docs/format-data.md, as the second decoder has it, against constriction."""

from __future__ import annotations

import constriction
import numpy as np
import pytest

from mdlzip.coding.range_coder import Decoder, Encoder
from mdlzip.errors import CorruptArchive
from tests.second_decoder.data import RangeDecoder, cumulative_weights
from tests.second_decoder.fields import Refused

MODEL = constriction.stream.model.Categorical(perfect=False)
MOST_COUNT = (1 << 22) + 1
TOP = 1 << 24


def distributions() -> dict[str, np.ndarray]:
    """Counts (V,), ordinary and extreme, within what a model can give and far beyond."""
    rng = np.random.default_rng(5)
    most = 256 + 2048
    one = np.ones(most)
    found = {
        "two equal": np.array([1, 1]),
        "two, the first rare": np.array([1, MOST_COUNT]),
        "two, the last rare": np.array([MOST_COUNT, 1]),
        "two, 2^52 to 1": np.array([1, 1 << 52]),
        "all of one": one,
        "all of the most": one * MOST_COUNT,
        "all of 2^40": one * (1 << 40),
        "first of the most": np.append(MOST_COUNT, one[1:]),
        "last of the most": np.append(one[1:], MOST_COUNT),
        "falling": np.ceil(MOST_COUNT * np.exp(-np.arange(most) / 64)),
        "powers of three": 3.0 ** np.arange(32),
        "almost 2^24 in all": np.append(one * 7281, TOP - 7281 * most + 1),
    }
    for v in (2, 3, 5, 37, 256, 257, 1000, most):
        for spread in (0.0, 3.0, 15.2):
            found[f"{v} random, spread {spread}"] = np.ceil(np.exp(rng.uniform(0, spread, v)))
        found[f"{v} random and flat"] = rng.integers(1, MOST_COUNT + 1, v)
    return {name: counts.astype(np.float64) for name, counts in found.items()}


DISTRIBUTIONS = distributions()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_edge_of_the_cumulative_weights(name: str) -> None:
    """A fresh decoder at point q * (2^40 - 1) stands at q: on both sides of each edge."""
    counts = DISTRIBUTIONS[name]
    assert counts.min() >= 1 and counts.sum() < 2.0**53
    weights = cumulative_weights(counts[None])[0]
    assert weights[0] == 0 and weights[-1] == TOP and (np.diff(weights) >= 1).all()
    for k in range(len(counts)):
        for q in (int(weights[k]), int(weights[k + 1]) - 1):
            point = q * ((1 << 40) - 1)
            words = np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)
            decoder = constriction.stream.queue.RangeDecoder(words)
            assert decoder.decode(MODEL, counts[None]).tolist() == [k], (k, q)


@pytest.mark.parametrize("seed", range(30))
def test_streams_come_back(seed: int) -> None:
    """Symbols of mixed distributions: the same symbols, and the end is seen by both."""
    rng = np.random.default_rng(seed)
    v = int(rng.choice([2, 3, 40, 256, 2304]))
    n = int(rng.choice([1, 2, 300]))
    counts = np.ceil(np.exp(rng.uniform(0, rng.choice([0.1, 15.2]), (n, v))))
    likely = rng.random(n) < 0.8
    symbols = np.where(likely, counts.argmax(axis=1), rng.integers(0, v, n)).astype(np.int32)
    encoder = Encoder()
    encoder.encode(symbols, counts)
    stream = encoder.finish()
    assert outcome(stream, counts) == second_outcome(stream, counts) == symbols.tolist()


@pytest.mark.parametrize("seed", range(200))
def test_any_bytes_mean_the_same(seed: int) -> None:
    """Noise, short and long, and encoded streams with bytes cut off, changed or added."""
    rng = np.random.default_rng(seed)
    v, n = int(rng.choice([2, 5, 256])), int(rng.integers(1, 12))
    counts = np.ceil(np.exp(rng.uniform(0, 15.2, (n, v))))
    encoder = Encoder()
    encoder.encode(rng.integers(0, v, n).astype(np.int32), counts)
    stream, noise = encoder.finish(), rng.bytes(int(rng.integers(0, 24)))
    cut = int(rng.integers(0, len(stream) + 1))
    for data in (noise, b"\xff" * (seed % 13), stream[:cut], stream[:cut] + noise, stream + noise):
        assert outcome(data, counts) == second_outcome(data, counts), data.hex()


def test_the_empty_stream_is_all_first_symbols() -> None:
    counts = np.ceil(np.exp(np.random.default_rng(0).uniform(0, 15.2, (500, 256))))
    assert outcome(b"", counts) == second_outcome(b"", counts)
    decoder = RangeDecoder(b"")
    assert {decoder.symbol(row) for row in cumulative_weights(counts)} == {0}


def outcome(stream: bytes, counts: np.ndarray) -> list[int] | str:
    """mdlzip's symbols of a group's stream, or "refused"."""
    try:
        decoder = Decoder(stream)
        symbols = decoder.decode(counts).tolist()
    except CorruptArchive:
        return "refused"
    return symbols if decoder.is_spent else "refused"


def second_outcome(stream: bytes, counts: np.ndarray) -> list[int] | str:
    try:
        decoder = RangeDecoder(stream)
        symbols = [decoder.symbol(row) for row in cumulative_weights(counts)]
        decoder.end()
    except Refused:
        return "refused"
    return symbols
