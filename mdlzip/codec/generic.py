"""The general-purpose methods as rivals of the model: the archive is never worse than theirs."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from mdlzip.archive.bodies import COMPRESSED, GENERAL
from mdlzip.archive.bodies.compressed import Compressed
from mdlzip.archive.bodies.general import General
from mdlzip.archive.header import HEADER_BYTES
from mdlzip.archive.index import MIN_UNIT_BYTES
from mdlzip.archive.sections import DIGEST_BYTES
from mdlzip.callbacks import OnProgress
from mdlzip.codec.options import ShouldStop
from mdlzip.corpus import Corpus
from mdlzip.errors import Interrupted
from mdlzip.fileio import plain_errors, temporary_folder
from mdlzip.limits import DEFAULT_MEMORY_BYTES
from mdlzip.process.cores import thread_count
from mdlzip.resources import give_back_freed_memory
from mdlzip.symbols.layout import Layout

_POLL_S = 0.2
_TIMED_BYTES = 1 << 22  # enough to tell how long a level takes
SPOOL_BYTES = 1 << 24  # a compressed candidate up to this size stays in memory

# The smallest model seen so far that beats an order-0 count; for a file that a general method makes
# smaller than this, training cannot pay.
LEAST_MODEL_BYTES = 2048
INCOMPRESSIBLE = 0.99  # what no general method shrinks below this is noise to a model, too


class _Cancelled(Exception):
    pass


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


def compete(
    corpus: Corpus,
    name: str | None,
    progress: OnProgress,
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
    size = corpus.size
    tried = [body for body in COMPRESSED if body.most_memory_bytes(size) <= memory]
    rivals = Rivals(
        {body: body.archive_bytes(name, size, size) for body in GENERAL if body not in COMPRESSED}
    )
    if size == 0 or not tried:
        return rivals
    race = _Race(corpus, rivals, name, progress, should_stop, thread_count(threads))
    try:
        race.run({body: body.levels[0] for body in tried}, limit_s)
        if not rivals.streams:
            quick = {body: body.levels[-1] for body in rivals.cut_short if len(body.levels) > 1}
            race.run(quick, math.inf)
    except BaseException:
        rivals.close()
        raise
    return rivals


def use_rest(
    rivals: Rivals,
    corpus: Corpus,
    name: str | None,
    progress: OnProgress,
    should_stop: ShouldStop,
    *,
    limit_s: float,
    threads: int | None = None,
) -> None:
    """Take up again what was cut short, at the hardest level that `limit_s` seconds are enough for.

    What comes out smaller takes the place of what `rivals` holds. Raises Interrupted.
    """
    best, end = min(rivals.sizes.values()), time.monotonic() + limit_s
    levels = {}
    for body, heading in sorted(rivals.cut_short.items(), key=lambda item: item[1]):
        if heading.archive_bytes >= best:
            continue
        level = _level_within(body, corpus, heading, limit_s, should_stop)
        if level is not None:
            levels[body] = level
    if thread_count(threads) == 1:  # they would take turns
        levels = dict(list(levels.items())[:1])
    race = _Race(corpus, rivals, name, progress, should_stop, thread_count(threads))
    race.run(levels, end - time.monotonic())


def _level_within(
    body: Compressed,
    corpus: Corpus,
    heading: CutShort,
    limit_s: float,
    should_stop: ShouldStop,
) -> int | None:
    """The hardest level of `body` that would compress the input in the time given.

    Those below the hardest are timed on a part of it. None if only the quickest would, which has
    had its turn.
    """
    if heading.seconds <= limit_s:
        return body.levels[0]
    half = corpus.size // 2
    part = corpus.read(half, min(half + _TIMED_BYTES, corpus.size)).tobytes()
    for level in body.levels[1:-1]:
        if should_stop():
            raise Interrupted("stopped while general methods compressed the input")
        began = time.monotonic()
        body.compress([part], corpus.size, lambda block: None, level)
        if (time.monotonic() - began) * corpus.size / len(part) <= limit_s:
            return level
    return None


class _Race:
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

    def run(self, levels: dict[Compressed, int], limit_s: float) -> None:
        """Compress with each body at its level; the rivals hold the smallest of each body."""
        if not levels:
            return
        cancel, done = threading.Event(), dict.fromkeys(levels, 0)
        began = time.monotonic()
        streams: dict[Compressed, BinaryIO] = {
            body: tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # type: ignore[misc]
            for body in levels
        }
        with ExitStack() as stack:
            for stream in streams.values():
                stack.callback(stream.close)
            self._wait(levels, streams, cancel, done, began + limit_s)
            stack.pop_all()
        give_back_freed_memory()  # of the compressors, more than a gigabyte
        for body, n in done.items():
            self._take(body, levels[body], streams[body], n, time.monotonic() - began)

    def _wait(
        self,
        levels: dict[Compressed, int],
        streams: dict[Compressed, BinaryIO],
        cancel: threading.Event,
        done: dict[Compressed, int],
        end: float,
    ) -> None:
        with ThreadPoolExecutor(min(len(levels), self._threads)) as pool:
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
                    if time.monotonic() > end:
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


def hopeless(layout: Layout, rivals: Rivals) -> str | None:
    """Why neither experts nor training can pay for an original cut like `layout`, or None."""
    best, size = rivals.sizes[rivals.best], layout.total_bytes
    if size == 0:
        return "the file is empty"
    frames = layout.n_groups * MIN_UNIT_BYTES
    if best <= HEADER_BYTES + DIGEST_BYTES + LEAST_MODEL_BYTES + frames:
        return f"{rivals.best.label} needs {best} bytes, less than any model and its index do"
    if best > INCOMPRESSIBLE * size:
        return "the data look random or compressed already"
    return None
