"""Groups of chunks <-> coded bytes, through the integer predictor.

The encoder runs all positions of a chunk at once, the decoder one position of many chunks at a
time. Work is cut into tiles that threads take; neither tile size nor thread count can change a
byte, since the predictor is exact and every group has its own stream.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import TypeAlias

import numpy as np

from mdlzip.coding.range_coder import Decoder, Encoder
from mdlzip.errors import CorruptArchive, ExportRefused
from mdlzip.process.cores import thread_count
from mdlzip.quantised.memory import DECODE_TILE_CHUNKS, longest_chunk
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.predictor import Predictor, shifted
from mdlzip.quantised.workers import Workers
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokens import Tokens
from mdlzip.symbols.vocabulary import START_SYMBOL, Vocabulary

Batch: TypeAlias = list[tuple[int, bytes | bytearray]]
"""Groups that are decoded in lockstep: number and coded bytes of each."""
ENCODE_TILE_SYMBOLS = 4096  # positions of one forward call; keeps the activations near the L2 cache
_CUDA_TILE_CHUNKS = 8192
_CUT = "<IH"  # chunks of a group, bytes of the last
_LEAST_FILL = 0.75  # share of unfinished chunks below which the others leave the batch


def _ranks(vocabulary: Vocabulary, symbols: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """int32 (T, chunks): places among the symbols in use; 0 after the end of a chunk."""
    ranks = vocabulary.ranks[symbols]
    ranks[np.arange(symbols.shape[1]) >= counts[:, None]] = 0
    if ranks.min() < 0:
        value = symbols[ranks < 0][0]
        raise ExportRefused(f"byte value {value} is not in the alphabet of the network")
    return np.ascontiguousarray(ranks.T)


def encode_group(predictor: Predictor, flat: np.ndarray, ends: np.ndarray) -> bytes:
    """One coded group. flat: int16, its symbols, at least one; ends: int64, where in them each of
    its chunks ends.

    Raises ExportRefused for a byte outside the network's alphabet.
    """
    vocabulary = predictor.vocabulary
    counts = np.diff(ends, prepend=0)
    symbols = np.zeros((len(ends), int(counts.max())), np.int16)
    symbols[np.arange(symbols.shape[1]) < counts[:, None]] = flat
    columns = _ranks(vocabulary, symbols, counts)
    tile = max(1, ENCODE_TILE_SYMBOLS // symbols.shape[1])
    if predictor.device.type != "cpu":
        tile = len(symbols)
    parts = []
    for i in range(0, len(symbols), tile):
        previous = shifted(symbols[i : i + tile])
        parts.append(predictor.forward(previous, predictor.new_state(len(previous))))
    gaps = predictor.join(parts)
    encoder = Encoder()
    for t in range(symbols.shape[1]):
        predictor.check()
        rows = np.flatnonzero(counts > t)
        encoder.encode(columns[t, rows], predictor.counts(gaps, t, rows))
    return _pack_cut(vocabulary, flat, ends) + encoder.finish()


def _pack_cut(vocabulary: Vocabulary, flat: np.ndarray, ends: np.ndarray) -> bytes:
    """Number of chunks and bytes of the last; nothing without merges, where both are known."""
    if not len(vocabulary.merges):
        return b""
    last = flat[ends[-2] if len(ends) > 1 else 0 :]
    return struct.pack(_CUT, len(ends), int(vocabulary.lengths[last].sum()))


def _read_cut(
    predictor: Predictor, layout: Layout, group: int, payload: bytes | bytearray
) -> tuple[np.ndarray, bytes | bytearray]:
    """(bytes that each chunk of the group holds at least, int64; the rest of the payload)."""
    start, stop = layout.group_span(group)
    longest = predictor.vocabulary.longest
    if longest == 1:
        return np.array(layout.chunk_lengths(group), np.int64), payload
    if len(payload) < struct.calcsize(_CUT):
        raise CorruptArchive(f"group {group}: is too short")
    n, last = struct.unpack_from(_CUT, payload)
    full = layout.chunk_size - longest + 1
    before = stop - start - last  # bytes of the chunks before the last
    fits = (n - 1) * full <= before <= (n - 1) * layout.chunk_size
    if not (fits and 1 <= last <= layout.chunk_size):
        raise CorruptArchive(f"group {group}: {n} chunks, the last of {last} bytes, do not fit")
    sizes = np.full(n, full, np.int64)
    sizes[-1] = last
    return sizes, payload[struct.calcsize(_CUT) :]


def encode_groups(
    network: IntegerNetwork,
    tokens: Tokens,
    *,
    device: str = "cpu",
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Generator[bytes]:
    """Coded payload of every group, in order. tokens: made with the network's vocabulary."""
    layout = tokens.layout
    workers = Workers(thread_count(threads))
    predictor = _predictor(network, layout, device, workers.check)

    def task(group: int) -> bytes:
        return encode_group(predictor, *tokens.group(group))

    with closing(workers.map(task, range(layout.n_groups))) as coded:
        for done, payload in enumerate(coded, 1):
            if on_progress:
                on_progress(layout.group_span(done - 1)[1], layout.total_bytes)
            yield payload


def _predictor(
    network: IntegerNetwork, layout: Layout, device: str, check: Callable[[], None]
) -> Predictor:
    """A predictor for all threads, its kernels loaded: here a signal can end that, there not."""
    predictor = Predictor(
        network, layout.chunk_size, positions=longest_chunk(layout), device=device, check=check
    )
    start = np.full((1, 1), START_SYMBOL, np.int16)
    gaps = predictor.forward(start, predictor.new_state(1))
    predictor.counts(gaps, 0, np.zeros(1, np.int64))
    return predictor


def decode_batch(predictor: Predictor, layout: Layout, batch: Batch) -> list[tuple[int, bytes]]:
    """Decode several groups in lockstep: position by position over all their chunks."""
    parts = [_read_cut(predictor, layout, group, payload) for group, payload in batch]
    decoders = [Decoder(stream) for _, stream in parts]
    starts = np.cumsum([0, *(len(sizes) for sizes, _ in parts)])
    sizes = np.concatenate([sizes for sizes, _ in parts])
    vocabulary, symbols = predictor.vocabulary, predictor.vocabulary.symbols
    out = np.zeros((len(sizes), longest_chunk(layout)), np.uint8)
    fill = np.zeros(len(sizes), np.int64)
    lines = np.arange(len(sizes))  # the chunk of each line of the state
    previous = np.full((len(sizes), 1), START_SYMBOL, np.int16)
    state = predictor.new_state(len(sizes))
    while (unfinished := fill[lines] < sizes[lines]).any():
        if np.count_nonzero(unfinished) < _LEAST_FILL * len(lines):
            predictor.narrow(state, unfinished)
            lines, previous = lines[unfinished], previous[unfinished]
            unfinished = np.ones(len(lines), bool)
        gaps = predictor.forward(previous, state)
        edges = np.searchsorted(lines, starts)
        for i, decoder in enumerate(decoders):
            rows = edges[i] + np.flatnonzero(unfinished[edges[i] : edges[i + 1]])
            if not len(rows):
                continue
            new = symbols[decoder.decode(predictor.counts(gaps, 0, rows))]
            fits = vocabulary.append(out, fill, lines[rows], new)
            if not fits:
                raise CorruptArchive(f"group {batch[i][0]}: a symbol goes beyond its chunk")
            previous[rows, 0] = new
    result = []
    for i, (group, _) in enumerate(batch):
        rows = range(starts[i], starts[i + 1])
        chunks = [out[j, : fill[j]].tobytes() for j in rows]
        _check_end(layout, group, decoders[i], chunks, int(sizes[rows[-1]]))
        result.append((group, b"".join(chunks)))
    return result


def _check_end(
    layout: Layout, group: int, decoder: Decoder, chunks: list[bytes], last: int
) -> None:
    """CorruptArchive unless stream and chunks end with the group; last: bytes of its last chunk."""
    if not decoder.is_spent:
        raise CorruptArchive(
            f"group {group}: data follow its last symbol; the archive is damaged or was made by a"
            " program that predicts differently"
        )
    total = sum(map(len, chunks))
    begin, end = layout.group_span(group)
    if total != end - begin or len(chunks[-1]) != last:
        raise CorruptArchive(
            f"group {group}: decodes to {total} bytes, {len(chunks[-1])} of them in its last chunk;"
            f" it must be {end - begin} and {last}"
        )


class GroupDecoder:
    """Decodes groups of one archive with a predictor that is made once; for one thread's use.

    tile_chunks: that a thread decodes in lockstep, if a group has fewer; more are faster and take
    more memory. Raises ExportRefused if the network breaks a bound of the predictor.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        layout: Layout,
        *,
        device: str = "cpu",
        threads: int | None = None,
        tile_chunks: int = DECODE_TILE_CHUNKS,
    ) -> None:
        self._layout, self._threads = layout, thread_count(threads)
        self._workers = Workers(self._threads)
        self._predictor = _predictor(network, layout, device, lambda: self._workers.check())
        tile = tile_chunks if device == "cpu" else _CUDA_TILE_CHUNKS
        self._per_batch = max(1, tile // layout.group_chunks)

    def decode(
        self, groups: Iterable[tuple[int, bytes | bytearray]]
    ) -> Generator[tuple[int, bytes]]:
        """(group number, its bytes) for every (group number, coded bytes), in the order given.

        Close it before the next call if it is not read to its end.
        """
        self._workers = Workers(self._threads)
        decoded = self._workers.map(self._decode_batch, self._batches(groups))
        with closing(decoded):
            for batch in decoded:
                yield from batch

    def _decode_batch(self, batch: Batch) -> list[tuple[int, bytes]]:
        return decode_batch(self._predictor, self._layout, batch)

    def _batches(self, groups: Iterable[tuple[int, bytes | bytearray]]) -> Iterator[Batch]:
        source = iter(groups)
        while batch := list(itertools.islice(source, self._per_batch)):
            yield batch


def decode_groups(
    network: IntegerNetwork,
    layout: Layout,
    groups: Iterable[tuple[int, bytes | bytearray]],
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Iterator[tuple[int, bytes]]:
    """All of `groups` through one `GroupDecoder`."""
    return GroupDecoder(network, layout, device=device, threads=threads).decode(groups)
