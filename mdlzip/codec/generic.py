"""The general-purpose methods as rivals of the model: the archive is never worse than theirs."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from mdlzip.archive import payload
from mdlzip.archive.header import Method
from mdlzip.archive.index import MIN_UNIT_BYTES
from mdlzip.archive.writer import payload_archive_bytes, stored_archive_bytes
from mdlzip.codec.options import Progress, ShouldStop
from mdlzip.corpus import Corpus
from mdlzip.errors import Interrupted
from mdlzip.fileio import plain_errors, temporary_folder
from mdlzip.limits import DEFAULT_MEMORY_BYTES
from mdlzip.process.cores import thread_count
from mdlzip.symbols.layout import Layout

_POLL_S = 0.2
SPOOL_BYTES = 1 << 24  # a compressed candidate up to this size stays in memory

# The smallest model seen so far that beats an order-0 count; for a file that a general method makes
# smaller than this, training cannot pay.
LEAST_MODEL_BYTES = 2048
INCOMPRESSIBLE = 0.99  # what no general method shrinks below this is noise to a model, too


class _Cancelled(Exception):
    pass


@dataclass
class Rivals:
    """Archive size of each general method, and the compressed streams; `close` frees them.

    cut_short: what was stopped for lack of time, and the archive size that it was heading for.
    """

    sizes: dict[Method, int]
    streams: dict[Method, BinaryIO] = field(default_factory=dict)
    cut_short: dict[Method, int] = field(default_factory=dict)

    @property
    def best(self) -> Method:
        """The smallest; the simpler one of equals."""
        return min(self.sizes, key=lambda method: (self.sizes[method], method))

    def close(self) -> None:
        """Free the temporary files."""
        for stream in self.streams.values():
            stream.close()


def compete(
    corpus: Corpus,
    name: str | None,
    progress: Progress,
    should_stop: ShouldStop,
    *,
    memory: int = DEFAULT_MEMORY_BYTES,
    limit_s: float = math.inf,
    threads: int | None = None,
) -> Rivals:
    """Compress with zstd and LZMA at their hardest, side by side; stored needs no trying.

    name: file name that the archive will hold, None for none; memory: limit for decoding, bytes: a
    method that needs more is left out. limit_s: seconds after which the methods are stopped; then
    zstd at a quick level takes their place. With one of `threads` (None: of the usable cores) they
    take turns. Raises Interrupted.
    """
    rivals = Rivals({Method.STORED: stored_archive_bytes(corpus.size)})
    methods = [
        method
        for method in (Method.ZSTD, Method.XZ)
        if payload.memory_bytes(method, corpus.size) <= memory
    ]
    if corpus.size == 0 or not methods:
        return rivals
    race = _Race(corpus, rivals, progress, should_stop, thread_count(threads))
    try:
        race.run(dict.fromkeys(methods, payload.HARDEST), limit_s)
        if Method.ZSTD in rivals.cut_short and Method.XZ not in rivals.streams:
            race.run({Method.ZSTD: payload.QUICK}, math.inf)
        for method, stream in rivals.streams.items():
            rivals.sizes[method] = payload_archive_bytes(name, stream.seek(0, 2), corpus.size)
    except BaseException:
        rivals.close()
        raise
    return rivals


class _Race:
    """Methods side by side, each in a thread of its own, until all are done or time is up."""

    def __init__(
        self,
        corpus: Corpus,
        rivals: Rivals,
        progress: Progress,
        should_stop: ShouldStop,
        threads: int,
    ) -> None:
        self._threads = threads
        self._corpus, self._rivals = corpus, rivals
        self._progress, self._should_stop = progress, should_stop

    def run(self, levels: dict[Method, int], limit_s: float) -> None:
        cancel, done = threading.Event(), dict.fromkeys(levels, 0)
        streams, end = self._rivals.streams, time.monotonic() + limit_s
        for method in levels:
            streams[method] = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # type: ignore[assignment]
        with ThreadPoolExecutor(min(len(levels), self._threads)) as pool:
            try:
                tasks = {
                    pool.submit(
                        _compress, method, level, self._corpus, streams[method], cancel, done
                    )
                    for method, level in levels.items()
                }
                while tasks:
                    finished, tasks = wait(tasks, _POLL_S, FIRST_COMPLETED)
                    if self._should_stop():
                        raise Interrupted("stopped before training began")
                    for task in finished:
                        task.result()
                    if time.monotonic() > end:
                        cancel.set()
                    self._progress("compare", sum(done.values()), len(done) * self._corpus.size, "")
            except BaseException:
                cancel.set()
                raise
        for method, n in done.items():
            if n < self._corpus.size:
                self._give_up(method, n)

    def _give_up(self, method: Method, done: int) -> None:
        """Forget a method's unfinished stream, but not where it was heading, if it had begun."""
        with self._rivals.streams.pop(method) as stream:
            size = stream.seek(0, 2) * self._corpus.size // max(done, 1)
        if done:
            self._rivals.cut_short[method] = payload_archive_bytes(None, size, self._corpus.size)


def _compress(
    method: Method,
    level: int,
    corpus: Corpus,
    stream: BinaryIO,
    cancel: threading.Event,
    done: dict[Method, int],
) -> None:
    def blocks() -> Iterator[bytes]:
        for block in corpus.blocks():
            if cancel.is_set():
                raise _Cancelled
            yield block
            done[method] += len(block)

    with (
        suppress(_Cancelled),
        plain_errors(f"cannot write a temporary file in {temporary_folder()}"),
    ):
        payload.encode(method, blocks(), corpus.size, stream.write, level)


def hopeless(layout: Layout, rivals: Rivals) -> str | None:
    """Why neither experts nor training can pay for an original cut like `layout`, or None."""
    best, size = rivals.sizes[rivals.best], layout.total_bytes
    if size == 0:
        return "the file is empty"
    frames = layout.n_groups * MIN_UNIT_BYTES
    if best <= stored_archive_bytes(0) + LEAST_MODEL_BYTES + frames:
        return f"{rivals.best.label} needs {best} bytes, less than any model and its index do"
    if best > INCOMPRESSIBLE * size:
        return "the data look random or compressed already"
    return None
