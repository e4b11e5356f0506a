"""The folder for checkpoints: one run at a time, one source, kept when a run is cut short."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

from mdlzip.errors import ExportRefused, UsageError, VerifyFailed
from mdlzip.fileio import plain_errors

LOCK = "mdlzip.lock"
SOURCE = "mdlzip.source"


class WorkFolder:
    """A context manager around a locked work folder.

    On leaving: removed after success and after errors that a second try would meet again; kept if
    it holds checkpoints and the run was stopped, killed or failed for an outside reason.
    """

    def __init__(self, path: Path, identity: str, *, resume: bool) -> None:
        self.path = path
        self._identity = identity
        self._resume = resume
        self._lock = -1
        self._made = False

    def __enter__(self) -> Self:
        with plain_errors(f"{self.path}: cannot use it as work folder"):
            self._acquire()
            try:
                self._prepare()
            except BaseException:
                os.close(self._lock)
                raise
        return self

    def _acquire(self) -> None:
        while True:
            self._made = not self.path.exists()
            self.path.mkdir(mode=0o700, exist_ok=True)
            lock = self.path / LOCK
            if not lock.exists() and any(self.path.iterdir()):
                raise UsageError(f"{self.path}: is not empty and not a work folder of mdlzip")
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                raise UsageError(
                    f"{self.path}: another mdlzip is working there; wait for it, or give another"
                    " folder with --work-dir"
                ) from None
            with contextlib.suppress(FileNotFoundError):  # a run that ended just now removed it
                if os.stat(lock).st_ino == os.fstat(self._lock).st_ino:
                    return
            os.close(self._lock)

    def _prepare(self) -> None:
        source = self.path / SOURCE
        if self._resume and self._has_work():
            if not source.is_file() or source.read_text() != self._identity:
                raise UsageError(
                    f"{self.path}: belongs to another input; drop --resume to begin afresh"
                )
            return
        self._empty()
        source.write_text(self._identity)

    def _entries(self) -> list[Path]:
        return [entry for entry in self.path.iterdir() if entry.name not in (LOCK, SOURCE)]

    def _has_work(self) -> bool:
        return bool(self._entries())

    def _empty(self) -> None:
        for entry in self._entries():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        final = kind is None or issubclass(kind, (VerifyFailed, ExportRefused, UsageError))
        try:
            with contextlib.suppress(OSError):
                if final or not self._has_work():
                    self._remove()
        finally:
            os.close(self._lock)

    def _remove(self) -> None:
        self._empty()
        (self.path / SOURCE).unlink(missing_ok=True)
        (self.path / LOCK).unlink(missing_ok=True)
        if self._made or self.path.name.startswith("."):
            self.path.rmdir()


def identity(size: int, digest: bytes) -> str:
    """Text that tells an input of `size` bytes with this SHA-256 from others."""
    return f"mdlzip work folder 1\nsize {size}\nsha256 {digest.hex()}\n"


def default_folder(target: Path | None, digest: bytes) -> Path:
    """Hidden and beside the output; for stdout, named after the input in the temporary folder."""
    if target is None:
        return Path(tempfile.gettempdir()) / f".mdlzip-{os.getuid()}-{digest.hex()[:16]}.work"
    return target.with_name(f".{target.name}.work")
