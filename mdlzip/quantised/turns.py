"""Tiles of one unit on several threads: predictions side by side, coding strictly in turn.

What the experts learn from one symbol changes what they say of the next, so all tiles code the
symbols of a position, in their order, before any codes the next position.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from mdlzip.quantised.workers import Stopped, one_thread_each, settle

_LOOK_S = 0.1  # how often one who waits asks whether the work is still wanted


class Tile(Protocol):
    """A `DecodeTile`, as far as its turn goes."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to code."""

    def look(self) -> None:
        """Predict; touches nothing that other tiles use."""

    def code(self) -> None:
        """Code what was predicted; never while another tile codes."""


class _Turns:
    """Whose turn it is; tiles that are done leave the round."""

    def __init__(self, numbers: Sequence[int], check: Callable[[], None]) -> None:
        self._round, self._check = deque(numbers), check
        self._changed = threading.Condition()
        self._failed = False

    @contextmanager
    def turn(self, number: int, tile: Tile) -> Iterator[None]:
        with self._changed:
            while self._round[0] != number and not self._failed:
                self._changed.wait(_LOOK_S)
                self._check()
            if self._failed:
                raise Stopped
        try:
            yield
        except BaseException:
            self.fail()
            raise
        with self._changed:
            self._round.popleft()
            if not tile.is_done:
                self._round.append(number)
            self._changed.notify_all()

    def fail(self) -> None:
        with self._changed:
            self._failed = True
            self._changed.notify_all()


def run_in_turn(tiles: Sequence[Tile], threads: int, check: Callable[[], None]) -> None:
    """Look and code until all tiles are done. check: raises to stop it all.

    What a tile raises ends the others, too, and passes.
    """
    todo = [i for i, tile in enumerate(tiles) if not tile.is_done]
    if not todo:
        return
    turns = _Turns(todo, check)

    def work(numbers: list[int]) -> None:
        try:
            while numbers:
                for number in numbers:
                    check()
                    tiles[number].look()
                    with turns.turn(number, tiles[number]):
                        tiles[number].code()
                numbers = [number for number in numbers if not tiles[number].is_done]
        except BaseException:
            turns.fail()
            raise

    on_threads(work, todo, threads, turns.fail)


def on_threads(
    work: Callable[[list[int]], None],
    numbers: Sequence[int],
    threads: int,
    fail: Callable[[], None],
) -> None:
    """work(some of the numbers) on each thread, until all have ended; one thread is this one.

    fail: makes those that wait for others end, when a signal comes. What the work raises passes;
    `Stopped` only if nobody raised anything else.
    """
    threads = min(max(threads, 1), len(numbers))
    if threads <= 1:
        with one_thread_each():
            work(list(numbers))
        return
    with one_thread_each(), ThreadPoolExecutor(threads, initializer=settle) as pool:
        futures = [pool.submit(work, list(numbers[i::threads])) for i in range(threads)]
        try:
            problems = [problem for f in futures if (problem := f.exception())]
        except BaseException:  # a signal
            fail()
            raise
    for problem in problems:
        if not isinstance(problem, Stopped):
            raise problem
    if problems:
        raise problems[0]
