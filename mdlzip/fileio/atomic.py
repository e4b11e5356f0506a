"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from pathlib import Path
from typing import BinaryIO, Self

from mdlzip.fileio.checks import exists, plain_errors

COPY_BLOCK_BYTES = 1 << 20
PART_SUFFIX = ".part"


class AtomicOutput:
    """A file without a name until `commit`: anonymous, or hidden where that is not possible."""

    def __init__(self, path: Path, *, force: bool = False, anonymous: bool = True) -> None:
        self._path = path
        self._force = force
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
        flag = getattr(os, "O_TMPFILE", 0) if anonymous else 0
        if flag and os.path.isdir("/proc/self/fd"):
            try:
                return _locked(os.open(self._path.parent, flag | os.O_RDWR, 0o600))
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                    raise
        while True:
            part = self._hidden_name()
            fd = _locked(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            if os.fstat(fd).st_nlink:  # not taken for a stale part before the lock was ours
                self._part = part
                return fd
            os.close(fd)

    def _hidden_name(self) -> Path:
        return self._path.parent / f"{_part_stem(self._path)}{secrets.token_hex(4)}{PART_SUFFIX}"

    @property
    def file(self) -> BinaryIO:
        """The file, for reading back before `commit`."""
        return self._file

    def write(self, data: bytes) -> None:
        """Append `data`."""
        with plain_errors(f"{self._path}: cannot write"):
            self._file.write(data)

    def restart(self) -> None:
        """Empty the file."""
        with plain_errors(f"{self._path}: cannot write"):
            self._file.seek(0)
            self._file.truncate()

    def commit(self, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """Give the file its permissions, time and, once it is safe on disk, its name."""
        fd = self._file.fileno()
        with plain_errors(f"{self._path}: cannot write"):
            self._file.flush()
            set_metadata(fd, new_file_mode() if mode is None else mode, mtime_ns)
            os.fsync(fd)
            self._link(fd)
            os.fsync(self._folder)

    def _link(self, fd: int) -> None:
        try:
            if not self._force:
                self._link_to(fd, self._path)
                return
            if self._part is None:
                part = self._hidden_name()
                self._link_to(fd, part)
                self._part = part
            os.replace(self._part, self._path)
            self._part = None
        except FileExistsError:
            raise exists(self._path) from None

    def _link_to(self, fd: int, path: Path) -> None:
        # dst_dir_fd makes Python use linkat, which alone can follow the link in /proc.
        source = f"/proc/self/fd/{fd}" if self._part is None else str(self._part)
        os.link(source, path.name, dst_dir_fd=self._folder, follow_symlinks=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._part is not None:
            with contextlib.suppress(OSError):
                self._part.unlink()
        with contextlib.suppress(OSError):  # what could not be flushed is not wanted any more
            self._file.close()
        os.close(self._folder)


def set_metadata(fd: int, mode: int, mtime_ns: int | None) -> None:
    """Permissions (never set-uid and the like) and time; a file system may refuse either."""
    with contextlib.suppress(OSError):
        os.fchmod(fd, mode & 0o777)
    if mtime_ns is not None:
        with contextlib.suppress(OSError, OverflowError):
            os.utime(fd, ns=(mtime_ns, mtime_ns))


def new_file_mode() -> int:
    """Permissions a new file gets: 0o666 less the umask, read without changing it if possible."""
    try:
        status = Path("/proc/self/status").read_text()
        umask = int(status.split("\nUmask:")[1].split()[0], 8)
    except (OSError, IndexError, ValueError):
        umask = os.umask(0o077)
        os.umask(umask)
    return 0o666 & ~umask


def _part_stem(path: Path) -> str:
    return f".{path.name[:200]}."


def remove_stale_parts(path: Path) -> None:
    """Remove hidden parts of `path` left by a process that was killed: those nobody has locked."""
    pattern = re.compile(re.escape(_part_stem(path)) + r"[0-9a-f]{8}" + re.escape(PART_SUFFIX))
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            if pattern.fullmatch(name):
                _remove_if_unlocked(path.parent / name)


def _remove_if_unlocked(part: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                part.unlink()
        finally:
            os.close(fd)


def _locked(fd: int) -> int:
    """`fd`, locked, so that others can tell a file in use from one left behind."""
    with contextlib.suppress(OSError):  # some network file systems have no locks
        fcntl.flock(fd, fcntl.LOCK_EX)
    return fd
