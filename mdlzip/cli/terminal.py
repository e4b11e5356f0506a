"""What can be known to be wrong with inputs and outputs before any of them is opened."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from mdlzip.cli import streams
from mdlzip.errors import IsFolder, MdlzipError, OutputExists, UsageError

STDIO = "-"


def files_or_stdin(files: list[str] | None) -> list[str]:
    """The FILEs of a command; standard input where none is given, unless it is a terminal."""
    if files:
        return files
    if not streams.is_closed(0) and sys.stdin.isatty():
        raise UsageError("no FILE is given, and standard input is a terminal; try --help")
    return [STDIO]


def check_output(path: str | None, *, force: bool, silent: bool = False) -> None:
    """Refuse an empty name, standard output that is closed, a terminal, and messages in the data.

    force: binary data may go to a terminal; silent: nothing is said on standard error.
    """
    if path == "":
        raise UsageError("the name of the output is empty")
    if path == STDIO and streams.is_closed(1):
        raise MdlzipError("standard output is closed: name a file with -o")
    name = "standard output" if path == STDIO else path
    if not force and _is_terminal(path, 1):
        raise UsageError(f"{name} is a terminal: redirect it, or name a file with -o")
    if not silent and leads_to(path, 2):
        raise UsageError(
            f"{name} and standard error are the same, so messages would mix with the data: send"
            " one of them elsewhere, as with 2> FILE, or pass -q"
        )


def check_input(path: str, *, archive: bool) -> None:
    """Refuse an empty name, standard input that is closed, an archive typed at a terminal."""
    if not path:
        raise UsageError("the name of a FILE is empty")
    if path == STDIO and streams.is_closed(0):
        raise MdlzipError("standard input is closed: name a FILE")
    if archive and _is_terminal(path, 0):
        name = "standard input" if path == STDIO else path
        raise UsageError(f"{name} is a terminal: name an archive, or pipe one in")


def _is_terminal(path: str | None, fd: int) -> bool:
    """Whether `path`, where "-" is the stream `fd`, is a terminal by any name."""
    if path is None:
        return False
    if path == STDIO:
        return (sys.stdout if fd else sys.stdin).isatty()
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            return False
        device = os.open(path, (os.O_WRONLY if fd else os.O_RDONLY) | os.O_NOCTTY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        return os.isatty(device)
    finally:
        os.close(device)


def leads_to(path: str | None, fd: int) -> bool:
    """Whether data written to `path` meet what is printed on the standard stream `fd`.

    So by "-", by names such as /dev/stdout, and where two streams were sent into one file or pipe.
    """
    from mdlzip.fileio import is_stream

    if path is None or (path != STDIO and not is_stream(Path(path))):
        return False
    try:
        there = os.fstat(1) if path == STDIO else os.stat(path)
        same = os.path.samestat(there, os.fstat(fd))
    except OSError:
        return False
    return same and not stat.S_ISCHR(there.st_mode)  # as /dev/null, where nothing mixes


def check_not_folder(path: str) -> None:
    """Refuse a folder, and say what to do instead."""
    if path != STDIO and Path(path).is_dir():
        folder = shlex.quote(path if not path.startswith("-") else f"./{path}")
        raise IsFolder(f"{path}: is a folder; pack it: tar c {folder} | mdlzip compress - > OUT")


def destination(files: list[str], output: str | None, *, stdout: bool, joined: bool) -> str | None:
    """Where the result goes: a path, "-" for standard output, None for beside each source.

    joined: whether several results may follow one another on standard output.
    """
    if stdout and output not in (None, STDIO):
        raise UsageError("-c and -o exclude each other")
    if stdout:
        output = STDIO
    if output is not None and len(files) > 1 and not (joined and output == STDIO):
        raise UsageError("-o and -c take one FILE: an archive holds one file (pack several by tar)")
    return output


def single_destination(file: str, output: str | None) -> str | None:
    """The destination of one file: what has no name of its own goes to standard output.

    So does standard input, also as /dev/stdin or as the <(...) of a shell, unless told else.
    """
    from mdlzip.fileio import open_descriptor

    nameless = file == STDIO or (file != "" and open_descriptor(Path(file)) is not None)
    return STDIO if nameless and output is None else output


def data_on_stdout(files: Sequence[str], output: str | None) -> bool:
    """Whether standard output carries the data of any FILE, so that no report may go there."""
    targets = {single_destination(file, output) for file in files}
    return any(target == STDIO or leads_to(target, 1) for target in targets)


def check_study_folder(folder: Path, inputs: Sequence[Path], *, again: bool) -> None:
    """Everything that can be known to be wrong with the folder of a study before it begins.

    inputs: files and folders that the study reads; again: --resume or --force was given, so that
    the folder may hold something. Raises UsageError, OutputExists or MdlzipError.
    """
    if str(folder) == STDIO:
        raise UsageError("-o -: a study writes a folder; give its name")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder")
    if not folder.exists() and not folder.parent.is_dir():
        raise UsageError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    for path in inputs:
        if _is_within(folder, path) or _is_within(path, folder):
            raise UsageError(f"{folder}: results and input ({path}) need places of their own")
    if folder.is_dir() and not again and any(folder.iterdir()):
        raise OutputExists(f"{folder} exists; --resume goes on with it, --force begins anew")
    place = folder if folder.is_dir() else folder.parent
    if not os.access(place, os.W_OK):
        raise MdlzipError(f"{folder}: cannot write into {place}: permission denied")


def _is_within(inner: Path, outer: Path) -> bool:
    """Whether `inner` is `outer` or lies in it, links followed."""
    try:
        there = os.stat(outer)
    except OSError:
        return False
    if not stat.S_ISDIR(there.st_mode):
        return inner.exists() and os.path.samestat(os.stat(inner), there)
    return Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(outer))
