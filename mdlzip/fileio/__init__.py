"""Output that appears whole or not at all, and plain words for what the system refuses."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Protocol, Self

from mdlzip.fileio.atomic import COPY_BLOCK_BYTES, AtomicOutput
from mdlzip.fileio.checks import check_output, is_stream, plain_errors
from mdlzip.fileio.paths import checked_path
from mdlzip.fileio.streams import DirectStream, SpooledStream

__all__ = [
    "COPY_BLOCK_BYTES",
    "AtomicOutput",
    "DirectStream",
    "Output",
    "SpooledStream",
    "check_output",
    "checked_path",
    "is_stream",
    "open_output",
    "plain_errors",
]


class Output(Protocol):
    """Where a command writes; the final name appears with `commit` and not before."""

    @property
    def file(self) -> BinaryIO:
        """Seekable file with what was written so far; UsageError if the output is a stream."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""

    def restart(self) -> None:
        """Forget what was written so far."""

    def commit(self, mode: int | None, mtime_ns: int | None) -> None:
        """Make the output final with these permissions and time (None: as for a new file)."""

    def __enter__(self) -> Self:
        """The output itself."""

    def __exit__(self, *exc: object) -> None:
        """Removes what was not committed."""


def open_output(path: Path | None, *, force: bool, seekable: bool) -> Output:
    """An output for `path`; None means stdout. seekable: `file` will be used before `commit`."""
    if path is None or is_stream(path):
        return SpooledStream(path) if seekable else DirectStream(path)
    return AtomicOutput(path, force=force)
