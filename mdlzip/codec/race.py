"""General-purpose methods side by side or in turns, until all are done or time is up."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from mdlzip.archive.bodies.compressed import Compressed
from mdlzip.archive.bodies.general import General
from mdlzip.callbacks import OnProgress
from mdlzip.codec.options import ShouldStop
from mdlzip.corpus import Corpus
from mdlzip.errors import Interrupted
from mdlzip.fileio import plain_errors, temporary_folder
from mdlzip.resources import give_back_freed_memory

_POLL_S = 0.2
_TOGETHER_BYTES = 1 << 30  # methods that would take more side by side take turns
SPOOL_BYTES = 1 << 24  # a compressed candidate up to this size stays in memory


class _Cancelled(Exception):
    pass


class _Time(NamedTuple):
    """Of a turn, as time.monotonic(): when it begins, ends, and ends at the latest."""

    began: float
    end: float
    latest: float

    def is_up(self, done: int, size: int) -> bool:
        """Whether to stop; not if `done` of `size` bytes say that the rest is done by `latest`."""
        now = time.monotonic()
        if now <= self.end:
            return False
        return now > self.latest or (now - self.began) * size > done * (self.latest - self.began)


class CutShort(NamedTuple):
    """What a method that was stopped for lack of time was heading for: size, and time in all."""

    archive_bytes: int
    seconds: float


@dataclass
class Rivals:
    """Archive size of each general body, and the compressed streams; `close` frees them."""

    sizes: dict[General, int]
    streams: dict[General, BinaryIO] = field(default_factory=dict)
    cut_short: dict[Compressed, CutShort] = field(default_factory=dict)

    @property
    def best(self) -> General:
        """The smallest; the simpler one of equals."""
        return min(self.sizes, key=lambda body: (self.sizes[body], body.number))

    def chosen(self, name: str | None) -> General:
        """The smallest that holds `name`; the smallest of all if none does."""
        best = self.best
        if name is None or best.keeps_name:
            return best
        # What is stored is hardly larger in another body; the simplest of those is taken.
        named = [body for body in self.streams if body.keeps_name]
        return min(named, key=lambda body: body.number, default=best)

    def close(self) -> None:
        """Free the temporary files."""
        for stream in self.streams.values():
            stream.close()


class Race:
    """Methods side by side, each in a thread of its own, until all are done or time is up."""

    def __init__(
        self,
        corpus: Corpus,
        rivals: Rivals,
        name: str | None,
        progress: OnProgress,
        should_stop: ShouldStop,
        threads: int,
    ) -> None:
        self._threads = threads
        self._corpus, self._rivals, self._name = corpus, rivals, name
        self._progress, self._should_stop = progress, should_stop

    def takes_turns(self, levels: dict[Compressed, int]) -> bool:
        """Whether the methods run one after the other: there is one thread, or little memory."""
        size = self._corpus.size
        together = sum(body.compression_memory_bytes(size, level) for body, level in levels.items())
        return self._threads == 1 or together > _TOGETHER_BYTES

    def run(self, levels: dict[Compressed, int], limit_s: float) -> None:
        """Compress with each body at its level; the rivals hold the smallest of each body.

        Methods that take turns have equal shares of the time, and what those before them left. One
        that would come to its end in the shares of those behind it may: the last body, usually the
        smallest, has the first turn, so that it need not run a second time.
        """
        done = dict.fromkeys(levels, 0)
        end = time.monotonic() + limit_s
        turns = [levels]
        if self.takes_turns(levels):
            turns = [{body: level} for body, level in reversed(levels.items())]
        for i, turn in enumerate(turns):
            now = time.monotonic()
            self._run_together(turn, done, _Time(now, now + (end - now) / (len(turns) - i), end))

    def _run_together(
        self, levels: dict[Compressed, int], done: dict[Compressed, int], end: _Time
    ) -> None:
        """done: bytes of each body of all turns, which this one counts up."""
        if not levels:
            return
        began = time.monotonic()
        streams: dict[Compressed, BinaryIO] = {
            body: tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # type: ignore[misc]
            for body in levels
        }
        with ExitStack() as stack:
            for stream in streams.values():
                stack.callback(stream.close)
            self._wait(levels, streams, done, end)
            stack.pop_all()
        give_back_freed_memory()  # of the compressors, hundreds of megabytes
        for body, level in levels.items():
            self._take(body, level, streams[body], done[body], time.monotonic() - began)

    def _wait(
        self,
        levels: dict[Compressed, int],
        streams: dict[Compressed, BinaryIO],
        done: dict[Compressed, int],
        end: _Time,
    ) -> None:
        cancel = threading.Event()
        with ThreadPoolExecutor(len(levels)) as pool:
            try:
                tasks = {
                    pool.submit(_compress, body, level, self._corpus, streams[body], cancel, done)
                    for body, level in levels.items()
                }
                while tasks:
                    finished, tasks = wait(tasks, _POLL_S, FIRST_COMPLETED)
                    if self._should_stop():
                        raise Interrupted("stopped while general methods compressed the input")
                    for task in finished:
                        task.result()
                    if end.is_up(min(done[body] for body in levels), self._corpus.size):
                        cancel.set()
                    self._progress("compare", sum(done.values()), len(done) * self._corpus.size, "")
            except BaseException:
                cancel.set()
                raise

    def _take(
        self, body: Compressed, level: int, stream: BinaryIO, done: int, seconds: float
    ) -> None:
        """Keep a stream that is whole and the smallest of its body, or where it was heading."""
        rivals, size = self._rivals, self._corpus.size
        n = stream.seek(0, 2)
        if done < size:
            stream.close()
            if done:  # it had begun
                heading = body.archive_bytes(None, n * size // done, size)
                rivals.cut_short[body] = CutShort(heading, seconds * size / done)
            return
        if level == body.levels[0]:
            rivals.cut_short.pop(body, None)
        total = body.archive_bytes(self._name, n, size)
        if total >= rivals.sizes.get(body, total + 1):
            stream.close()
            return
        if body in rivals.streams:
            rivals.streams[body].close()
        rivals.sizes[body], rivals.streams[body] = total, stream


def _compress(
    body: Compressed,
    level: int,
    corpus: Corpus,
    stream: BinaryIO,
    cancel: threading.Event,
    done: dict[Compressed, int],
) -> None:
    def blocks() -> Iterator[bytes]:
        for block in corpus.blocks():
            if cancel.is_set():
                raise _Cancelled
            yield block
            done[body] += len(block)

    with (
        suppress(_Cancelled),
        plain_errors(f"cannot write a temporary file in {temporary_folder()}"),
    ):
        body.compress(blocks(), corpus.size, stream.write, level)
