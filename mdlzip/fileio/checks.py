"""Plain words for what the system refuses, and what can be known about an output in advance."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mdlzip.errors import IsFolder, MdlzipError, OutputExists, UsageError, file_problem

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the size limit",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "there is no such file or folder",
}


@contextlib.contextmanager
def plain_errors(doing: str) -> Iterator[None]:
    """Turn OSError into a FileProblem of one line: "`doing`: reason". A closed pipe passes."""
    try:
        yield
    except (BrokenPipeError, MdlzipError):  # some of ours are OSErrors, too
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise file_problem(f"{doing}: {reason}", error) from error


def is_stream(path: Path) -> bool:
    """True for a path that takes bytes but is no file: a pipe or a device such as /dev/null."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def check_output(path: Path, *, source: Path | None, force: bool) -> None:
    """Everything that can be known to be wrong with an output before any work is done.

    Raises UsageError (same file as the source, a folder, no parent) or OutputExists.
    """
    if source is not None and source.exists() and path.exists() and path.samefile(source):
        raise UsageError(f"{path}: output and input are the same file; choose another with -o")
    if path.is_dir():
        raise IsFolder(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist; create it first")
    if is_stream(path):
        return
    if os.path.lexists(path):
        if not force:
            raise exists(path)
        if not path.is_symlink() and not path.is_file():
            raise UsageError(f"{path}: is not a regular file")
    if not os.access(path.parent, os.W_OK):
        raise MdlzipError(f"{path}: cannot write into {path.parent}: permission denied")


def exists(path: Path) -> OutputExists:
    """The error, to be raised, for an output that is there already."""
    return OutputExists(f"{path}: already exists; pass --force to replace it")
