"""Memory of decoding, predicted from headers alone: no torch, no tensors, nothing allocated."""

from __future__ import annotations

from mdlzip.config import ModelConfig
from mdlzip.matches import state_bytes
from mdlzip.networks.registry import NetworkConfig, n_cells, tensor_specs
from mdlzip.quantised.int8_products import BLOCK, GROUP, padded
from mdlzip.quantised.prepared import window_of
from mdlzip.resources import WEIGHTS_PROGRAM_BYTES, learned_program_bytes
from mdlzip.symbols.context import CHUNK, REFERENCE, SOLID, STRICT, Context, Units
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.vocabulary import N_BYTES, Vocabulary

DECODE_TILE_CHUNKS = 128
_GROUP_BYTES = 36  # of index and checksums, for each group
_CODER_BYTES = 8 << 20  # statistics of the weight coder
_EXPORTED_BYTES = 34  # of a non-zero: indices and value, as array, as bytes, as they are found
_KNOWN_BYTES = 2  # a place of the known text
_OWN_BYTES = 4  # ... and of the unit at hand: rank, byte, byte of the output
_MAP_BYTES = 3 << 20
_CODED_COPIES = 3  # of a coded group: as read, as words, in the range coder


def decode_memory_bytes(
    config: NetworkConfig,
    layout: Layout,
    threads: int,
    *,
    vocabulary: Vocabulary | None = None,
    weight_bytes: int = 0,
    archive_bytes: int | None = None,
    tile_chunks: int = DECODE_TILE_CHUNKS,
    context: Context = STRICT,
    text_bytes: int = 0,
) -> int:
    """Predicted peak of the whole process in bytes, libraries included, while it decodes.

    vocabulary: of the network; without one that of all bytes, and chunks as few as they can be.
    weight_bytes: length of the weights section; archive_bytes: of the archive, if known;
    tile_chunks: see `units.UnitDecoder`; text_bytes: of the model's text. An encoder asks this
    before it trains; what it writes then opens under the same limit.
    """
    v = vocabulary.n_symbols if vocabulary else N_BYTES + config.n_merges
    longest = vocabulary.longest if vocabulary else 1
    tiles = _Tiles(layout, tile_chunks, longest)
    busy = min(max(threads, 1), tiles.count)
    waiting = min(max(threads, 1) + 1, tiles.count)  # decoded, not yet fetched
    coded = (busy + waiting) * tiles.coded_bytes
    coded = _CODED_COPIES * min(coded, archive_bytes or layout.total_bytes + 64)
    chunk, network = longest_chunk(layout) + 64, 0
    if isinstance(config, ModelConfig):
        chunk = _chunk_bytes(config, layout, v, tiles)
        network = _network_bytes(config, v) + _table_bytes(config, layout)
    working = busy * tiles.chunks * chunk
    plain = (busy + waiting) * tiles.plain_bytes + coded
    if context.mode != CHUNK:
        known = _Known(layout, context, longest, text_bytes)
        working = max(working, known.shared_chunks * chunk)
        plain += known.kept_bytes + busy * tiles.groups * known.each_bytes
    running = network + working + plain
    loading = weight_bytes + _loading_bytes(config) + _CODER_BYTES
    return learned_program_bytes() + index_memory_bytes(layout) + max(running, loading)


def weights_memory_bytes(config: NetworkConfig, weight_bytes: int = 0, nnz: int = 0) -> int:
    """Predicted peak of the process in bytes while it decodes weights alone, or exports them.

    nnz: non-zero codes that are exported; each takes its place and value, and both once more.
    """
    loading = weight_bytes + _loading_bytes(config) + _CODER_BYTES
    return WEIGHTS_PROGRAM_BYTES + max(loading, n_cells(config) + _EXPORTED_BYTES * nnz)


def index_memory_bytes(layout: Layout) -> int:
    """Of the index and what it is compared with."""
    return _GROUP_BYTES * layout.n_groups


class _Known:
    """Bytes that the experts and the text they know take, and chunks of the largest shared unit.

    kept: once for the archive; each: for every group that is decoded at a time.
    """

    def __init__(self, layout: Layout, context: Context, longest: int, text_bytes: int) -> None:
        units, full = Units(layout, context), layout.chunk_size - longest + 1

        def chunks_of(n_bytes: int) -> int:
            return -(-n_bytes // full) + -(-n_bytes // layout.group_bytes)

        tables = context.table_bytes + _MAP_BYTES
        text = chunks_of(text_bytes)
        known = _KNOWN_BYTES * layout.chunk_size * (chunks_of(units.known_bytes()) + text)
        group = min(layout.group_bytes, layout.total_bytes)
        own = _OWN_BYTES * layout.chunk_size * chunks_of(group)
        self.shared_chunks = min(text, DECODE_TILE_CHUNKS)
        self.kept_bytes, self.each_bytes = 0, tables + own
        if text_bytes:
            self.kept_bytes, self.each_bytes = tables + known, tables + known + own
        if context.mode == REFERENCE:
            self.shared_chunks = max(self.shared_chunks, chunks_of(units.n_bytes(0)))
            self.kept_bytes, self.each_bytes = tables + known, tables + known + own
        elif context.mode == SOLID:
            self.shared_chunks = max(self.shared_chunks, chunks_of(units.most_bytes()))
            # The text is copied into a longer array before each unit.
            own = _OWN_BYTES * layout.chunk_size * self.shared_chunks
            self.kept_bytes, self.each_bytes = tables + 2 * known + own, 0


class _Tiles:
    """How many groups, chunks and bytes one thread works on at a time, and how many such tiles."""

    def __init__(self, layout: Layout, tile_chunks: int, longest: int) -> None:
        per_tile = max(1, tile_chunks // layout.group_chunks)
        self.count = -(-layout.n_groups // per_tile)
        self.groups = min(per_tile, layout.n_groups)
        group = min(layout.group_bytes, layout.total_bytes)
        self.plain_bytes = min(self.groups * group, layout.total_bytes)
        self.coded_bytes = self.groups * (4 * group + 64)
        full = layout.chunk_size - longest + 1  # bytes that every chunk but the last has at least
        self.group_chunks = -(-group // full)
        self.chunks = min(self.groups * self.group_chunks, -(-layout.total_bytes // full))


def _chunk_bytes(config: ModelConfig, layout: Layout, v: int, tiles: _Tiles) -> int:
    """Of one chunk that is being decoded: cache, gaps, counts, output."""
    d, heads = config.d_model, config.n_heads
    positions = longest_chunk(layout)
    slots = padded(min(window_of(config, layout.chunk_size), positions), BLOCK)
    key, value = padded(config.head_width, GROUP), padded(config.head_width, BLOCK)
    keys = config.n_layers * heads * slots * key
    cache = keys + config.n_layers * (heads * slots * (value + 4) + 8 * d * config.conv_width)
    # Where chunks end at different times the others move together, one array after the other.
    moved = max(keys, config.n_layers * heads * slots * value)
    moved = moved if config.n_merges or tiles.chunks < 4 else 0
    counts = 8 * v * tiles.group_chunks // max(tiles.chunks, 1)  # one group after the other
    matcher = state_bytes(layout.chunk_size, positions) if config.match_min else 0
    return cache + moved + 2 * v + counts + matcher + positions + 64


def _network_bytes(config: ModelConfig, v: int) -> int:
    """The codes as they came, embedding and head as the predictor wants them, all matrices."""
    specs = tensor_specs(config)
    head = (v + 1) * config.d_model
    hidden = sum(s.n_cells for s in specs.values() if s.is_matrix and not s.by_symbol)
    embedding = 4 * specs["embedding"].n_cells
    return n_cells(config) + 2 * head + embedding + hidden


def _table_bytes(config: ModelConfig, layout: Layout) -> int:
    """Angles or sinusoids, int32, for every position."""
    width = config.head_width if config.positions == "rotary" else 2 * config.d_model
    return 4 * longest_chunk(layout) * width


def _loading_bytes(config: NetworkConfig) -> int:
    """While weights are decoded: one byte a cell, and the layer before again."""
    layers = config.n_layers if isinstance(config, ModelConfig) else 1
    return n_cells(config) + n_cells(config) // layers


def longest_chunk(layout: Layout) -> int:
    """Bytes, and so positions, of the longest chunk there really is."""
    return min(layout.chunk_size, layout.total_bytes)
