"""The FILEs of one command against one another: no output may cost another's, or an input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mdlzip.cli.terminal import STDIO
from mdlzip.errors import OutputExists, UsageError

# The folder (device and inode) and the name in it; or device and inode of a file that is there.
_Entry = tuple[int, int, str]
_Inode = tuple[int, int]


class CallFiles:
    """What the command reads and what it has written so far.

    Files are told apart by device and inode, so that links and file systems which ignore case
    cannot deceive, and by folder and name where nothing is there yet.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._inputs: dict[_Entry | _Inode, str] = {}
        for file in files:
            if file != STDIO:
                for key in _keys(Path(file)):
                    self._inputs.setdefault(key, file)
        self._begun: dict[_Entry | str, str] = {}
        self._written: dict[_Entry | _Inode, str] = {}
        self._file = ""
        self._pending: tuple[Path, _Inode | None] | None = None

    def begin(self, file: str) -> None:
        """`file` comes next; UsageError if the command had it before, by this name or another.

        Hard and symbolic links with names of their own have outputs of their own and may pass.
        """
        self._settle()
        self._file = file
        key = (None if file == STDIO else _entry(Path(file))) or file
        if key in self._begun:
            other = self._begun[key]
            same = "is given twice" if other == file else f"is the same file as {other}"
            raise UsageError(f"{file}: {same}; each FILE is taken once")
        self._begun[key] = file

    def check(self, target: Path) -> None:
        """Refuse to write `target`, forced or not, if that would cost an input or an output.

        Raises UsageError (a FILE of this command) or OutputExists (written by this command).
        """
        from mdlzip.fileio import is_stream

        self._settle()
        if is_stream(target):
            return
        for key in _keys(target):
            if key in self._written:
                raise OutputExists(
                    f"{target}: was just written for {self._written[key]}; unpack {self._file}"
                    " by itself, with -o"
                )
            if self._inputs.get(key, self._file) != self._file:
                raise UsageError(
                    f"{target}: is a FILE of this command, too ({self._inputs[key]}), and would"
                    f" be lost to the output of {self._file}; name another with -o"
                )
        self._pending = target, _inode(target)

    def _settle(self) -> None:
        """Book the output that was checked last, if it was written (also if an error followed)."""
        if self._pending is None:
            return
        (target, before), self._pending = self._pending, None
        if _inode(target) not in (None, before):
            for key in _keys(target):
                self._written[key] = self._file


def check_written(path: Path, inputs: Sequence[str], *, force: bool) -> None:
    """Everything that can be known to be wrong with a file that is written beside the results.

    Raises UsageError (one of `inputs`, a folder, no parent) or OutputExists.
    """
    from mdlzip.fileio import check_output

    for file in inputs:
        check_output(path, source=None if file == STDIO else Path(file), force=force)


def _keys(path: Path) -> list[_Entry | _Inode]:
    """By what a file is told from others: its place, and itself if it is there."""
    return [key for key in (_entry(path), _inode(path)) if key is not None]


def _entry(path: Path) -> _Entry | None:
    folder = _inode(path.parent)
    return None if folder is None else (*folder, path.name)


def _inode(path: Path) -> _Inode | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
