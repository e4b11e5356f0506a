"""Memory of decoding, predicted from the configuration alone (no torch, no tensors)."""

from __future__ import annotations

from mdlzip.config import ModelConfig
from mdlzip.matches import state_bytes
from mdlzip.quantised.prepared import window_of
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.vocabulary import N_BYTES

DECODE_TILE_CHUNKS = 512
_PROGRAM_BYTES = 150 << 20


def decode_memory_bytes(config: ModelConfig, layout: Layout, threads: int = 2) -> int:
    """Predicted peak in bytes: caches, activations, counts and weights of all threads.

    For the alphabet of all byte values: the smaller ones are known only once the weights are read.
    """
    d, symbols = config.d_model, N_BYTES + config.n_merges
    chunks = max(DECODE_TILE_CHUNKS, layout.group_chunks)
    if config.n_merges:
        chunks = 2 * chunks + 1  # a chunk holds at least half of chunk_size
    window = window_of(config, layout.chunk_size)
    cache = config.n_layers * (2 * window * d + 8 * d * max(config.conv_width - 1, 0))
    activations = 4 * (12 * d + 4 * config.d_ff) + symbols * 14
    weights = 4 * (config.n_layers * (4 * d * d + 2 * d * config.d_ff) + 2 * (symbols + 1) * d)
    weights += symbols * d  # the head's rows in use are a copy
    tables = layout.chunk_size * d * 4
    matcher = state_bytes(layout.chunk_size) if config.match_min else 0
    tile = chunks * (cache + activations + layout.chunk_size + matcher)
    return (threads + 1) * (tile + weights) + tables + _PROGRAM_BYTES
