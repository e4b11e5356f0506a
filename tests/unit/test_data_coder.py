"""The arithmetic of docs/format-data.md: ours and the second decoder's against constriction."""

from __future__ import annotations

import constriction
import numpy as np
import pytest

from mdlzip.coding.range_coder import RangeCoder, constricted
from mdlzip.errors import CorruptArchive
from tests.second_decoder.data import RangeDecoder, cumulative_weights
from tests.second_decoder.fields import Refused

MODEL = constriction.stream.model.Categorical(perfect=False)
MOST_COUNT = (1 << 22) + 1
TOP = 1 << 24
ONE_CHUNK = np.zeros(1, np.int64)


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
    weights, gaps = cumulative_weights(counts[None])[0], gaps_of(counts[None])[1]
    assert weights[0] == 0 and weights[-1] == TOP and (np.diff(weights) >= 1).all()
    for k in range(len(counts)):
        for q in (int(weights[k]), int(weights[k + 1]) - 1):
            point = q * ((1 << 40) - 1)
            words = np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)
            decoder = constriction.stream.queue.RangeDecoder(words)
            assert decoder.decode(MODEL, counts[None]).tolist() == [k], (k, q)
            ours = coder(counts[None], words.astype(">u4").tobytes().rstrip(b"\0"))
            assert ours.step(ONE_CHUNK, gaps).tolist() == [k], (k, q)


@pytest.mark.parametrize("seed", range(30))
def test_streams_come_back(seed: int) -> None:
    """Symbols of mixed distributions: the same symbols, and the end is seen by both."""
    rng = np.random.default_rng(seed)
    v = int(rng.choice([2, 3, 40, 256, 2304]))
    n = int(rng.choice([1, 2, 300]))
    values = np.ceil(np.exp(rng.uniform(0, rng.choice([0.1, 15.2]), 1 << 16)))
    counts = rng.choice(values, (n, v))
    likely = rng.random(n) < 0.8
    symbols = np.where(likely, counts.argmax(axis=1), rng.integers(0, v, n)).astype(np.int32)
    stream = constricted(symbols, counts)
    assert encoded(symbols, counts) == stream
    assert outcome(stream, counts) == second_outcome(stream, counts) == symbols.tolist()


def test_a_carry_goes_through_many_words() -> None:
    """Symbols between whose neighbours one half lies: what follows decides on all words so far."""
    counts, began = np.ones((400, 3)), set()
    middle, gaps = coder(counts, b"\x80"), gaps_of(counts)[1]
    symbols = np.array([middle.step(ONE_CHUNK, row[None])[0] for row in gaps], np.int32)
    for n in range(1, 400):
        for last in range(3):
            own = np.append(symbols[:n], last).astype(np.int32)
            stream = constricted(own, counts[: n + 1])
            assert encoded(own, counts[: n + 1]) == stream
            began.add(stream[:8].hex())
    assert {"80", "80" + 7 * "00", "7f" + 7 * "ff"} <= began


@pytest.mark.parametrize("seed", range(200))
def test_any_bytes_mean_the_same(seed: int) -> None:
    """Noise, short and long, and encoded streams with bytes cut off, changed or added."""
    rng = np.random.default_rng(seed)
    v, n = int(rng.choice([2, 5, 256])), int(rng.integers(1, 12))
    counts = np.ceil(np.exp(rng.uniform(0, 15.2, (n, v))))
    stream = encoded(rng.integers(0, v, n).astype(np.int32), counts)
    noise = rng.bytes(int(rng.integers(0, 24)))
    cut = int(rng.integers(0, len(stream) + 1))
    for data in (noise, b"\xff" * (seed % 13), stream[:cut], stream[:cut] + noise, stream + noise):
        assert outcome(data, counts) == second_outcome(data, counts), data.hex()


def test_the_empty_stream_is_all_first_symbols() -> None:
    counts = np.ceil(np.exp(np.random.default_rng(0).uniform(0, 15.2, (500, 256))))
    assert outcome(b"", counts) == second_outcome(b"", counts)
    decoder = RangeDecoder(b"")
    assert {decoder.symbol(row) for row in cumulative_weights(counts)} == {0}


def gaps_of(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts (n, V) as a table and what looks them up there, uint16 (n, V)."""
    table, gaps = np.unique(counts.astype(np.int64), return_inverse=True)
    assert len(table) <= 1 << 16
    return table, gaps.reshape(counts.shape).astype(np.uint16)


def coder(counts: np.ndarray, stream: bytes | None = None) -> RangeCoder:
    """Ours, for one chunk of symbols of a byte."""
    n, v = counts.shape
    strings, lengths = np.zeros((v, 1), np.uint8), np.ones(v, np.int32)
    return RangeCoder(strings, lengths, gaps_of(counts)[0], 1, n, stream)


def encoded(symbols: np.ndarray, counts: np.ndarray) -> bytes:
    """Ours, in two calls."""
    encoder, gaps, middle = coder(counts), gaps_of(counts)[1], len(symbols) // 2
    for part in (slice(0, middle), slice(middle, None)):
        ranks = symbols[None, part].astype(np.int64)
        encoder.encode_lines(ONE_CHUNK, ranks, np.array([ranks.size]), gaps[None, part])
    return encoder.finish()


def outcome(stream: bytes, counts: np.ndarray) -> list[int] | str:
    """mdlzip's symbols of a group's stream, or "refused"; constriction says the same."""
    theirs = constricted_outcome(stream, counts)
    try:
        decoder, gaps = coder(counts, stream), gaps_of(counts)[1]
        symbols = [int(decoder.step(ONE_CHUNK, row[None])[0]) for row in gaps]
    except CorruptArchive:
        symbols = None
    ours = symbols if symbols and decoder.is_spent else "refused"
    assert ours == theirs
    return ours


def constricted_outcome(stream: bytes, counts: np.ndarray) -> list[int] | str:
    if stream[-1:] == b"\0":
        return "refused"
    padded = stream + bytes(-len(stream) % 4 + 4)  # a word of zeros: reading it can be seen
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
    try:
        symbols = decoder.decode(MODEL, counts).tolist()
    except (AssertionError, ValueError):
        return "refused"
    return symbols if decoder.maybe_exhausted() else "refused"


def second_outcome(stream: bytes, counts: np.ndarray) -> list[int] | str:
    try:
        decoder = RangeDecoder(stream)
        symbols = [decoder.symbol(row) for row in cumulative_weights(counts)]
        decoder.end()
    except Refused:
        return "refused"
    return symbols
