"""A long array on disk: written at its end, read anywhere, gone with the process.

It is read with `pread` and not mapped: pages of a mapping count as memory of the process for as
long as they stay, and a disk that is full or fails would be a signal and not an error.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mdlzip.errors import MdlzipError
from mdlzip.fileio import plain_errors, temporary_folder


class Column:
    """One-dimensional, of `dtype`, in a file without a name in `folder` (None: the temporary one).

    Raises MdlzipError if the disk refuses. Any number of threads may read while none appends.
    """

    def __init__(self, folder: Path | None, dtype: np.dtype) -> None:
        self.dtype, self._n = dtype, 0
        self._doing = f"{folder or temporary_folder()}: cannot keep the symbols of the input"
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
        self._read_into(out, [(0, start, stop - start)])
        return out

    def take(self, places: np.ndarray) -> np.ndarray:
        """Values at `places`, integers (n,)."""
        out = np.empty(len(places), self.dtype)
        self._read_into(out, ((i, place, 1) for i, place in enumerate(places.tolist())))
        return out

    def rows(self, starts: np.ndarray, stops: np.ndarray, width: int | None = None) -> np.ndarray:
        """Values starts[i] .. stops[i] - 1 in row i, zeros behind; (B, width).

        width: not less than the longest row; None for just that, but at least 1.
        """
        counts = (stops - starts).tolist()
        width = width or max(*counts, 1)
        out = np.zeros((len(counts), width), self.dtype)
        places = range(0, len(counts) * width, width)
        self._read_into(out.reshape(-1), zip(places, starts.tolist(), counts, strict=True))
        return out

    def _read_into(self, out: np.ndarray, pieces: Iterable[tuple[int, int, int]]) -> None:
        """Fill `out` (n,), a piece each (place in it, first value, number of values)."""
        size, whole, file = self.dtype.itemsize, out.view(np.uint8).data, self._file.fileno()
        with plain_errors(self._doing):
            for place, start, count in pieces:
                view, offset = whole[place * size : (place + count) * size], start * size
                while view:
                    n = os.preadv(file, (view,), offset)
                    if not n:
                        raise MdlzipError(f"{self._doing}: the file is shorter than it was")
                    offset, view = offset + n, view[n:]

    def close(self) -> None:
        """Free the disk's space."""
        self._file.close()
