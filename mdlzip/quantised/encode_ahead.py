"""Symbols of a round of chunks -> their coder: some positions at a time, predicted ahead.

What comes next is known to an encoder, so other threads predict it while one codes. Coders take the
symbols of all chunks in one call: position by position, at each position chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from mdlzip.quantised.coders import UnitCoder
from mdlzip.quantised.predictor import Predictor, shifted
from mdlzip.quantised.tiles import LEAST_FILL
from mdlzip.quantised.workers import one_thread_each, settle


class _Share:
    """Chunks that one thread predicts for.

    lines: int64, theirs among those of the round, without some that have ended; ends: symbols of
    each chunk of the round.
    """

    def __init__(
        self, predictor: Predictor, previous: np.ndarray, ends: np.ndarray, lines: np.ndarray
    ) -> None:
        self._predictor, self._previous, self._ends = predictor, previous, ends
        self.lines, self._state = lines, predictor.new_state(len(lines))

    def look(self, start: int, n: int) -> np.ndarray:
        """Gaps (lines, n, V) of n positions from `start` on, until the next call."""
        going = self._ends[self.lines] > start
        if np.count_nonzero(going) < LEAST_FILL * len(self.lines):
            self._predictor.narrow(self._state, going)
            self.lines = self.lines[going]
        if not len(self.lines):
            return np.empty((0, n, self._predictor.vocabulary.n_symbols), np.uint16)
        previous = np.ascontiguousarray(self._previous[self.lines, start : start + n])
        return np.asarray(self._predictor.forward(previous, self._state))

    def predict(self, start: int, gaps: np.ndarray) -> None:
        """Fill the own lines of gaps (B, T, V) for the T positions from `start` on."""
        found = self.look(start, gaps.shape[1])
        gaps[self.lines] = found


def encode_ahead(
    predictor: Predictor,
    coder: UnitCoder,
    chunks: np.ndarray,
    symbols: np.ndarray,
    counts: np.ndarray,
    shares: Sequence[int],
    span: int,
    threads: int,
    check: Callable[[], None],
) -> None:
    """Code all symbols of the chunks of a round on this thread, while others predict.

    chunks: int64 (B,), numbers in the unit; symbols: int16 (B, T), anything behind the end; counts:
    int64 (B,), symbols of each; shares: how many chunks each call of the predictor is for; span:
    positions of one call. What a thread raises ends the others, too, and passes.
    """
    edges = np.cumsum([0, *shares]).tolist()
    previous, v = shifted(symbols), predictor.vocabulary.n_symbols
    work = [_Share(predictor, previous, counts, np.arange(a, b)) for a, b in pairwise(edges)]
    places = predictor.vocabulary.ranks[symbols]
    ranks = coder.rank[np.maximum(places, 0)]
    n, length = symbols.shape
    every = np.arange(n)
    starts = range(0, length, span)
    alone = threads == 1 and len(work) == 1
    room = 0 if alone else n * min(span, length) * v
    memory = [np.empty(room, np.uint16) for _ in range(2)]

    def gaps_at(i: int) -> np.ndarray:
        t = min(span, length - starts[i])
        return memory[i % 2][: n * t * v].reshape(n, t, v)

    def code(start: int, gaps: np.ndarray, lines: np.ndarray) -> None:
        given = np.ascontiguousarray(ranks[lines, start : start + gaps.shape[1]])
        left = np.clip(counts[lines] - start, 0, gaps.shape[1])
        coder.group.encode_lines(chunks[lines], given, left, gaps)

    if threads == 1:
        with one_thread_each():
            for i, start in enumerate(starts):
                check()
                if alone:
                    gaps = work[0].look(start, min(span, length - start))
                    code(start, gaps, work[0].lines)
                    continue
                for share in work:
                    check()
                    share.predict(start, gaps_at(i))
                code(start, gaps_at(i), every)
        return
    with one_thread_each(), ThreadPoolExecutor(threads - 1, initializer=settle) as pool:
        coming: list[tuple[Future[None], _Share]] = []

        def begin(i: int) -> None:
            if i < len(starts):
                coming.extend(
                    (pool.submit(share.predict, starts[i], gaps_at(i)), share) for share in work
                )

        def finish(i: int) -> None:
            """Predict here what no other thread has begun."""
            for future, share in reversed(coming):
                if future.cancel():
                    share.predict(starts[i], gaps_at(i))
            for future, _ in coming:
                if not future.cancelled():
                    future.result()
            coming.clear()

        try:
            begin(0)
            for i in range(len(starts)):
                check()
                finish(i)
                begin(i + 1)
                code(starts[i], gaps_at(i), every)
        finally:
            pool.shutdown(cancel_futures=True)
