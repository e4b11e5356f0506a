"""The standard streams, made safe to use: closed ones, slow ones, odd names, readers that left."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

_closed: set[int] = set()  # the standard streams that the parent process had closed


def settle_streams() -> None:
    """Make the three standard streams safe; call before anything is opened.

    A stream that is closed becomes /dev/null. Otherwise the next file to be opened, such as the
    archive, would take its number, and whatever is printed would go into it. Input and output get
    it opened the wrong way round: using them fails, where an empty input or a lost result would
    look like success. Output is buffered and written whole, also where Python was told not to
    buffer (its own unbuffered stream drops what a full pipe or disk does not take), and characters
    that the locale lacks are escaped, so that no name can stop a report.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        stream: TextIO | None = getattr(sys, name)
        if stream is None or not _is_open(fd):
            _closed.add(fd)
            null = os.open(os.devnull, os.O_RDONLY if fd == 1 else os.O_WRONLY)
            os.set_inheritable(null, null <= 2)
            if stream is None:
                setattr(sys, name, _patient(null) if fd else open(null, closefd=False))
                continue
        if fd and isinstance(stream, io.TextIOWrapper) and _number(stream) == fd:
            stream.flush()
            setattr(sys, name, _patient(fd, stream.encoding))


class _Patient(io.FileIO):
    """Writes everything it is given; waits where the stream is not ready (non-blocking)."""

    def write(self, data: Any, /) -> int:
        """The number of bytes written; fewer only where the system refuses the rest."""
        whole = memoryview(data).cast("B")
        done = 0
        while done < len(whole):
            try:
                written = super().write(whole[done:])
            except OSError:
                if done:
                    break  # the next call meets the same error, and nothing is written twice
                raise
            if written is None:
                select.select((), (self,), ())
            done += written or 0
        return done


def _patient(fd: int, encoding: str | None = None) -> TextIO:
    buffer = io.BufferedWriter(_Patient(fd, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=buffer.isatty())


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _number(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1


def is_closed(fd: int) -> bool:
    """Whether the standard stream `fd` was closed when the program was started."""
    return fd in _closed


def why(problem: OSError) -> str:
    """Why a standard stream takes or gives nothing, for people."""
    if problem.errno == errno.EBADF:
        return "it is closed"
    return (problem.strerror or str(problem)).lower()


def discard(stream: TextIO) -> None:
    """Send `stream` to /dev/null: what is still buffered must not raise when Python ends."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()
    except (OSError, ValueError):
        pass
