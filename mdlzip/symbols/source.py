"""What the passes over a file need: its size, and bytes at any place."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class ByteSource(Protocol):
    """Bytes that can be read anywhere, by several threads: a `Corpus`."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes start .. stop - 1, uint8 (stop - start,)."""
