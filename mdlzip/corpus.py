"""The bytes to be compressed: memory-mapped, read-only, never loaded whole."""

from __future__ import annotations

import mmap
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from mdlzip.errors import MdlzipError, SourceChanged, UsageError
from mdlzip.fileio import (
    Metadata,
    open_descriptor,
    open_stream,
    plain_errors,
    remove_if_same,
    same_file,
    spool,
    untouched,
)
from mdlzip.limits import MAX_ORIGINAL_BYTES, READ_BLOCK_BYTES

STDIN = "-"


def is_standard_stream(path: Path | str) -> bool:
    """Whether a source is an open file without a name of its own: "-", /dev/stdin, <(...)."""
    return str(path) == STDIN or open_descriptor(Path(path)) is not None


@dataclass
class Corpus:
    """A file open for compression; a context manager.

    data: uint8, shape (size,), read-only view of the mapped bytes; name: base name, None for a
    pipe; mode: permission bits 0..0o777, None for a pipe; mtime_ns: 0 for a pipe; path: None for
    a pipe; copied: whether `data` are those of a temporary copy, as of a pipe or of a file that
    cannot be mapped. Slices of `data` must not outlive the context.
    """

    data: np.ndarray
    name: str | None
    mode: int | None
    mtime_ns: int
    path: Path | None
    copied: bool
    _file: BinaryIO = field(repr=False)
    _status: os.stat_result = field(repr=False)
    _digest: bytes = field(default=b"", repr=False)
    _grown: bool = field(default=False, repr=False)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return int(self.data.size)

    @property
    def metadata(self) -> Metadata | None:
        """What the archive's file takes over; None for a pipe."""
        if self.mode is None:
            return None
        return Metadata(self.mode, self.mtime_ns, self._status.st_uid, self._status.st_gid)

    def blocks(self) -> Iterator[bytes]:
        """All bytes in order, in blocks of at most 1 MiB."""
        for start in range(0, self.size, READ_BLOCK_BYTES):
            yield self.data[start : start + READ_BLOCK_BYTES].tobytes()

    def digest(self) -> bytes:
        """SHA-256 of all bytes as they were when this was first asked."""
        if not self._digest:
            self._digest = self._hash()
        return self._digest

    def _hash(self) -> bytes:
        hasher = sha256()
        for block in self.blocks():
            hasher.update(block)
        return hasher.digest()

    def check_unchanged(self) -> str | None:
        """Look whether the file still holds what was opened; cheap while nobody touches it.

        A file that only grew goes on as the bytes it had: the returned warning says so. Raises
        SourceChanged if the bytes are others or fewer.
        """
        if self.copied:
            return None
        now = os.fstat(self._file.fileno())
        if untouched(now, self._status):
            return None
        name = self.path or "input"
        if now.st_size < self.size:
            raise SourceChanged(f"{name}: changed while it was being compressed: it is shorter")
        if not self._digest or self._hash() != self._digest:
            raise SourceChanged(f"{name}: changed while it was being compressed")
        self._grown = self._grown or now.st_size > self.size
        self._status = now
        if now.st_size == self.size:
            return None
        return f"{name}: has grown meanwhile; the archive holds the first {self.size:,} bytes"

    def remove_source(self) -> None:
        """Unlink the path, if it still is the very file that was compressed.

        Raises MdlzipError, which leaves it there.
        """
        if self.path is None:
            return
        if self._grown:
            raise MdlzipError(f"{self.path}: has grown meanwhile, so it is not removed")
        remove_if_same(self.path, self._status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.data = np.empty(0, np.uint8)  # the mapping goes with its last view
        self._file.close()


def open_corpus(path: Path | str) -> Corpus:
    """Open a file, a pipe or "-" (stdin); what cannot be mapped is copied to a temporary file.

    Raises UsageError for a folder or device, MdlzipError if it cannot be read or is too large.
    """
    if str(path) == STDIN:
        return _of_stream(sys.stdin.buffer, "stdin")
    if not str(path):
        raise UsageError("the name of the input is empty")
    path = Path(path)
    with plain_errors(f"{path}: cannot open"):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path}: is a folder; pack it first, for example with tar")
        if stat.S_ISFIFO(mode) or open_descriptor(path) is not None:
            with open_stream(path) as stream:
                return _of_stream(stream, str(path))
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path}: is not a regular file")
        return _of_file(path)


def _of_stream(stream: BinaryIO, name: str) -> Corpus:
    copy = spool(stream, name)
    with plain_errors(f"{name}: cannot read its copy"):
        status = os.fstat(copy.fileno())
        return Corpus(_mapped(copy, status.st_size), None, None, 0, None, True, copy, status)


def _of_file(path: Path) -> Corpus:
    file = path.open("rb")
    status = os.fstat(file.fileno())
    if not same_file(status, path.stat()) or not stat.S_ISREG(status.st_mode):
        file.close()
        raise SourceChanged(f"{path}: was replaced while it was being opened")
    copied = status.st_size == 0  # files of /proc have no size, but content
    try:
        data = _mapped(file, status.st_size)
    except (OSError, ValueError):  # files of /sys and of some FUSE file systems cannot be mapped
        copied = True
    source: BinaryIO = file
    if copied:
        source = spool(file, str(path))
        file.close()
        data = _mapped(source, os.fstat(source.fileno()).st_size)
    mode = stat.S_IMODE(status.st_mode) & 0o777
    return Corpus(data, path.name, mode, status.st_mtime_ns, path, copied, source, status)


def _mapped(file: BinaryIO, size: int) -> np.ndarray:
    """The first `size` bytes of a file as a read-only array; MdlzipError if they are too many."""
    if size >= MAX_ORIGINAL_BYTES:
        file.close()
        raise MdlzipError(f"{size} bytes are too many for an archive")
    if not size:
        data = np.empty(0, np.uint8)
        data.setflags(write=False)
        return data
    return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), np.uint8)
