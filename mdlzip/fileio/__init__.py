"""Output that appears whole or not at all, and plain words for what the system refuses."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Protocol, Self

from mdlzip.fileio.atomic import COPY_BLOCK_BYTES, AtomicOutput, check_space, check_writable
from mdlzip.fileio.checks import (
    check_apart,
    check_output,
    is_same,
    is_stream,
    open_descriptor,
    plain_errors,
    temporary_folder,
)
from mdlzip.fileio.identity import check_removable, remove_if_same, same_file, untouched
from mdlzip.fileio.owner import Metadata, restored_mode
from mdlzip.fileio.paths import checked_path
from mdlzip.fileio.streams import (
    DirectStream,
    Readable,
    SpooledStream,
    open_stream,
    read_block,
    read_blocks,
    spool,
)

__all__ = [
    "COPY_BLOCK_BYTES",
    "AtomicOutput",
    "DirectStream",
    "Metadata",
    "Output",
    "Readable",
    "SpooledStream",
    "check_apart",
    "check_output",
    "check_removable",
    "check_space",
    "check_writable",
    "checked_path",
    "is_same",
    "is_stream",
    "open_descriptor",
    "open_output",
    "open_stream",
    "plain_errors",
    "read_block",
    "read_blocks",
    "remove_if_same",
    "restored_mode",
    "same_file",
    "spool",
    "temporary_folder",
    "untouched",
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

    def commit(self, metadata: Metadata | None = None) -> None:
        """Make the output final with this owner, mode and time (None: as for a new file)."""

    def __enter__(self) -> Self:
        """The output itself."""

    def __exit__(self, *exc: object) -> None:
        """Removes what was not committed."""


def open_output(path: Path | None, *, force: bool, seekable: bool, sparse: bool = False) -> Output:
    """An output for `path`; None means stdout. seekable: `file` will be used before `commit`.

    sparse: long runs of zeros may become holes.
    """
    if path is None or is_stream(path):
        return SpooledStream(path) if seekable else DirectStream(path)
    return AtomicOutput(path, force=force, sparse=sparse)
