"""The ledger: every byte of an archive belongs to exactly one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mdlzip.archive.blocks import CRC_BYTES, table_bytes
from mdlzip.archive.cursor import put_varint
from mdlzip.archive.header import HEADER_BYTES
from mdlzip.archive.sections import DIGEST_BYTES, INDEX_OFFSET_BYTES, SECTION_HEADER_BYTES

METADATA_BYTES = 2 + 8  # mode and mtime of the fixed header

Ledger = dict[str, int]


def _frame(n_sections: int, name_bytes: int, optional_bytes: int) -> Ledger:
    """Lines that every method has; optional_bytes: payloads of optional sections."""
    return {
        "header": HEADER_BYTES
        - METADATA_BYTES
        - CRC_BYTES
        + n_sections * (SECTION_HEADER_BYTES - CRC_BYTES),
        "metadata": METADATA_BYTES + name_bytes + optional_bytes,
        "checksums": CRC_BYTES * (1 + n_sections) + DIGEST_BYTES,
    }


def stored_ledger(size: int) -> Ledger:
    """Lines of a stored archive of `size` original bytes."""
    return _general(_frame(0, 0, 0), size, size)


def payload_ledger(
    name_bytes: int, payload_bytes: int, size: int, optional: Iterable[int] = ()
) -> Ledger:
    """Lines of a zstd or xz archive of `size` original bytes.

    name_bytes: 0 means that there is no name section; optional: payload bytes of each optional
    section.
    """
    sizes = list(optional)
    n_sections = 1 + bool(name_bytes) + len(sizes)
    return _general(_frame(n_sections, name_bytes, sum(sizes)), payload_bytes, size)


def _general(lines: Ledger, data_bytes: int, size: int) -> Ledger:
    """The lines with the data and the table of block checksums."""
    checksums = lines["checksums"] + table_bytes(size)
    return {**lines, "checksums": checksums, "data": data_bytes}


def learned_ledger(
    name_bytes: int,
    config_bytes: int,
    weights: Mapping[str, int],
    lengths: Iterable[int],
    optional: Iterable[int] = (),
    *,
    context_bytes: int = 0,
    model_bytes: int = 0,
) -> Ledger:
    """Lines of a learned archive.

    config_bytes: payload of the configuration section; weights: positions, values and scales in
    bytes; lengths: coded bytes of every unit; context_bytes: payload of the context section, 0
    where there is none; model_bytes: of the model section, which stands for the weights section.
    """
    sizes = list(optional)
    lines = _frame(4 + bool(name_bytes) + bool(context_bytes) + len(sizes), name_bytes, sum(sizes))
    data = units = varints = 0
    for length in lengths:
        data += length
        units += 1
        varints += len(put_varint(length))
    return {
        **lines,
        "configuration": config_bytes + context_bytes + model_bytes,
        **{name: weights[name] for name in ("positions", "values", "scales")},
        "data": data,
        "index": 2 * varints + INDEX_OFFSET_BYTES,
        "checksums": lines["checksums"] + 2 * CRC_BYTES * units,
    }
