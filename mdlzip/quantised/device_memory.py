"""Memory that predicting takes on a device of torch, and how much is done at a time there.

`TorchBackend` computes with int64 and float64 tensors that come and go; the sizes here are those of
the largest that are there together (`tests/unit/test_device_memory.py` counts them).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdlzip.config import ModelConfig
from mdlzip.errors import LimitExceeded
from mdlzip.networks.registry import tensor_specs
from mdlzip.quantised.kernels_torch import SCORES_AT_ONCE, queries_at_once
from mdlzip.quantised.memory import DECODE_TILE_CHUNKS
from mdlzip.quantised.prepared import window_of
from mdlzip.resources import mebibytes
from mdlzip.symbols.layout import Layout

MOST_CHUNKS, MOST_SYMBOLS = 8192, 1 << 18
_WIDE = 8  # int64 and float64
_FREE_SHARE = 0.9  # the allocator keeps pieces that fit nothing
_SCORE_ARRAYS = 6


@dataclass(frozen=True)
class DeviceTiles:
    """What threads do at a time on a device, and the memory that all take, in bytes.

    threads: that predict there; chunks: that each decodes together; symbols: that each asks for in
    one call, when it encodes.
    """

    threads: int
    chunks: int
    symbols: int
    memory_bytes: int


def call_bytes(
    config: ModelConfig, layout: Layout, n_symbols: int, chunks: int, positions: int
) -> int:
    """Predicted bytes on the device for so many chunks, and a call for so many positions of each.

    n_symbols: V, of the vocabulary. Caches of whole chunks included, weights not.
    """
    d, f, heads = config.d_model, config.d_ff, config.n_heads
    ring = min(window_of(config, layout.chunk_size), layout.chunk_size)
    history = 4 * 2 * max(config.conv_width - 1, 0) * d
    longest = min(ring + positions, layout.chunk_size)  # what is out of sight goes a call later
    cache = config.n_layers * (2 * longest * d + history)
    appended = 2 * longest * d
    part = queries_at_once(chunks * heads, positions, ring)
    seen = min(ring + part, layout.chunk_size)
    seen_wide = 2 * _WIDE * seen * d
    scores = min(chunks * heads * part * seen, max(SCORES_AT_ONCE, chunks * heads * seen))
    work = _WIDE * positions * (d + max(24 * d, 7 * f, 7 * (n_symbols + 1)))
    each = cache + appended + seen_wide + work
    return chunks * each + _SCORE_ARRAYS * _WIDE * scores


def weights_bytes(config: ModelConfig, n_symbols: int, positions: int) -> int:
    """Predicted bytes of matrices in the widest carrier, the embedding and the tables."""
    specs = tensor_specs(config)
    hidden = sum(s.n_cells for s in specs.values() if s.is_matrix and not s.by_symbol)
    tables = _WIDE * positions * 2 * config.d_model
    embedding = 4 * specs["embedding"].n_cells
    return _WIDE * (hidden + (n_symbols + 1) * config.d_model) + embedding + tables


def fit_tiles(
    config: ModelConfig, layout: Layout, n_symbols: int, *, threads: int, limit: int | None
) -> DeviceTiles:
    """As many chunks and threads as `limit` bytes of the device have room for; None for any number.

    Chunks become fewer first: work on a device is one after the other, whichever thread asks for
    it. Raises LimitExceeded if one thread with the fewest chunks takes more.
    """
    fixed = weights_bytes(config, n_symbols, layout.chunk_size)
    least = min(layout.group_chunks, MOST_CHUNKS)

    def need(threads: int, chunks: int, symbols: int) -> int:
        decode = call_bytes(config, layout, n_symbols, chunks, 1)
        rows = min(chunks, DECODE_TILE_CHUNKS)
        positions = min(max(symbols // rows, 1), layout.chunk_size)
        encode = call_bytes(config, layout, n_symbols, rows, positions)
        return fixed + threads * max(decode, encode)

    chunks, symbols = MOST_CHUNKS, MOST_SYMBOLS
    while limit is not None and need(threads, chunks, symbols) > limit:
        rows = min(chunks, DECODE_TILE_CHUNKS)
        decode = call_bytes(config, layout, n_symbols, chunks, 1)
        encode = call_bytes(config, layout, n_symbols, rows, max(symbols // rows, 1))
        if encode >= decode and symbols > rows:
            symbols //= 2
        elif chunks > least:
            chunks = max(chunks // 2, least)
        elif symbols > rows:
            symbols //= 2
        elif threads > 1:
            threads //= 2
        else:
            size = mebibytes(need(threads, chunks, symbols))
            raise LimitExceeded(
                f"coding on this device needs about {size} of its memory, allowed and free are"
                f" {mebibytes(limit)}; pass --memory {size} or --device cpu"
            )
    return DeviceTiles(threads, chunks, symbols, need(threads, chunks, symbols))


def device_limit(device: str, memory: int | None) -> int | None:
    """The bytes that may be taken of a device: what is free there, and at most `memory`."""
    if torch.device(device).type != "cuda":
        return memory
    free = int(_FREE_SHARE * torch.cuda.mem_get_info(device)[0])
    return free if memory is None else min(free, memory)
