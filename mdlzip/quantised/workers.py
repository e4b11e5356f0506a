"""Threads that run tasks in order and stop within a moment when nobody wants the results."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Lock
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


class Stopped(Exception):
    """A task was given up because its result is not wanted any more."""


class _OneEach:
    """How many blocks of `one_thread_each` are open, in all threads; torch's number before."""

    lock = Lock()
    depth = before = 0


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Products of torch on the thread that asks for them: a pool's threads are not multiplied.

    The number is that of the process: it is put back when the last of several such blocks ends.
    """
    torch = sys.modules.get("torch")
    if torch is None:  # on the CPU nobody needs it
        yield
        return
    with _OneEach.lock:
        if not _OneEach.depth:
            _OneEach.before = torch.get_num_threads()
            torch.set_num_threads(1)
        _OneEach.depth += 1
    try:
        yield
    finally:
        with _OneEach.lock:
            _OneEach.depth -= 1
            if not _OneEach.depth:
                torch.set_num_threads(_OneEach.before)


def settle() -> None:
    """Make the calling thread one of those."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


class Workers:
    """Threads for one `map`; results come back in the order of the tasks.

    When its consumer leaves early, by an error, a signal or `close`, running tasks are asked to
    stop: they call `check` several times a second, and it raises.
    """

    def __init__(self, threads: int) -> None:
        self._threads = max(1, threads)
        self._unwanted = Event()

    def check(self) -> None:
        """Raises Stopped in a task whose result nobody waits for."""
        if self._unwanted.is_set():
            raise Stopped

    def map(self, task: Callable[[A], R], items: Iterable[A]) -> Generator[R]:
        """Like `map`, at most threads + 1 tasks ahead of the consumer."""
        with one_thread_each(), ThreadPoolExecutor(self._threads, initializer=settle) as pool:
            pending: deque[Future[R]] = deque()
            try:
                for item in items:
                    pending.append(pool.submit(task, item))
                    if len(pending) > self._threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                self._unwanted.set()
                for future in pending:
                    future.cancel()
