"""The model configuration section: the network's family, its fields, the cut into chunks."""

from __future__ import annotations

import struct
from typing import Any

from mdlzip import limits
from mdlzip.archive.cursor import Cursor
from mdlzip.errors import CorruptArchive, UnsupportedVersion, UsageError
from mdlzip.networks import registry
from mdlzip.networks.registry import NetworkConfig
from mdlzip.symbols.layout import Layout

SECTION = "configuration section"
_CUT = struct.Struct("<HI")  # chunk_size, group_chunks


def config_bytes(config: NetworkConfig) -> int:
    """Length of the section's payload for a network of this configuration."""
    return 1 + sum(field.size for field in registry.family_of(config).fields) + _CUT.size


def pack_config(config: NetworkConfig, layout: Layout) -> bytes:
    """The section's payload; the corpus size is not in it, the fixed header has it."""
    family = registry.family_of(config)
    fields = [field.number(config).to_bytes(field.size, "little") for field in family.fields]
    cut = _CUT.pack(layout.chunk_size, layout.group_chunks)
    return bytes([family.byte]) + b"".join(fields) + cut


def unpack_config(
    payload: bytes | bytearray, size: int, base: int = 0
) -> tuple[NetworkConfig, Layout]:
    """The model's shape and the cut of `size` bytes; CorruptArchive if any field is out of range.

    base: offset of the payload in the archive, for messages. Raises UnsupportedVersion for a family
    that this release does not know.
    """
    cursor = Cursor(payload, SECTION, base)
    byte = cursor.u8("network family")
    family = registry.family_with_byte(byte)
    if family is None:
        known = ", ".join(f"{f.byte} ({f.name})" for f in registry.FAMILIES)
        raise UnsupportedVersion(
            f"{SECTION}: network family {byte} is not known to this release, which knows {known};"
            " a newer mdlzip may read the archive"
        )
    attributes: dict[str, Any] = {}
    for field in family.fields:
        number = int.from_bytes(cursor.take(field.size, field.name), "little")
        problem = field.problem(number)
        if problem:
            raise cursor.fail(field.name, problem)
        attributes |= field.attributes(number)
    chunk_size, group_chunks = cursor.u16("chunk_size"), cursor.u32("group_chunks")
    cursor.finish()
    if not limits.MIN_CHUNK_SIZE <= chunk_size <= limits.MAX_CHUNK_SIZE:
        raise cursor.fail("chunk_size", f"is {chunk_size}")
    if not 1 <= group_chunks <= limits.MAX_GROUP_CHUNKS:
        raise cursor.fail("group_chunks", f"is {group_chunks}")
    try:
        config = family.config(**attributes)
    except UsageError as error:
        raise CorruptArchive(f"{SECTION}: {error}") from None
    return config, Layout(size, chunk_size, group_chunks)
