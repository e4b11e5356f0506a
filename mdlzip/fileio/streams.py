"""Outputs that have no name to appear under: stdout, pipes and devices."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, Self

from mdlzip.errors import UsageError
from mdlzip.fileio.atomic import COPY_BLOCK_BYTES
from mdlzip.fileio.checks import plain_errors


class DirectStream:
    """Stdout, a pipe or a device: bytes go out as they come."""

    def __init__(self, path: Path | None) -> None:
        self._name = str(path or "stdout")
        self._close = path is not None
        with plain_errors(f"{self._name}: cannot open"):
            self._out: BinaryIO = path.open("wb") if path else sys.stdout.buffer

    @property
    def file(self) -> BinaryIO:
        """Not available."""
        raise UsageError(f"{self._name}: cannot be read back")

    def write(self, data: bytes) -> None:
        """Write `data` through."""
        with plain_errors(f"{self._name}: cannot write"):
            self._out.write(data)

    def restart(self) -> None:
        """Not possible."""
        raise UsageError(f"{self._name}: cannot be taken back")

    def commit(self, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """Flush; permissions and time do not apply."""
        with plain_errors(f"{self._name}: cannot write"):
            self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._close:
            with contextlib.suppress(OSError):
                self._out.close()


class SpooledStream(DirectStream):
    """As `DirectStream`, but kept in an anonymous temporary file until `commit`."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(path)
        with plain_errors("cannot create a temporary file"):
            self._spool = tempfile.TemporaryFile()

    @property
    def file(self) -> BinaryIO:
        """What was written so far."""
        return self._spool

    def write(self, data: bytes) -> None:
        """Append `data` to the temporary file."""
        with plain_errors("cannot write a temporary file"):
            self._spool.write(data)

    def restart(self) -> None:
        """Empty the temporary file."""
        self._spool.seek(0)
        self._spool.truncate()

    def commit(self, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """Copy everything to the stream."""
        self._spool.seek(0)
        while block := self._spool.read(COPY_BLOCK_BYTES):
            super().write(block)
        super().commit()

    def __exit__(self, *exc: object) -> None:
        self._spool.close()
        super().__exit__(*exc)
