"""Threads that share a unit: several where they find each other running, else one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mdlzip.quantised import decode_cpu
from mdlzip.quantised.decode_cpu import CompiledTile, Sharing
from mdlzip.symbols.context import SOLID, Context
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokens import Tokens
from tests.archive_tools import compressible, decode_all, encode_all, untrained
from tests.symbol_tools import tokens_of

LAYOUT = Layout(40_000, 256, 4)
CONTEXT = Context(SOLID, (12, 14, 12), waves=(4, *[12] * 3), lane_chunks=1)


def coded() -> tuple[Tokens, list[tuple[int, bytes]]]:
    data = np.frombuffer(compressible(LAYOUT.total_bytes), np.uint8)
    tokens = tokens_of(data, LAYOUT)
    return tokens, list(enumerate(encode_all(untrained(tokens.vocabulary), tokens, CONTEXT)))


@pytest.mark.parametrize("contended", [False, True])
def test_a_round_in_which_threads_wait_is_followed_by_rounds_of_one(
    contended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, units = coded()
    rounds: list[int] = []
    true_run = decode_cpu.decode_in_turn

    def run(tiles: list[CompiledTile], threads: int, check: Callable[[], None]) -> None:
        rounds.append(threads)
        true_run(tiles, threads, check)
        for tile in tiles:
            tile.naps = tile.positions if contended and threads > 1 else 0

    monkeypatch.setattr(decode_cpu, "decode_in_turn", run)
    plain = b"".join(decode_all(untrained(tokens.vocabulary), LAYOUT, units, CONTEXT, threads=2))
    assert plain == compressible(LAYOUT.total_bytes)
    assert rounds == ([2] + [1] * (len(rounds) - 1) if contended else [2] * len(rounds))
    assert len(rounds) > 1


def test_several_threads_are_tried_again() -> None:
    sharing, tile = Sharing(), object.__new__(CompiledTile)
    tile._lines = decode_cpu._Lines(*[np.array([50, 0])] * len(decode_cpu._Lines._fields))
    for naps, expected in ((5, 2), (6, 1)):
        tile.naps = naps
        assert sharing.threads(2) == 2
        sharing.learn([tile])
        assert sharing.threads(2) == expected
    assert [sharing.threads(2) for _ in range(16)] == [1] * 15 + [2]
