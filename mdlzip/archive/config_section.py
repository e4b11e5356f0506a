"""The model configuration section: fixed fields, each with its range."""

from __future__ import annotations

import struct

from mdlzip import limits
from mdlzip.archive.cursor import Cursor
from mdlzip.config import ModelConfig
from mdlzip.errors import CorruptArchive, UsageError
from mdlzip.symbols.layout import Layout

CONFIG_BYTES = 23
NORMS = ("rms", "layer")
ACTIVATIONS = ("relu2", "gelu")
POSITIONS = ("rotary", "sinusoidal")


def pack_config(config: ModelConfig, layout: Layout) -> bytes:
    """The section's 23 bytes; the corpus size is not among them, the fixed header has it."""
    return struct.pack(
        "<HBHHHBBHBBBBHI",
        config.d_model,
        config.n_layers,
        config.n_heads,
        config.d_ff,
        config.window,
        config.conv_width,
        config.match_min,
        config.n_merges,
        NORMS.index(config.norm),
        ACTIVATIONS.index(config.activation),
        POSITIONS.index(config.positions),
        config.biases | config.shared_norm << 1,
        layout.chunk_size,
        layout.group_chunks,
    )


def unpack_config(
    payload: bytes | bytearray, size: int, base: int = 0
) -> tuple[ModelConfig, Layout]:
    """The model's shape and the cut of `size` bytes; CorruptArchive if any field is out of range.

    base: offset of the payload in the archive, for messages.
    """
    cursor = Cursor(payload, "configuration section", base)
    d_model, n_layers = cursor.u16("d_model"), cursor.u8("n_layers")
    n_heads, d_ff = cursor.u16("n_heads"), cursor.u16("d_ff")
    window, conv_width = cursor.u16("window"), cursor.u8("conv_width")
    match_min, n_merges = cursor.u8("match_min"), cursor.u16("n_merges")
    norm = _choice(cursor, "norm", NORMS)
    activation = _choice(cursor, "activation", ACTIVATIONS)
    positions = _choice(cursor, "positions", POSITIONS)
    flags = cursor.u8("flags")
    if flags >> 2:
        raise cursor.fail("flags", f"have reserved bits set ({flags:#04x})")
    chunk_size, group_chunks = cursor.u16("chunk_size"), cursor.u32("group_chunks")
    cursor.finish()
    if n_heads == 0:
        raise cursor.fail("n_heads", "is 0")
    if not limits.MIN_CHUNK_SIZE <= chunk_size <= limits.MAX_CHUNK_SIZE:
        raise cursor.fail("chunk_size", f"is {chunk_size}")
    if not 1 <= group_chunks <= limits.MAX_GROUP_CHUNKS:
        raise cursor.fail("group_chunks", f"is {group_chunks}")
    try:
        config = ModelConfig(
            d_model=d_model,
            n_layers=n_layers,
            n_heads=n_heads,
            d_ff=d_ff,
            window=window,
            conv_width=conv_width,
            match_min=match_min,
            n_merges=n_merges,
            norm=norm,
            activation=activation,
            positions=positions,
            biases=bool(flags & 1),
            shared_norm=bool(flags & 2),
        )
    except UsageError as error:
        raise CorruptArchive(f"configuration section: {error}") from None
    return config, Layout(size, chunk_size, group_chunks)


def _choice(cursor: Cursor, what: str, allowed: tuple[str, ...]) -> str:
    value = cursor.u8(what)
    if value >= len(allowed):
        raise cursor.fail(what, f"is {value}, known are 0..{len(allowed) - 1}")
    return allowed[value]
