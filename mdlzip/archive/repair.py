"""Bytes with one flipped bit, put right by the CRC-32 that they have.

CRC-32 is linear: what a flipped bit does to it depends on the bit's distance from the end alone,
and differs for all distances below 2^32 - 1. So the difference of two checksums tells which bit it
was. Of random damage a share of (number of bits) / 2^32 looks like one flipped bit all the same;
what was repaired is to be compared with another checksum.
"""

from __future__ import annotations

from array import array
from zlib import crc32

import numpy as np

_POLYNOMIAL = 0xEDB88320
MOST_BYTES = 1 << 22  # of data in which a bit is searched: some seconds the first time

_effects = array("I")  # of a flipped bit, by its distance from the end


def _effects_of(n_bits: int) -> np.ndarray:
    """What flipping each of the last bits does to the checksum, uint32; kept for the next call."""
    effect = _effects[-1] if _effects else 1
    for _ in range(len(_effects), n_bits):
        effect = effect >> 1 ^ (_POLYNOMIAL if effect & 1 else 0)
        _effects.append(effect)
    return np.frombuffer(_effects[:n_bits], np.uint32)


def flipped_bit(n_bytes: int, difference: int) -> int | None:
    """The bit, 8 * byte + place, that was flipped in `n_bytes`; None if it was not one bit.

    difference: XOR of the checksum found and the one stored; not 0. -1: the stored checksum is what
    was flipped.
    """
    if difference.bit_count() == 1:
        return -1
    found = np.flatnonzero(_effects_of(8 * min(n_bytes, MOST_BYTES)) == difference)
    return 8 * n_bytes - 1 - int(found[0]) if found.size else None


def mended(data: bytes, stored: int) -> tuple[bytes, bool] | None:
    """(`data` with the checksum `stored`, whether a bit had to be flipped); None if that fails.

    A bit may be flipped in `stored` instead; then the data are as they were.
    """
    difference = crc32(data) ^ stored
    if not difference:
        return data, False
    bit = flipped_bit(len(data), difference)
    if bit is None:
        return None
    if bit < 0:
        return data, True
    right = bytearray(data)
    right[bit >> 3] ^= 1 << (bit & 7)
    return bytes(right), True
