"""Where the chunks of a group end: with merges that is not known from the sizes alone."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from mdlzip.errors import CorruptArchive
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.vocabulary import Vocabulary

_CUT = struct.Struct("<IH")  # chunks of a group, bytes of the last


def pack_cut(vocabulary: Vocabulary, flat: np.ndarray, ends: np.ndarray) -> bytes:
    """Number of chunks and bytes of the last; nothing without merges, where both are known.

    flat: int16, the symbols of a group; ends: int64, where in them each of its chunks ends.
    """
    if not len(vocabulary.merges):
        return b""
    last = flat[ends[-2] if len(ends) > 1 else 0 :]
    return _CUT.pack(len(ends), int(vocabulary.lengths[last].sum()))


def read_cut(
    longest: int, layout: Layout, group: int, payload: bytes | bytearray
) -> tuple[np.ndarray, bytes | bytearray]:
    """(bytes that each chunk of the group holds at least, int64; the rest of the payload).

    longest: bytes of the longest string that is a symbol. Raises CorruptArchive.
    """
    start, stop = layout.group_span(group)
    if longest == 1:
        return np.array(layout.chunk_lengths(group), np.int64), payload
    if len(payload) < _CUT.size:
        raise CorruptArchive(f"group {group}: is too short")
    n, last = _CUT.unpack_from(payload)
    full = layout.chunk_size - longest + 1
    before = stop - start - last  # bytes of the chunks before the last
    fits = (n - 1) * full <= before <= (n - 1) * layout.chunk_size
    if not (fits and 1 <= last <= layout.chunk_size):
        raise CorruptArchive(f"group {group}: {n} chunks, the last of {last} bytes, do not fit")
    sizes = np.full(n, full, np.int64)
    sizes[-1] = last
    return sizes, payload[_CUT.size :]


def check_end(layout: Layout, group: int, fill: np.ndarray, last: int) -> None:
    """CorruptArchive unless the chunks of a group end with it.

    fill: int64, bytes of each of its chunks; last: those that its last one must have.
    """
    begin, end = layout.group_span(group)
    if fill.sum() != end - begin or fill[-1] != last:
        raise CorruptArchive(
            f"group {group}: decodes to {fill.sum()} bytes, {fill[-1]} of them in its last chunk;"
            f" it must be {end - begin} and {last}"
        )


def read_cuts(
    longest: int, layout: Layout, groups: Sequence[int], payload: bytes | bytearray
) -> tuple[list[np.ndarray], bytes | bytearray]:
    """As `read_cut`, for the groups of a unit, whose cuts stand one after the other."""
    sizes = []
    for group in groups:
        size, payload = read_cut(longest, layout, group, payload)
        sizes.append(size)
    return sizes, payload
