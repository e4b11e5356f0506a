"""The bytes to be compressed: read block by block, never loaded whole.

They are not mapped: pages of a mapping count as memory of the process, and a file that is cut short
meanwhile would end it by a signal.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from mdlzip.errors import MdlzipError, UsageError
from mdlzip.fileio import plain_errors
from mdlzip.limits import MAX_ORIGINAL_BYTES, READ_BLOCK_BYTES

STDIN = "-"


@dataclass
class Corpus:
    """A file open for compression; a context manager.

    name: base name, None for a pipe; mode: permission bits 0..0o777, None for a pipe; mtime_ns: 0
    for a pipe; path: None for a pipe.
    """

    name: str | None
    mode: int | None
    mtime_ns: int
    path: Path | None
    _file: BinaryIO = field(repr=False)
    _status: os.stat_result = field(repr=False)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._status.st_size

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes start .. stop - 1, uint8 (stop - start,); any number of threads may read.

        Raises MdlzipError if they cannot be read or the file has become shorter.
        """
        out = np.empty(stop - start, np.uint8)
        place, view = start, out.data
        with plain_errors(f"{self.path or 'input'}: cannot read"):
            while len(view):
                n = os.preadv(self._file.fileno(), [view], place)
                if not n:
                    raise self._changed()
                place, view = place + n, view[n:]
        return out

    def blocks(self) -> Iterator[bytes]:
        """All bytes in order, in blocks of at most 1 MiB."""
        for start in range(0, self.size, READ_BLOCK_BYTES):
            yield self.read(start, min(start + READ_BLOCK_BYTES, self.size)).tobytes()

    def check_unchanged(self) -> None:
        """MdlzipError if the file's size or time is not what it was when it was opened."""
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise self._changed()

    def _changed(self) -> MdlzipError:
        return MdlzipError(f"{self.path or 'input'}: changed while it was being compressed")

    def remove_source(self) -> None:
        """Unlink the path, if it still is the very file that was compressed."""
        if self.path is None:
            return
        with plain_errors(f"{self.path}: cannot remove"):
            now = os.stat(self.path)
            if (now.st_dev, now.st_ino) != (self._status.st_dev, self._status.st_ino):
                raise MdlzipError(f"{self.path}: was replaced meanwhile, so it is not removed")
            self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def open_corpus(path: Path | str) -> Corpus:
    """Open a file, a named pipe or "-" (stdin); pipes are copied to a temporary file first.

    Raises UsageError for a folder or device, MdlzipError if it cannot be read or is too large.
    """
    if str(path) == STDIN:
        with plain_errors("stdin: cannot read"):
            return _from_file(_spool(sys.stdin.buffer), None)
    path = Path(path)
    with plain_errors(f"{path}: cannot open"):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path}: is a folder; pack it first, for example with tar")
        if stat.S_ISFIFO(mode):
            with path.open("rb") as pipe:
                return _from_file(_spool(pipe), None)
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path}: is not a regular file")
        return _from_file(path.open("rb"), path)


def _spool(stream: BinaryIO) -> BinaryIO:
    spool = tempfile.TemporaryFile()
    while block := stream.read(READ_BLOCK_BYTES):
        spool.write(block)
    spool.flush()
    return spool


def _from_file(file: BinaryIO, path: Path | None) -> Corpus:
    status = os.fstat(file.fileno())
    if status.st_size >= MAX_ORIGINAL_BYTES:
        file.close()
        raise MdlzipError(f"{path or 'input'}: {status.st_size} bytes are too many for an archive")
    return Corpus(
        name=path.name if path else None,
        mode=stat.S_IMODE(status.st_mode) & 0o777 if path else None,
        mtime_ns=status.st_mtime_ns if path else 0,
        path=path,
        _file=file,
        _status=status,
    )
