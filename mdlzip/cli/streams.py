"""The standard streams, made safe to use: closed ones, odd names, readers that left."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

_NAMES = ("stdin", "stdout", "stderr")
_PIECE = 800  # characters: with 10 bytes each (escaped) still less than the buffer holds
_closed: set[int] = set()  # the standard streams that the parent process had closed


def settle_streams() -> None:
    """Put /dev/null in place of standard streams that are closed; call before opening anything.

    Otherwise the next file to be opened, such as the archive, would become standard output or
    error, and whatever is printed would go into it. Input and output get it opened the wrong way
    round: using them fails, where an empty input or a lost result would look like success.
    """
    for fd, name in enumerate(_NAMES):
        stream: TextIO | None = getattr(sys, name)
        if stream is None or not _is_open(fd):
            _closed.add(fd)
            reads = fd == 1
            null = os.open(os.devnull, os.O_RDONLY if reads else os.O_WRONLY)
            os.set_inheritable(null, null <= 2)
            if stream is None:
                setattr(sys, name, open(null, "w" if fd else "r", closefd=False))
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")  # no name may stop a report


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def is_closed(fd: int) -> bool:
    """Whether the standard stream `fd` was closed when the program was started."""
    return fd in _closed


def write(stream: TextIO, text: str) -> None:
    """Write and flush all of `text`, waiting where the stream is not ready (non-blocking)."""
    for start in range(0, len(text), _PIECE):
        waiting = _blocks(partial(stream.write, text[start : start + _PIECE]))
        while waiting or _blocks(stream.flush):
            select.select((), (stream,), ())
            waiting = False


def _blocks(act: Callable[[], object]) -> bool:
    """Do it, and tell whether the stream was not ready; what was written is in its buffer then."""
    try:
        act()
    except BlockingIOError:
        return True
    return False


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
