"""What decoding costs in time, predicted from headers alone, and what is out of proportion.

A few bytes can declare a model of millions of zero weights, so time is not bounded by the size of
an archive. Operations are counted roughly, in multiply-adds of a matrix product, some 0.1 to 0.4 ns
each on one core.
"""

from __future__ import annotations

from mdlzip.config import ModelConfig
from mdlzip.errors import LimitExceeded
from mdlzip.networks.registry import NetworkConfig, n_cells
from mdlzip.quantised.memory import DECODE_TILE_CHUNKS, longest_chunk
from mdlzip.quantised.prepared import window_of
from mdlzip.symbols.context import CHUNK, SOLID, STRICT, Context, Units
from mdlzip.symbols.layout import Layout

_PER_CELL = 1 << 10  # a weight that is decoded
_PER_ATTENTION = 8  # a multiply-add of attention
_PER_LAYER_STEP = 1 << 18  # a layer's calls for one position of a tile, whatever their sizes
_PER_EXPERT_BYTE = 1 << 14  # a byte of the original that the experts decode
_PER_UNIT = 1 << 22  # maps and weights that the experts of a unit start from
_TEXT_BYTES = 4  # of known text, at most, for a byte of the original
_PER_ANGLE = 1 << 6  # an entry of the tables of positions

# Allowed: half a million weights for any file, and for each byte of the original the products of a
# network of four million, or of 4,096 for each byte that the weights take.
_FREE = 1 << 29
_FREE_PER_BYTE = 1 << 22
_PER_WEIGHT_BYTE = 1 << 12


def decode_operations(config: NetworkConfig, layout: Layout, context: Context = STRICT) -> int:
    """Operations that decoding takes at most (strings that are one symbol each make them fewer)."""
    starts = _start_operations(layout, context)
    if not isinstance(config, ModelConfig):
        return layout.total_bytes * _PER_EXPERT_BYTE + starts
    positions = longest_chunk(layout)
    tiles = -(-layout.n_chunks // max(DECODE_TILE_CHUNKS, layout.group_chunks))
    if context.mode == SOLID:
        tiles += len(context.waves)
    tiles *= Units(layout, context).most_rounds()
    ring = min(window_of(config, layout.chunk_size), positions)
    attention = config.n_layers * ring * (2 * config.d_model + 16 * config.n_heads)
    each = n_cells(config) + _PER_ATTENTION * attention
    angles = positions * (config.d_model if config.positions == "sinusoidal" else config.head_width)
    return (
        layout.total_bytes * (each + _PER_EXPERT_BYTE)
        + tiles * positions * config.n_layers * _PER_LAYER_STEP
        + n_cells(config) * _PER_CELL
        + angles * _PER_ANGLE
        + starts
    )


def _start_operations(layout: Layout, context: Context) -> int:
    """Of what each unit starts from: tables that are made or copied, known text that is copied."""
    if context.mode == CHUNK:
        return 0
    units = Units(layout, context)
    tables = context.table_bytes * (1 if context.mode == SOLID else len(units))
    return tables + len(units) * (_PER_UNIT + _TEXT_BYTES * units.known_bytes())


def allowed_operations(size: int, weight_bytes: int) -> int:
    """Operations in proportion to `size` original bytes and a weights section of that length."""
    return _FREE + size * (_FREE_PER_BYTE + _PER_WEIGHT_BYTE * weight_bytes)


def check_operations(
    config: NetworkConfig,
    layout: Layout,
    weight_bytes: int,
    remedy: str = "--allow-slow",
    context: Context = STRICT,
) -> None:
    """LimitExceeded if decoding costs far more than the original and the weights account for.

    remedy: what the message advises to pass.
    """
    need = decode_operations(config, layout, context)
    if need > allowed_operations(layout.total_bytes, weight_bytes):
        raise LimitExceeded(
            f"decoding takes about {need:.1e} operations for {layout.total_bytes} bytes, far more"
            f" than they and {weight_bytes} bytes of weights account for; pass {remedy}"
        )
