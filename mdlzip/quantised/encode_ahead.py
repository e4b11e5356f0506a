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
from mdlzip.quantised.workers import one_thread_each, settle


class _Share:
    """Chunks that one thread predicts for; rows: their lines among those of the round."""

    def __init__(self, predictor: Predictor, previous: np.ndarray, rows: slice) -> None:
        self._predictor, self._rows = predictor, rows
        self._previous = previous[rows]
        self._state = predictor.new_state(len(self._previous))

    def look(self, start: int, n: int) -> np.ndarray:
        """Gaps of the own lines for n positions from `start` on, until the next call."""
        previous = np.ascontiguousarray(self._previous[:, start : start + n])
        return np.asarray(self._predictor.forward(previous, self._state))

    def predict(self, start: int, gaps: np.ndarray) -> None:
        """Fill the own lines of gaps (B, T, V) for the T positions from `start` on."""
        gaps[self._rows] = self.look(start, gaps.shape[1])


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
    work = [_Share(predictor, previous, slice(a, b)) for a, b in pairwise(edges)]
    places = predictor.vocabulary.ranks[symbols]
    ranks = coder.rank[np.maximum(places, 0)]
    n, length = symbols.shape
    starts = range(0, length, span)
    alone = threads == 1 and len(work) == 1
    room = 0 if alone else n * min(span, length) * v
    memory = [np.empty(room, np.uint16) for _ in range(2)]

    def gaps_at(i: int) -> np.ndarray:
        t = min(span, length - starts[i])
        return memory[i % 2][: n * t * v].reshape(n, t, v)

    def code(start: int, gaps: np.ndarray) -> None:
        given = np.ascontiguousarray(ranks[:, start : start + gaps.shape[1]])
        left = np.clip(counts - start, 0, gaps.shape[1])
        coder.group.encode_lines(chunks, given, left, gaps)

    if threads == 1:
        with one_thread_each():
            for i, start in enumerate(starts):
                check()
                if alone:
                    code(start, work[0].look(start, min(span, length - start)))
                    continue
                for share in work:
                    check()
                    share.predict(start, gaps_at(i))
                code(start, gaps_at(i))
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
                code(starts[i], gaps_at(i))
        finally:
            pool.shutdown(cancel_futures=True)
