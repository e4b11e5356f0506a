"""A long array on disk: written at its end, read anywhere, gone with the process.

It is read with `pread` and not mapped: pages of a mapping count as memory of the process for as
long as they stay, and a disk that is full or fails would be a signal and not an error.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from mdlzip.errors import MdlzipError
from mdlzip.fileio import plain_errors


class Column:
    """One-dimensional, of `dtype`, in a file without a name in `folder` (None: the temporary one).

    Raises MdlzipError if the disk refuses. Any number of threads may read while none appends.
    """

    def __init__(self, folder: Path | None, dtype: np.dtype) -> None:
        self.dtype, self._n = dtype, 0
        self._doing = f"{folder or tempfile.gettempdir()}: cannot keep the symbols of the input"
        with plain_errors(self._doing):
            self._file = tempfile.TemporaryFile(dir=folder)

    def __len__(self) -> int:
        return self._n

    def append(self, values: np.ndarray) -> None:
        """Write `values` (n,) behind the rest."""
        with plain_errors(self._doing):
            self._file.write(np.ascontiguousarray(values, self.dtype).view(np.uint8).data)
        self._n += len(values)

    def flush(self) -> None:
        """Make what was appended readable."""
        with plain_errors(self._doing):
            self._file.flush()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Values start .. stop - 1."""
        out = np.empty(stop - start, self.dtype)
        with plain_errors(self._doing):
            self._read_into(out, start)
        return out

    def take(self, places: np.ndarray) -> np.ndarray:
        """Values at `places`, integers (n,)."""
        out = np.empty(len(places), self.dtype)
        with plain_errors(self._doing):
            for i, place in enumerate(places.tolist()):
                self._read_into(out[i : i + 1], place)
        return out

    def rows(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """Values starts[i] .. stops[i] - 1 in row i, zeros behind; (B, T), T at least 1."""
        counts = (stops - starts).tolist()
        out = np.zeros((len(counts), max(*counts, 1)), self.dtype)
        with plain_errors(self._doing):
            for row, start, n in zip(out, starts.tolist(), counts, strict=True):
                self._read_into(row[:n], start)
        return out

    def _read_into(self, out: np.ndarray, start: int) -> None:
        offset, view = start * self.dtype.itemsize, out.view(np.uint8).data
        while len(view):
            n = os.preadv(self._file.fileno(), [view], offset)
            if not n:
                raise MdlzipError(f"{self._doing}: the file is shorter than what was written")
            offset, view = offset + n, view[n:]

    def close(self) -> None:
        """Free the disk's space."""
        self._file.close()
