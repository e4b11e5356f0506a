"""Where to code: how long predicting takes on the CPU and on a GPU, tried for a moment.

A GPU is not always faster: one position of every chunk is a few small kernels a layer, and a small
network decodes faster on many cores. What comes out is the same integers either way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from mdlzip.errors import LimitExceeded
from mdlzip.process.cores import thread_count
from mdlzip.process.devices import has_gpu
from mdlzip.quantised.coders import Look, Strict
from mdlzip.quantised.memory import DECODE_TILE_CHUNKS, longest_chunk
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.predictor import Predictor, shifted
from mdlzip.quantised.workers import one_thread_each
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.vocabulary import Vocabulary

_ENCODE_CHUNKS = 2  # on the CPU
_POSITIONS = 4
_START_S = 5.0  # what the first use of a GPU takes, and more than is worth a choice


@dataclass(frozen=True)
class CodingTimes:
    """Seconds for a symbol, all threads together: of predicting, and with the range coder.

    Where experts code, the range coder does not.
    """

    predict_ahead_s: float
    predict_s: float
    encode_s: float
    decode_s: float


def coding_times(
    network: IntegerNetwork,
    layout: Layout,
    device: str,
    *,
    threads: int | None = None,
    memory: int | None = None,
) -> CodingTimes:
    """Times of chunks of any symbols on a device, whose calls are as large as those of the codec.

    On the CPU every thread predicts for itself; a GPU does one thing after the other, while threads
    code what it predicted. Raises LimitExceeded if `memory` bytes of the device are too few.
    """
    n = thread_count(threads)
    rows, encode_rows, call = DECODE_TILE_CHUNKS, _ENCODE_CHUNKS, layout.chunk_size
    at_once = n
    if device != "cpu":
        from mdlzip.quantised.device_memory import device_limit, fit_tiles

        limit = device_limit(device, memory)
        symbols = network.vocabulary.n_symbols
        tiles = fit_tiles(network.shape, layout, symbols, threads=n, limit=limit)
        rows, encode_rows, at_once = tiles.chunks, min(DECODE_TILE_CHUNKS, tiles.chunks), 1
        call = max(tiles.symbols // encode_rows, 1)
    rows, encode_rows = (min(r, max(layout.n_chunks, 1)) for r in (rows, encode_rows))
    call = min(call, longest_chunk(layout))
    predictor = Predictor(network, layout.chunk_size, device=device)
    places = np.random.default_rng(0).integers(0, network.vocabulary.n_symbols, (encode_rows, call))
    previous = shifted(network.vocabulary.symbols[places])
    stepwise = np.repeat(previous[:1, :1], rows, axis=0)
    with one_thread_each():
        for warm in (True, False):  # the first round compiles the kernels
            began = time.perf_counter()
            predictor.forward(previous, predictor.new_state(encode_rows))
            encode_s = (time.perf_counter() - began) / previous.size
            state, steps = predictor.new_state(rows), min(2 if warm else _POSITIONS, call)
            began = time.perf_counter()
            for _ in range(steps):
                predictor.forward(stepwise, state)
            decode_s = (time.perf_counter() - began) / (steps * rows)
            gaps = np.asarray(predictor.forward(stepwise, predictor.new_state(rows)))
            to_bytes_s, to_symbols_s = _range_coder_times(network.vocabulary, gaps)
    ahead, here = encode_s / at_once, decode_s / at_once
    return CodingTimes(ahead, here, ahead + to_bytes_s / n, here + to_symbols_s / n)


def _range_coder_times(vocabulary: Vocabulary, gaps: np.ndarray) -> tuple[float, float]:
    """Seconds of one thread to encode and to decode a symbol of these gaps, uint16 (B, 1, V)."""
    lines, room = np.arange(len(gaps)), _POSITIONS * vocabulary.longest
    places = (lines % gaps.shape[2]).astype(np.int32)
    coder, began = Strict(vocabulary, len(lines), room), time.perf_counter()
    for _ in range(_POSITIONS):
        coder.encode(lines, Look(gaps, 0, lines), places)
    encoded = time.perf_counter()
    reader = Strict(vocabulary, len(lines), room, coder.finish())
    ready = time.perf_counter()
    for _ in range(_POSITIONS):
        reader.decode(lines, Look(gaps, 0, lines))
    n = _POSITIONS * len(lines)
    return (encoded - began) / n, (time.perf_counter() - ready) / n


def choose_device(
    name: str,
    network: IntegerNetwork | None,
    layout: Layout,
    *,
    threads: int | None = None,
    memory: int | None = None,
) -> str:
    """`name`, or for "auto" where decoding all of a file with this layout is faster.

    The CPU, unless there is a GPU, it has the memory, and time is worth the trial.
    """
    if name != "auto":
        return name
    if network is None or not network.tensors or not has_gpu():
        return "cpu"
    here = coding_times(network, layout, "cpu", threads=threads)
    if here.decode_s * layout.total_bytes < _START_S:
        return "cpu"
    import torch

    try:
        there = coding_times(network, layout, "cuda", threads=threads, memory=memory)
    except (LimitExceeded, torch.OutOfMemoryError):
        return "cpu"
    return "cuda" if there.decode_s < here.decode_s else "cpu"
