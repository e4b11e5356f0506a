"""The general-purpose methods as rivals of the model: the archive is never worse than theirs."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import BinaryIO

from mdlzip.archive import payload
from mdlzip.archive.header import Method
from mdlzip.archive.writer import payload_archive_bytes, stored_archive_bytes
from mdlzip.codec.options import Progress, ShouldStop
from mdlzip.corpus import Corpus
from mdlzip.errors import Interrupted
from mdlzip.fileio import plain_errors

_POLL_S = 0.2
SPOOL_BYTES = 1 << 24  # a compressed candidate up to this size stays in memory

# No network that predicts better than counting symbols does has been written down in less.
LEAST_MODEL_BYTES = 2048
INCOMPRESSIBLE = 0.99  # what no general method shrinks below this is noise to a model, too


class _Cancelled(Exception):
    pass


@dataclass
class Rivals:
    """Archive size of each general method, and the compressed streams; `close` frees them."""

    sizes: dict[Method, int]
    streams: dict[Method, BinaryIO] = field(default_factory=dict)

    @property
    def best(self) -> Method:
        """The smallest; the simpler one of equals."""
        return min(self.sizes, key=lambda method: (self.sizes[method], method))

    def close(self) -> None:
        """Free the temporary files."""
        for stream in self.streams.values():
            stream.close()


def compete(
    corpus: Corpus, name: str | None, progress: Progress, should_stop: ShouldStop
) -> Rivals:
    """Compress with zstd and LZMA at their hardest, side by side; stored needs no trying.

    name: file name that the archive will hold, None for none. Raises Interrupted.
    """
    rivals = Rivals({Method.STORED: stored_archive_bytes(corpus.size)})
    if corpus.size == 0:
        return rivals
    methods = (Method.ZSTD, Method.XZ)
    cancel, done = threading.Event(), dict.fromkeys(methods, 0)
    try:
        for method in methods:
            rivals.streams[method] = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # type: ignore[assignment]
        with ThreadPoolExecutor(len(methods)) as pool:
            try:
                tasks = {
                    pool.submit(_compress, method, corpus, rivals.streams[method], cancel, done)
                    for method in methods
                }
                while tasks:
                    finished, tasks = wait(tasks, _POLL_S, FIRST_COMPLETED)
                    if should_stop():
                        raise Interrupted("stopped before training began")
                    for task in finished:
                        task.result()
                    progress("compare", sum(done.values()), len(methods) * corpus.size, "")
            except BaseException:
                cancel.set()
                raise
        for method in methods:
            size = rivals.streams[method].seek(0, 2)
            rivals.sizes[method] = payload_archive_bytes(name, size, corpus.size)
    except BaseException:
        rivals.close()
        raise
    return rivals


def _compress(
    method: Method,
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

    with plain_errors("cannot write a temporary file"):
        payload.encode(method, blocks(), corpus.size, stream.write)


def hopeless(size: int, rivals: Rivals) -> str | None:
    """Why training cannot pay for an original of `size` bytes; None if it may."""
    best = rivals.sizes[rivals.best]
    if size == 0:
        return "the file is empty"
    if best <= stored_archive_bytes(0) + LEAST_MODEL_BYTES:
        return f"{rivals.best.label} needs {best} bytes, less than any model does"
    if best > INCOMPRESSIBLE * size:
        return "the data look random or compressed already"
    return None
