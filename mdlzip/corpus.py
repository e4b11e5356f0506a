"""The bytes to be compressed: read block by block, never loaded whole.

They are not mapped: pages of a mapping count as memory of the process, and a file that is cut short
meanwhile would end it by a signal.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from mdlzip.errors import IsFolder, MdlzipError, SourceChanged, UsageError
from mdlzip.fileio import (
    Metadata,
    checked_path,
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

    size: number of bytes; name: base name, None for a pipe; mode: permission bits 0..0o777, None
    for a pipe; mtime_ns: 0 for a pipe; path: None for a pipe; copied: whether the bytes are those
    of a temporary copy, as of a pipe or of a file that does not tell its true size.
    """

    size: int
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
    def metadata(self) -> Metadata | None:
        """What the archive's file takes over; None for a pipe."""
        if self.mode is None:
            return None
        return Metadata(self.mode, self.mtime_ns, self._status.st_uid, self._status.st_gid)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes start .. stop - 1, uint8 (stop - start,); any number of threads may read.

        Raises MdlzipError if they cannot be read, SourceChanged if the file has become shorter.
        """
        out = np.empty(stop - start, np.uint8)
        place, view = start, out.data
        with plain_errors(f"{self.path or 'input'}: cannot read"):
            while len(view):
                n = os.preadv(self._file.fileno(), [view], place)
                if not n:
                    raise self._changed(": it is shorter")
                place, view = place + n, view[n:]
        return out

    def blocks(self) -> Iterator[bytes]:
        """All bytes in order, in blocks of at most 1 MiB."""
        for start in range(0, self.size, READ_BLOCK_BYTES):
            yield self.read(start, min(start + READ_BLOCK_BYTES, self.size)).tobytes()

    def remember(self, digest: bytes) -> None:
        """Take note of the SHA-256 of all bytes, so that a later change can be told from none."""
        self._digest = digest

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
        if now.st_size < self.size:
            raise self._changed(": it is shorter")
        if not self._digest or self._hash() != self._digest:
            raise self._changed()
        self._grown = self._grown or now.st_size > self.size
        self._status = now
        if now.st_size == self.size:
            return None
        name = self.path or "input"
        return f"{name}: has grown meanwhile; the archive holds the first {self.size:,} bytes"

    def _changed(self, how: str = "") -> SourceChanged:
        return SourceChanged(f"{self.path or 'input'}: changed while it was being compressed{how}")

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
        self._file.close()


def open_corpus(path: Path | str) -> Corpus:
    """Open a file, a pipe or "-" (stdin); pipes are copied to a temporary file first.

    Raises UsageError for a folder or device, MdlzipError if it cannot be read or is too large.
    """
    if str(path) == STDIN:
        return _of_stream(sys.stdin.buffer, "stdin")
    path = checked_path(path, "input")
    with plain_errors(f"{path}: cannot open"):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsFolder(f"{path}: is a folder; pack it first, for example with tar")
        if stat.S_ISFIFO(mode) or open_descriptor(path) is not None:
            with open_stream(path) as stream:
                return _of_stream(stream, str(path))
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path}: is not a regular file")
        return _of_file(path)


def corpus_in(file: BinaryIO, name: str) -> Corpus:
    """What an open temporary file holds; to close the corpus closes the file. name: for errors."""
    with plain_errors(f"{name}: cannot read its copy"):
        file.flush()
        status = os.fstat(file.fileno())
        return Corpus(_checked_size(file, status.st_size), None, None, 0, None, True, file, status)


def _of_stream(stream: BinaryIO, name: str) -> Corpus:
    return corpus_in(spool(stream, name), name)


def _of_file(path: Path) -> Corpus:
    source: BinaryIO = path.open("rb")
    status = os.fstat(source.fileno())
    if not same_file(status, path.stat()) or not stat.S_ISREG(status.st_mode):
        source.close()
        raise SourceChanged(f"{path}: was replaced while it was being opened")
    size, copied = status.st_size, not _tells_its_size(source, status)
    if copied:
        with source as file:
            source = spool(file, str(path))
        size = os.fstat(source.fileno()).st_size
    mode = stat.S_IMODE(status.st_mode) & 0o777
    mtime_ns, size = status.st_mtime_ns, _checked_size(source, size)
    return Corpus(size, path.name, mode, mtime_ns, path, copied, source, status)


def _tells_its_size(file: BinaryIO, status: os.stat_result) -> bool:
    """Whether a file ends where it says; those of /proc, /sys and some of FUSE do not."""
    size, fd = status.st_size, file.fileno()
    if os.pread(fd, 1, size):
        return os.fstat(fd).st_size > size  # then it has grown just now
    return size == 0 or bool(os.pread(fd, 1, size - 1))


def _checked_size(file: BinaryIO, size: int) -> int:
    if size >= MAX_ORIGINAL_BYTES:
        file.close()
        raise MdlzipError(f"{size} bytes are too many for an archive")
    return size
