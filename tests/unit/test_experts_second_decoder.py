"""The experts alone, whose two decoders must learn the same from streams of any make."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mdlzip.experts.state import Symbols
from mdlzip.symbols.context import NO_GRID, Grid
from tests.second_decoder.context import Context
from tests.second_decoder.experts import Experts, Memory
from tests.unit import test_experts as first


@pytest.mark.parametrize(
    ("chunk_size", "seed", "size", "lane", "grid"),
    [
        (512, None, 3000, 1, NO_GRID),
        (512, 3, 1500, 1, NO_GRID),
        (64, 5, 1000, 1, NO_GRID),
        (64, 5, 1000, 3, NO_GRID),
        (64, None, 2000, 99, NO_GRID),
        (64, 5, 600, 3, Grid(13, 1)),
        (64, None, 600, 99, Grid(24, 2)),
        (64, None, 400, 99, Grid(1, 2)),
        (64, None, 400, 99, Grid(5, 8)),
    ],
)
def test_both_decoders_agree(
    chunk_size: int, seed: int | None, size: int, lane: int, grid: Grid
) -> None:
    """Twice the same text, so that the second time there are known text and long matches."""
    data = first.TEXT[:size] + first.TEXT[500:900]
    vocabulary = first.vocabulary_of(data)
    order = Symbols.of(vocabulary)
    strings = [bytes(row[:n]) for row, n in zip(order.strings, order.lengths, strict=True)]
    chunks = first.cut(vocabulary, data, chunk_size)
    known, before = first.nothing_known(), Memory(first.BITS)
    for _ in range(2):
        stream, coder = first.run(
            vocabulary, chunks, chunk_size, known, seed=seed, lane_chunks=lane, grid=grid
        )
        known = coder.after()
        places = first.origins(len(chunks), chunk_size).tolist()
        context = Context(1, [], lane, grid, [])
        second = Experts(strings, chunk_size, stream, places, context, before)
        longest = max(map(len, chunks))
        for r, t in itertools.product(range(min(lane, len(chunks))), range(longest)):
            for b, chunk in enumerate(chunks):
                if b % lane == r and t < len(chunk):
                    counts = [1] * len(strings)
                    if seed is not None:
                        place = order.place
                        gaps = first.gaps_at(int(place[chunk[t]]), len(strings), seed + t)
                        counts = [int(n) for n in first.COUNTS[gaps[place]]]
                    assert second.symbol(b, counts) == chunk[t]
        second.end()
        before = second
        np.testing.assert_array_equal(coder.known_text, second.known)
