"""Streams: what comes in block by block, and outputs that have no name to appear under."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from mdlzip.errors import UsageError
from mdlzip.fileio.atomic import COPY_BLOCK_BYTES
from mdlzip.fileio.checks import own_descriptor, plain_errors, temporary_folder
from mdlzip.fileio.owner import Metadata


class Readable(Protocol):
    """Anything with a binary `read`."""

    def read(self, size: int, /) -> bytes | None:
        """Up to `size` bytes; nothing at the end, None if none have arrived yet."""


def read_block(stream: Readable, size: int) -> bytes:
    """Up to `size` bytes, at least one unless the stream has ended.

    Whoever started us may have left stdin non-blocking (ssh, node, supervisors); then `read`
    answers None for "nothing yet", which is not the end.
    """
    while (block := stream.read(size)) is None:
        select.select([stream], [], [])  # type: ignore[type-var]
    return block


def read_blocks(stream: Readable, size: int = COPY_BLOCK_BYTES) -> Iterator[bytes]:
    """Everything up to the end of the stream."""
    while block := read_block(stream, size):
        yield block


def spool(stream: Readable, name: str) -> BinaryIO:
    """A stream's bytes in an unnamed temporary file, which is at its end then.

    name: what the stream is called in errors. Raises MdlzipError.
    """
    with plain_errors(f"{name}: cannot keep it in a temporary file in {temporary_folder()}"):
        copy = tempfile.TemporaryFile()
    blocks = read_blocks(stream)
    try:
        while True:
            with plain_errors(f"{name}: cannot read"):
                block = next(blocks, b"")
            if not block:
                break
            with plain_errors(
                f"{name}: cannot keep it in a temporary file in {temporary_folder()}"
            ):
                copy.write(block)
                copy.flush()
    except BaseException:
        with contextlib.suppress(OSError):
            copy.close()
        raise
    return copy


def open_stream(path: Path) -> BinaryIO:
    """A pipe, a device or an open file behind `path`, for reading from where it stands."""
    number = own_descriptor(path)
    return path.open("rb") if number is None else os.fdopen(os.dup(number), "rb")


class DirectStream:
    """Stdout, a pipe or a device: bytes go out as they come."""

    def __init__(self, path: Path | None) -> None:
        self._name = str(path or "stdout")
        self._fd: int | None = None
        with plain_errors(f"{self._name}: cannot open"):
            number = None if path is None else own_descriptor(path)
            if number is not None:
                self._fd = os.dup(number)
            elif path is not None:  # neither made nor emptied: it is there and is not a file
                self._fd = os.open(path, os.O_WRONLY | os.O_NOCTTY)

    @property
    def file(self) -> BinaryIO:
        """Not available."""
        raise UsageError(f"{self._name}: cannot be read back")

    def write(self, data: bytes) -> None:
        """Write `data` through."""
        with plain_errors(f"{self._name}: cannot write"):
            if self._fd is None:
                _write_stdout(data)
            else:
                _write_all(self._fd, data)

    def restart(self) -> None:
        """Not possible."""
        raise UsageError(f"{self._name}: cannot be taken back")

    def commit(self, metadata: Metadata | None = None) -> None:
        """Flush; owner, permissions and time do not apply."""
        with plain_errors(f"{self._name}: cannot write"):
            if self._fd is None:
                sys.stdout.buffer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)


def _write_stdout(data: bytes) -> None:
    try:
        fd = sys.stdout.buffer.fileno()
    except (OSError, ValueError):  # not a file of the system, as in a notebook or a test
        sys.stdout.buffer.write(data)
        return
    sys.stdout.flush()
    _write_all(fd, data)


def _write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting where the reader of a non-blocking pipe is slow."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            select.select([], [fd], [])


class SpooledStream(DirectStream):
    """As `DirectStream`, but kept in an anonymous temporary file until `commit`."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(path)
        self._doing = f"cannot write a temporary file in {temporary_folder()}"
        with plain_errors(self._doing):
            self._spool = tempfile.TemporaryFile()

    @property
    def file(self) -> BinaryIO:
        """What was written so far."""
        return self._spool

    def write(self, data: bytes) -> None:
        """Append `data` to the temporary file."""
        with plain_errors(self._doing):
            self._spool.write(data)

    def restart(self) -> None:
        """Empty the temporary file."""
        with plain_errors(self._doing):
            self._spool.seek(0)
            self._spool.truncate()

    def commit(self, metadata: Metadata | None = None) -> None:
        """Copy everything to the stream."""
        with plain_errors(self._doing):
            self._spool.seek(0)
        while block := self._spool.read(COPY_BLOCK_BYTES):
            super().write(block)
        super().commit()

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._spool.close()
        super().__exit__(*exc)
