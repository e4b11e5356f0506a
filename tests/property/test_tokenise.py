"""The symbols of any bytes are those of a plain byte-pair encoding, and the cut obeys the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.tokenise import UNIT_BYTES, cut_group, tokenise
from mdlzip.symbols.vocabulary import FIRST_MERGE, Vocabulary, all_bytes
from tests.symbol_tools import expand

ROOT = Path(__file__).resolve().parents[2]


def plain(vocabulary: Vocabulary, data: bytes) -> list[int]:
    """Each merge in turn, over all symbols from left to right."""
    symbols = list(data)
    for i, pair in enumerate(vocabulary.merges.tolist()):
        out: list[int] = []
        at = 0
        while at < len(symbols):
            if symbols[at : at + 2] == pair:
                out.append(FIRST_MERGE + i)
                at += 2
            else:
                out.append(symbols[at])
                at += 1
        symbols = out
    return symbols


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """Any merges at all, equal ones and equal strings included, not only those one would learn."""
    letters = draw(st.integers(2, 4))
    merges: list[tuple[int, int]] = []
    lengths = dict.fromkeys(range(letters), 1)
    for i in range(draw(st.integers(0, 12))):
        a, b = (draw(st.sampled_from(sorted(lengths))) for _ in "ab")
        if lengths[a] + lengths[b] > 255:
            break
        merges.append((a, b))
        lengths[FIRST_MERGE + i] = lengths[a] + lengths[b]
    return Vocabulary(all_bytes()[:letters], np.array(merges, np.uint16).reshape(-1, 2))


RUNS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=60).map(
    lambda runs: b"".join(bytes([value]) * n for value, n in runs)
)


@settings(max_examples=300, deadline=None)
@given(vocabularies(), RUNS)
def test_any_merges_on_any_bytes(vocabulary: Vocabulary, data: bytes) -> None:
    symbols, ends = tokenise(vocabulary, np.frombuffer(data, np.uint8).copy())
    assert symbols.tolist() == plain(vocabulary, data)
    assert ends.tolist() == [len(symbols)]


@settings(max_examples=100, deadline=None)
@given(vocabularies(), RUNS, st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_units_do_not_see_one_another(
    vocabulary: Vocabulary, data: bytes, sizes: list[int]
) -> None:
    edges = np.minimum(np.cumsum(sizes), len(data))
    edges[-1] = len(data)
    symbols, ends = tokenise(vocabulary, np.frombuffer(data, np.uint8).copy(), edges)
    begin, expected = 0, []
    for edge, end in zip(edges.tolist(), ends.tolist(), strict=True):
        expected += plain(vocabulary, data[begin:edge])
        assert end == len(expected)
        begin = edge
    assert symbols.tolist() == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=800), st.integers(1, 40), st.integers(4, 64))
def test_learned_merges_and_the_cut(data: bytes, most: int, chunk_size: int) -> None:
    data = bytes(value % 7 for value in data)
    merges = learn_merges(np.frombuffer(data, np.uint8).copy(), most, 2, 0.0, chunk_size // 2)
    vocabulary = Vocabulary(all_bytes(), merges)
    symbols, ends = cut_group(vocabulary, np.frombuffer(data, np.uint8).copy(), chunk_size)
    assert symbols.tolist() == plain(vocabulary, data)
    size, expected = 0, []
    for i, symbol in enumerate(symbols.tolist()):
        size += len(expand(vocabulary, np.array([symbol])))
        if size > chunk_size - vocabulary.longest or i + 1 == len(symbols):
            assert size <= chunk_size
            expected.append(i + 1)
            size = 0
    assert ends.tolist() == expected


@pytest.mark.parametrize("name", ["LICENSE", "docs/format.md", "models/tiny.toml"])
def test_real_text(name: str) -> None:
    data = np.frombuffer((ROOT / name).read_bytes(), np.uint8).copy()
    vocabulary = Vocabulary(all_bytes(), learn_merges(data, 255, 2, 1.0, 16))
    symbols, _ = tokenise(vocabulary, data)
    assert symbols.tolist() == plain(vocabulary, data.tobytes())
    assert len(symbols) < 0.8 * len(data)


def test_a_long_group_is_tokenised_in_units() -> None:
    data = np.tile(np.frombuffer(b"abcab", np.uint8), UNIT_BYTES // 5 + 100)
    vocabulary = Vocabulary(all_bytes(), np.array([(97, 98), (257, 99)], np.uint16))
    symbols, ends = cut_group(vocabulary, data, 512)
    assert len(data) > UNIT_BYTES
    parts = [data[:UNIT_BYTES].tobytes(), data[UNIT_BYTES:].tobytes()]
    assert symbols.tolist() == plain(vocabulary, parts[0]) + plain(vocabulary, parts[1])
    assert ends[-1] == len(symbols) and len(ends) == -(-len(data) // 510)
