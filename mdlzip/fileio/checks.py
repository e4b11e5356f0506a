"""Plain words for what the system refuses, and what can be known about an output in advance."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mdlzip.errors import IsFolder, MdlzipError, OutputExists, UsageError, file_problem
from mdlzip.fileio.naming import try_name

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the size limit",
    errno.EACCES: "permission denied",
    errno.EPERM: "the system does not permit it",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "there is no such file or folder",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.EILSEQ: "the file system does not take this name",
}
_FD_FOLDER = re.compile(r"/dev/fd|/proc/(?:\d+|self|thread-self)(?:/task/\d+)?/fd")
_MAX_LINKS = 40


@contextlib.contextmanager
def plain_errors(doing: str) -> Iterator[None]:
    """Turn OSError into a FileProblem of one line: "`doing`: reason". A closed pipe passes.

    safetensors has an error class of its own for a disk that is full and the like.
    """
    try:
        yield
    except (BrokenPipeError, MdlzipError):  # some of ours are OSErrors, too
        raise
    except OSError as error:
        raise file_problem(f"{doing}: {reason_of(error)}", error) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise MdlzipError(f"{doing}: {error}") from error


def temporary_folder() -> str:
    """What messages call the folder of temporary files, also where none can be written."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return "the temporary folder"


def reason_of(error: OSError) -> str:
    """Why the system refused, in plain words."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def open_descriptor(path: Path) -> Path | None:
    """The /proc or /dev/fd name behind `path` if it stands for an open file, else None.

    /dev/stdout, /dev/fd/3 and what a shell makes of <(...) lead there, directly or by links. What
    lies behind may be a regular file; it is a stream all the same, with a position of its own.
    """
    here = Path(os.path.abspath(path))
    for _ in range(_MAX_LINKS):
        folder = os.path.realpath(here.parent)
        if here.name.isdigit() and (
            _FD_FOLDER.fullmatch(folder) or _FD_FOLDER.fullmatch(str(here.parent))
        ):
            return here
        try:
            here = Path(os.path.abspath(Path(folder) / os.readlink(Path(folder) / here.name)))
        except OSError:
            return None
    return None


def own_descriptor(path: Path) -> int | None:
    """Number of this process's open file that `path` stands for; None if it is none of them."""
    found = open_descriptor(path)
    if found is None:
        return None
    folder = os.path.realpath(found.parent)
    ours = (os.path.realpath("/proc/self/fd"), "/dev/fd", f"/proc/{os.getpid()}/fd")
    return int(found.name) if folder in ours else None


def is_stream(path: Path) -> bool:
    """True for a path that takes bytes but is no file to be replaced.

    A pipe, a device such as /dev/null, or one that stands for an open file.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return open_descriptor(path) is not None
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or open_descriptor(path) is not None


def check_output(path: Path, *, source: Path | None, force: bool, append: bool = False) -> None:
    """Everything that can be known to be wrong with an output before any work is done.

    append: the file may exist, lines will be added to it. Raises UsageError (same file as the
    source, a folder, no parent, not a file) or OutputExists, MdlzipError where nothing of that
    name can be written.
    """
    if source is not None and is_same(path, source):
        raise UsageError(f"{path}: output and input are the same file; choose another with -o")
    if not path.name or path.name == "..":
        raise UsageError(f"{str(path)!r}: is not the name of a file")
    if is_stream(path):
        return
    with plain_errors(f"{path}: cannot write a file of this name"):
        if path.is_dir():
            raise IsFolder(f"{path}: is a folder; give the name of a file")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist; create it first")
        if os.path.lexists(path):
            if not force and not append:
                raise exists(path)
            if not path.is_file():
                raise UsageError(f"{path}: is not a regular file, so it is not replaced")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise MdlzipError(f"{path}: cannot write into {path.parent}: permission denied")
    try:
        try_name(path)
    except OSError as error:
        unknown = error.errno in (errno.ENOENT, errno.EINVAL)  # the folder is there
        reason = "the file system does not take it" if unknown else reason_of(error)
        raise file_problem(f"{path}: cannot write a file of this name: {reason}", error) from error


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """UsageError if two of the paths that one call writes, or one that it reads, are one file.

    outputs: everything that will be written; inputs: everything that is read. Streams may repeat.
    """
    outputs, inputs = [p for p in outputs if not is_stream(p)], list(inputs)
    for i, path in enumerate(outputs):
        for other in inputs:
            if is_same(path, other):
                raise UsageError(f"{path}: would overwrite the input {other}")
        for other in outputs[:i]:
            if is_same(path, other):
                raise UsageError(f"{path}: is given for two outputs of one call")


def is_same(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file, or would once both are made."""
    try:
        return path.samefile(other)
    except OSError:
        return path.name == other.name and os.path.realpath(path.parent) == os.path.realpath(
            other.parent
        )


def exists(path: Path) -> OutputExists:
    """The error, to be raised, for an output that is there already."""
    return OutputExists(f"{path}: already exists; pass --force to replace it")
