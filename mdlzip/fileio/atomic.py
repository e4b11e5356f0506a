"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import BinaryIO, Self

from mdlzip.errors import MdlzipError
from mdlzip.fileio.checks import exists, plain_errors
from mdlzip.fileio.naming import (
    PART_SUFFIX,
    fd_path,
    hidden_part,
    hidden_stem,
    links_work,
    move_without_replacing,
)
from mdlzip.fileio.owner import Metadata

COPY_BLOCK_BYTES = 1 << 20
_HOLE_BYTES = 1 << 16  # zeros are left out of the file in pieces of this size
_ZEROS = bytes(_HOLE_BYTES)
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_ABANDONED_S = 24 * 3600.0  # where nothing can be locked, a part untouched for so long is stale


class AtomicOutput:
    """A file without a name until `commit`: anonymous, or hidden where that is not possible.

    sparse: long runs of zeros become holes.
    """

    def __init__(
        self, path: Path, *, force: bool = False, anonymous: bool = True, sparse: bool = False
    ) -> None:
        self._path = path
        self._force = force
        self._sparse = sparse
        self._part: Path | None = None
        remove_stale_parts(path)
        with plain_errors(f"{path}: cannot create the output"):
            self._folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._file = os.fdopen(self._create(anonymous), "w+b", COPY_BLOCK_BYTES)
            except BaseException:
                os.close(self._folder)
                raise

    def _create(self, anonymous: bool) -> int:
        flags = os.O_RDWR | getattr(os, "O_TMPFILE", 0)
        if anonymous and flags != os.O_RDWR and links_work(self._folder, flags):
            return _locked(os.open(".", flags, 0o600, dir_fd=self._folder))
        while True:
            part = hidden_part(self._path)
            fd = _locked(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            if os.fstat(fd).st_nlink:  # not taken for a stale part before the lock was ours
                self._part = part
                return fd
            os.close(fd)

    @property
    def file(self) -> BinaryIO:
        """The file, for reading back before `commit`."""
        return self._file

    def write(self, data: bytes) -> None:
        """Append `data`."""
        with plain_errors(f"{self._path}: cannot write"):
            if not self._sparse:
                self._file.write(data)
                return
            for start in range(0, len(data), _HOLE_BYTES):
                piece = data[start : start + _HOLE_BYTES]
                if piece == _ZEROS:
                    self._file.seek(_HOLE_BYTES, os.SEEK_CUR)
                else:
                    self._file.write(piece)

    def restart(self) -> None:
        """Empty the file."""
        with plain_errors(f"{self._path}: cannot write"):
            self._file.seek(0)
            self._file.truncate()

    def commit(self, metadata: Metadata | None = None) -> None:
        """Give the file its owner, permissions, time and, once it is safe on disk, its name."""
        fd = self._file.fileno()
        with plain_errors(f"{self._path}: cannot write"):
            self._file.flush()
            if self._sparse:
                os.ftruncate(fd, self._file.tell())
            (metadata or Metadata()).apply(fd)
            os.fsync(fd)
            self._link(fd)
            with contextlib.suppress(OSError):  # not every file system can sync a folder
                os.fsync(self._folder)

    def _link(self, fd: int) -> None:
        try:
            if self._part is None:
                target = hidden_part(self._path) if self._force else self._path
                os.link(fd_path(fd), target.name, dst_dir_fd=self._folder, follow_symlinks=True)
                self._part = target if self._force else None
            elif not self._force:
                move_without_replacing(self._part, self._path)
                self._part = None
            if self._force and self._part is not None:
                os.replace(self._part, self._path)
                self._part = None
        except FileExistsError:
            raise exists(self._path) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._part is not None:
            with contextlib.suppress(OSError):
                self._part.unlink()
        with contextlib.suppress(OSError):  # what could not be flushed is not wanted any more
            self._file.close()
        os.close(self._folder)


def check_writable(path: Path, *, force: bool) -> None:
    """Make and drop an unfinished output, so that what forbids one is known before the work.

    Raises MdlzipError.
    """
    with AtomicOutput(path, force=force):
        pass


def check_space(path: Path, need: int, what: str) -> None:
    """MdlzipError if the disk that holds `path` has no room for `need` bytes."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(path.parent).free
        if free < need:
            raise MdlzipError(
                f"{path}: cannot write: {what} needs at least {need:,} bytes, the disk has"
                f" {free:,} left"
            )


def remove_stale_parts(path: Path) -> None:
    """Remove hidden parts of `path` left by a process that was killed: those nobody has locked."""
    pattern = re.compile(re.escape(hidden_stem(path)) + r"\.[0-9a-f]{8}" + re.escape(PART_SUFFIX))
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            if pattern.fullmatch(name):
                _remove_if_unused(path.parent / name)


def _remove_if_unused(part: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS or time.time() - status.st_mtime < _ABANDONED_S:
                    return
            part.unlink()
        finally:
            os.close(fd)


def _locked(fd: int) -> int:
    """`fd`, locked, so that others can tell a file in use from one left behind."""
    with contextlib.suppress(OSError):  # some network file systems have no locks
        fcntl.flock(fd, fcntl.LOCK_EX)
    return fd
