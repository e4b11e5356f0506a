"""The folder for checkpoints: one run at a time, one source, kept when a run is cut short."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Self

from mdlzip.errors import ExportRefused, OutputExists, SourceChanged, UsageError, VerifyFailed
from mdlzip.fileio import plain_errors
from mdlzip.fileio.naming import hidden_stem

LOCK = "mdlzip.lock"
SOURCE = "mdlzip.source"
SUFFIX = ".work"
# All that mdlzip puts into a work folder; nothing else is ever removed from one.
_CHECKPOINT = re.compile(r"step-[0-9]+\.safetensors")
_OURS = re.compile(r"step-[0-9]+\.safetensors|\.step-[0-9]+\.part|metrics\.jsonl|symbols\.[a-z]+")
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class WorkFolder:
    """A context manager around a locked work folder that nobody else can have prepared.

    path: where to put it; it is made with mode 0700, and one that is there must be ours alone.
    fresh: discard a checkpoint that it holds. Use `files` for what lies inside: it leads to the
    folder that was checked, whatever becomes of its name.

    On leaving: removed after success and after errors that a second try would meet again; kept if
    it holds checkpoints and the run was stopped, killed or failed for an outside reason.
    """

    def __init__(self, path: Path, identity: str, *, resume: bool, fresh: bool = False) -> None:
        self.path = path
        self.files = path
        self._identity = identity
        self._resume = resume
        self._fresh = fresh
        self._folder = self._lock = -1
        self._made = False

    def __enter__(self) -> Self:
        with plain_errors(f"{self.path}: cannot use it as work folder"):
            try:
                self._acquire()
                self._prepare()
            except BaseException:
                with contextlib.suppress(OSError):
                    if self._made and self._lock >= 0:
                        self._remove()
                self._close()
                raise
        return self

    def _close(self) -> None:
        for fd in (self._lock, self._folder):
            if fd >= 0:
                os.close(fd)
        self._folder = self._lock = -1

    def _acquire(self) -> None:
        while True:
            self._open_folder()
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                self._lock = os.open(LOCK, flags, 0o600, dir_fd=self._folder)
                self._take_lock()
                # a run that ended just now may have removed the folder or the lock
                here = os.stat(LOCK, dir_fd=self._folder, follow_symlinks=False)
                there = os.lstat(self.path)
                if here.st_ino == os.fstat(self._lock).st_ino and os.path.samestat(
                    there, os.fstat(self._folder)
                ):
                    return
            except FileNotFoundError:
                pass
            self._close()

    def _open_folder(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
            self._made = True
        try:
            self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise UsageError(f"{self.path}: is not a folder of mdlzip; remove it") from None
            raise
        if not self._made:
            check_private(self.path, self._folder)
        if os.path.isdir("/proc/self/fd"):
            self.files = Path(f"/proc/self/fd/{self._folder}")

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{self.path}: another mdlzip is working there; wait for it, or give another"
                " folder with --work-dir"
            ) from None
        except OSError as error:  # some file systems have no locks; work goes on without
            if error.errno not in _NO_LOCKS:
                raise

    def _prepare(self) -> None:
        known = self._read(SOURCE)
        if self._resume:
            if not self._checkpoints():
                raise UsageError(
                    f"{self.path}: there is no checkpoint to go on from; drop --resume to begin"
                )
            if known != self._identity:
                raise UsageError(
                    f"{self.path}: belongs to another input; drop --resume to begin afresh"
                )
            return
        if self._checkpoints() and known == self._identity and not self._fresh:
            raise OutputExists(
                f"{self.path}: holds a checkpoint of this input; --resume goes on from it,"
                " --force begins anew"
            )
        self._empty()
        fd = os.open(
            SOURCE,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW,
            0o600,
            dir_fd=self._folder,
        )
        with os.fdopen(fd, "w") as file:
            file.write(self._identity)

    def _read(self, name: str) -> str | None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._folder)
        except OSError:
            return None
        with os.fdopen(fd, errors="replace") as file:
            return file.read(4096)

    def _checkpoints(self) -> list[str]:
        return [name for name in os.listdir(self._folder) if _CHECKPOINT.fullmatch(name)]

    def _empty(self) -> None:
        for name in os.listdir(self._folder):
            if _OURS.fullmatch(name):
                with contextlib.suppress(IsADirectoryError):
                    os.unlink(name, dir_fd=self._folder)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        hopeless = (VerifyFailed, ExportRefused, SourceChanged)
        final = kind is None or issubclass(kind, hopeless)
        try:
            with contextlib.suppress(OSError):
                if final or not self._checkpoints():
                    self._remove()
        finally:
            self._close()

    def _remove(self) -> None:
        self._empty()
        for name in (SOURCE, LOCK):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
        os.close(self._lock)  # FUSE keeps an open file under another name, and with it the folder
        self._lock = -1
        if os.path.samestat(os.lstat(self.path), os.fstat(self._folder)):
            self.path.rmdir()  # fails, and so leaves it, if anything else is in it


def check_private(path: Path, folder: int) -> None:
    """UsageError unless an open folder that was there before is ours and nobody else's to write.

    File systems that keep no permissions (FAT, exFAT) show the same ones after a change.
    """
    status = os.fstat(folder)
    if status.st_uid != os.geteuid():
        raise UsageError(f"{path}: belongs to another user; give a folder of yours with --work-dir")
    if status.st_mode & 0o022:
        with contextlib.suppress(OSError):
            os.fchmod(folder, status.st_mode & 0o755)
        if os.fstat(folder).st_mode != status.st_mode:
            os.fchmod(folder, status.st_mode & 0o7777)
            raise UsageError(f"{path}: others can write into it; remove it, and look who made it")


def identity(size: int, digest: bytes) -> str:
    """Text that tells an input of `size` bytes with this SHA-256 from others."""
    return f"mdlzip work folder 1\nsize {size}\nsha256 {digest.hex()}\n"


def work_folder(target: Path | None, digest: bytes, parent: Path | None, *, resume: bool) -> Path:
    """Where the work folder of an output is, or will be; hidden, with a short name.

    target: the output, None for stdout; parent: folder to put it in, None for the output's own or
    the temporary one. In the temporary folder, where anybody may make files, a new run takes a
    name that nobody can guess, and a resumed one the latest that is ours and of the same input.
    """
    if target is not None:
        return (parent or target.parent) / f"{hidden_stem(target)}{SUFFIX}"
    stem = f".mdlzip-{os.geteuid()}-{digest.hex()[:16]}"
    if parent is not None:
        return parent / f"{stem}{SUFFIX}"
    with plain_errors("cannot make a work folder"):
        parent = Path(tempfile.gettempdir())
    if resume:
        pattern = re.compile(re.escape(stem) + r"-[0-9a-f]{16}" + re.escape(SUFFIX))
        ours = [e for e in os.scandir(parent) if pattern.fullmatch(e.name) and _is_ours(e)]
        if ours:
            return Path(max(ours, key=lambda e: e.stat(follow_symlinks=False).st_mtime))
    return parent / f"{stem}-{secrets.token_hex(8)}{SUFFIX}"


def _is_ours(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
