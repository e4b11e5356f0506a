"""Groups of chunks <-> coded bytes, through the integer predictor.

The encoder runs all positions of a chunk at once, the decoder one position of many chunks at a
time. Work is cut into tiles that threads take; neither tile size nor thread count can change a
byte, since the predictor is exact and every group has its own stream.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import local
from typing import TypeVar

import numpy as np
import torch

from mdlzip.chunks import Layout
from mdlzip.coding.range_coder import Decoder, Encoder
from mdlzip.errors import ExportRefused
from mdlzip.quantised.memory import DECODE_TILE_CHUNKS
from mdlzip.quantised.network import START_SYMBOL, IntegerNetwork
from mdlzip.quantised.predictor import Predictor, shifted

A = TypeVar("A")
R = TypeVar("R")
ENCODE_TILE_BYTES = 4096  # positions of one forward call; keeps the activations near the L2 cache
_CUDA_TILE_CHUNKS = 8192


@contextmanager
def _one_thread_each() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Workers:
    """Threads with a predictor each; results come back in the order of the tasks."""

    def __init__(self, make: Callable[[], Predictor], threads: int) -> None:
        self._make, self._threads, self._local = make, max(1, threads), local()

    def predictor(self) -> Predictor:
        if not hasattr(self._local, "predictor"):
            torch.set_num_threads(1)
            self._local.predictor = self._make()
        return self._local.predictor

    def map(self, task: Callable[[A], R], items: Iterable[A]) -> Iterator[R]:
        """Like `map`, at most threads + 1 tasks ahead of the consumer."""
        with _one_thread_each(), ThreadPoolExecutor(self._threads) as pool:
            pending: deque[Future[R]] = deque()
            try:
                for item in items:
                    pending.append(pool.submit(task, item))
                    if len(pending) > self._threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


def default_threads(threads: int | None) -> int:
    """The asked-for number of threads, or one per core."""
    return threads or torch.get_num_threads()


def _symbols(data: np.ndarray, layout: Layout, group: int) -> tuple[np.ndarray, list[int]]:
    start, stop = layout.group_span(group)
    lengths = layout.chunk_lengths(group)
    symbols = np.zeros(len(lengths) * layout.chunk_size, np.uint8)
    symbols[: stop - start] = data[start:stop]
    return symbols.reshape(len(lengths), layout.chunk_size), lengths


def _active(lengths: list[int], t: int) -> int:
    """Chunks that still have position t; only the last chunk may be short."""
    return len(lengths) - (lengths[-1] <= t)


def _counts_at(predictor: Predictor, gaps: object, t: int, n: int) -> np.ndarray:
    if isinstance(gaps, torch.Tensor):
        return predictor.count_table[gaps[:n, t].cpu().numpy()]
    from mdlzip.quantised.kernels_cpu import take_counts

    out = np.empty((n, predictor.alphabet.size))
    take_counts(gaps, predictor.count_table, t, n, out)
    return out


def _ranks(predictor: Predictor, symbols: np.ndarray, lengths: list[int]) -> np.ndarray:
    """int32 (chunk_size, chunks): places in the alphabet; 0 after a short end."""
    ranks = predictor.ranks[symbols]
    ranks[-1, lengths[-1] :] = 0  # what pads the last chunk need not be in the alphabet
    if ranks.min() < 0:
        value = symbols[ranks < 0][0]
        raise ExportRefused(f"byte value {value} is not in the alphabet of the network")
    return np.ascontiguousarray(ranks.T)


def encode_group(predictor: Predictor, symbols: np.ndarray, lengths: list[int]) -> bytes:
    """One coded group. symbols: uint8 (chunks, chunk_size), zero after a short end.

    Raises ExportRefused for a byte outside the network's alphabet.
    """
    columns = _ranks(predictor, symbols, lengths)
    chunk_size = symbols.shape[1]
    tile = max(1, ENCODE_TILE_BYTES // chunk_size)
    if predictor.device.type != "cpu":
        tile = len(lengths)
    parts = []
    for i in range(0, len(lengths), tile):
        previous = shifted(symbols[i : i + tile])
        parts.append(predictor.forward(previous, predictor.new_state(len(previous))))
    gaps = parts[0]
    if len(parts) > 1:
        gaps = np.concatenate(parts) if predictor.fused else torch.cat(parts)
    encoder = Encoder()
    for t in range(max(lengths)):
        n = _active(lengths, t)
        encoder.encode(columns[t, :n], _counts_at(predictor, gaps, t, n))
    return encoder.finish()


def encode_groups(
    network: IntegerNetwork,
    data: np.ndarray,
    layout: Layout,
    *,
    device: str = "cpu",
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[bytes]:
    """Coded payload of every group, in order. data: uint8 (total_bytes,), may be memory-mapped."""
    workers = _Workers(
        lambda: Predictor(network, layout.chunk_size, device=device), default_threads(threads)
    )

    def task(group: int) -> bytes:
        return encode_group(workers.predictor(), *_symbols(data, layout, group))

    for done, payload in enumerate(workers.map(task, range(layout.n_groups)), 1):
        if on_progress:
            on_progress(layout.group_span(done - 1)[1], layout.total_bytes)
        yield payload


def decode_batch(
    predictor: Predictor, layout: Layout, batch: list[tuple[int, bytes]]
) -> list[tuple[int, bytes]]:
    """Decode several groups in lockstep: position by position over all their chunks."""
    lengths = [layout.chunk_lengths(g) for g, _ in batch]
    decoders = [Decoder(payload) for _, payload in batch]
    starts = np.cumsum([0, *(len(x) for x in lengths)])
    rows = int(starts[-1])
    out = np.zeros((layout.chunk_size, rows), np.uint8)
    previous = np.full((rows, 1), START_SYMBOL, np.int16)
    state = predictor.new_state(rows)
    for t in range(max(x[0] for x in lengths)):
        gaps = predictor.forward(previous, state)
        counts = _counts_at(predictor, gaps, 0, rows)
        for decoder, chunk_lengths, start in zip(decoders, lengths, starts[:-1], strict=True):
            n = _active(chunk_lengths, t)
            if n:
                ranks = decoder.decode(counts[start : start + n])
                out[t, start : start + n] = predictor.alphabet[ranks]
        previous[:, 0] = out[t]
    columns = out.T
    result = []
    for (group, _), chunk_lengths, start in zip(batch, lengths, starts[:-1], strict=True):
        block = np.ascontiguousarray(columns[start : start + len(chunk_lengths)])
        result.append((group, block.tobytes()[: sum(chunk_lengths)]))
    return result


def decode_groups(
    network: IntegerNetwork,
    layout: Layout,
    groups: Iterable[tuple[int, bytes]],
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Iterator[tuple[int, bytes]]:
    """(group number, its bytes) for every (group number, coded bytes), in the order given."""
    workers = _Workers(
        lambda: Predictor(network, layout.chunk_size, device=device), default_threads(threads)
    )
    tile = DECODE_TILE_CHUNKS if device == "cpu" else _CUDA_TILE_CHUNKS
    per_batch = max(1, tile // layout.group_chunks)

    def batches() -> Iterator[list[tuple[int, bytes]]]:
        source = iter(groups)
        while batch := list(itertools.islice(source, per_batch)):
            yield batch

    for decoded in workers.map(lambda b: decode_batch(workers.predictor(), layout, b), batches()):
        yield from decoded
