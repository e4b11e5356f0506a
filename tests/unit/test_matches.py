"""The matcher against a plain search, and one position at a time against many."""

from __future__ import annotations

import numpy as np
import pytest

from mdlzip.matches import MAX_LENGTH, NO_MATCH, Matcher, table_bits

TEXT = np.frombuffer(
    b"the cat saw the dog, and the dog saw the cat: the cat sat, the dog sat. " * 4, np.uint8
)[:256].reshape(2, 128)


def shifted(chunks: np.ndarray) -> np.ndarray:
    previous = np.zeros(chunks.shape, np.int16)
    previous[:, 1:] = chunks[:, :-1]
    return previous


def plain(row: list[int], least: int) -> list[tuple[int, int]]:
    """By the words of docs/format-predictor.md."""
    out: list[tuple[int, int]] = []
    last: dict[int, int] = {}
    k = table_bits(len(row))
    pointer, length = None, 0
    for t in range(len(row)):
        if pointer is not None:
            if row[pointer] == row[t - 1]:
                pointer, length = pointer + 1, min(length + 1, MAX_LENGTH)
            else:
                pointer, length = None, 0
        if t >= least:
            key = sum(s << 12 * i for i, s in enumerate(row[t - least : t])) % 2**64
            slot = (key * 0x9E3779B97F4A7C15 % 2**64) >> (64 - k)
            candidate = last.get(slot, 0)
            last[slot] = t
            if pointer is None and candidate:
                n = 0
                while n < min(candidate, MAX_LENGTH) and row[candidate - 1 - n] == row[t - 1 - n]:
                    n += 1
                if n >= least:
                    pointer, length = candidate, n
        out.append((NO_MATCH if pointer is None else row[pointer], length))
    return out


@pytest.mark.parametrize("least", [2, 3, 8])
def test_guesses_are_those_of_a_plain_search(least: int) -> None:
    symbols, lengths = Matcher(2, 128, least).advance(shifted(TEXT))
    for row, s, n in zip(TEXT, symbols, lengths, strict=True):
        assert list(zip(s.tolist(), n.tolist(), strict=True)) == plain(row.tolist(), least)
    assert lengths.max() > 20


@pytest.mark.parametrize("step", [1, 7, 128])
def test_any_number_of_positions_at_a_time(step: int) -> None:
    rng = np.random.default_rng(0)
    chunks = rng.integers(0, 3, (5, 200), np.uint8)  # hash collisions and long matches
    previous = shifted(chunks)
    whole = Matcher(5, 200, 4).advance(previous)
    matcher = Matcher(5, 200, 4)
    parts = [matcher.advance(previous[:, t : t + step]) for t in range(0, 200, step)]
    for k in range(2):
        assert np.array_equal(np.concatenate([p[k] for p in parts], axis=1), whole[k])


def test_no_guess_without_a_repetition() -> None:
    chunks = np.arange(100, dtype=np.uint8)[None]
    symbols, lengths = Matcher(1, 100, 2).advance(shifted(chunks))
    assert (symbols == NO_MATCH).all() and not lengths.any()


def test_table_size() -> None:
    assert [table_bits(n) for n in (16, 512, 513, 16384)] == [5, 10, 11, 15]
