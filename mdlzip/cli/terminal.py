"""Refusals to pour binary data into a terminal or to read an archive typed by hand."""

from __future__ import annotations

import sys
from pathlib import Path

from mdlzip.errors import UsageError

STDIO = "-"


def check_output(path: str | None, *, force: bool) -> None:
    """Refuse standard output that is a terminal, unless forced."""
    if path == STDIO and not force and sys.stdout.isatty():
        raise UsageError("standard output is a terminal: redirect it, or name a file with -o")


def check_input(path: str, *, archive: bool) -> None:
    """Refuse an archive from a terminal; plain text may be typed."""
    if path == STDIO and archive and sys.stdin.isatty():
        raise UsageError("standard input is a terminal: name an archive, or pipe one in")


def check_not_folder(path: str) -> None:
    """Refuse a folder, and say what to do instead."""
    if path != STDIO and Path(path).is_dir():
        raise UsageError(f"{path}: is a folder; pack it: tar c {path} | mdlzip compress - > OUT")


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
    """The destination of one file: standard input goes to standard output unless told else."""
    return STDIO if file == STDIO and output is None else output
