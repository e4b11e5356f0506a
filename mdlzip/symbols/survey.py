"""The first pass over a file: its digest and the byte values that it holds."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from mdlzip.limits import READ_BLOCK_BYTES
from mdlzip.symbols.source import ByteSource
from mdlzip.symbols.vocabulary import N_BYTES


@dataclass(frozen=True, eq=False)
class Survey:
    """digest: SHA-256 of all bytes. present: boolean (256,), whether each byte value occurs."""

    digest: bytes
    present: np.ndarray


def take_survey(source: ByteSource) -> Survey:
    """Read `source` once, block by block."""
    hasher, known = sha256(), b""
    for start in range(0, source.size, READ_BLOCK_BYTES):
        block = source.read(start, min(start + READ_BLOCK_BYTES, source.size)).tobytes()
        hasher.update(block)
        # Deleting known values is five times as fast as marking each byte's in an array.
        known += bytes(set(block.translate(None, known)))
    return Survey(hasher.digest(), present_in(known))


def present_in(data: bytes) -> np.ndarray:
    """Boolean (256,): which byte values occur in `data`."""
    present = np.zeros(N_BYTES, bool)
    present[list(set(data))] = True
    return present
