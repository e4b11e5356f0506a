"""Which preset a file and a budget pay for."""

from __future__ import annotations

import lzma
import math
import time
from dataclasses import replace

import numpy as np
import torch

from mdlzip.config import Preset, load_preset
from mdlzip.networks.registry import n_cells
from mdlzip.training.options import Options

_LADDER = ("nano", "micro", "mini", "tiny", "small", "base")  # smallest first
_GPU_LADDER = (*_LADDER, "large", "huge")
# The most weights for each byte that LZMA makes of the file; from runs on 1 and 10 MB of prose.
_WEIGHTS_PER_LZMA_BYTE = 0.5
# On a CPU a larger model pays once the budget holds so many passes over the file. At one to two
# passes 3 x 96 beats 3 x 128 by 2.5 % on 10 MB of text; where they are even was not measured.
_MIN_PASSES = 10.0
_FAST = [{"id": lzma.FILTER_LZMA2, "preset": 3}]
_TRIALS = 40


def choose_preset(
    options: Options, n_symbols: float, lzma_bytes: int, budget_s: float, device: str
) -> Preset:
    """The largest preset whose weights the file pays for and whose training the budget allows.

    n_symbols: length of the file in symbols. lzma_bytes: what LZMA would make of the file
    (`estimate_lzma`): a file of little content pays for few weights, however long it is.
    """
    name = options.preset
    if name is None:
        name, on_cpu = "nano", device == "cpu"
        speed = _training_flops() if on_cpu else math.inf
        for candidate in _LADDER if on_cpu else _GPU_LADDER:
            weights = n_cells(load_preset(candidate).model)
            affordable = weights <= lzma_bytes * _WEIGHTS_PER_LZMA_BYTE
            # A weight costs a multiplication and an addition forward, twice that backward.
            passes = budget_s / max(6 * weights * n_symbols / speed, 1e-9)
            if affordable and passes >= _MIN_PASSES:
                name = candidate
    preset = load_preset(name, options.config_file, options.overrides)
    if options.method is not None:
        preset = replace(preset, train=replace(preset.train, method=options.method))
    return preset


def _training_flops() -> float:
    """Operations a second that training gets out of this CPU: 0.7 of plain matrix products'.

    The best of many products on one thread, times the threads of training. Threads that meet at
    the end of a product wait for the slowest: beside other load they would seem ten times slower
    than they are on average, and the smallest preset would be chosen for a busy moment.
    """
    dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    a, b = torch.ones(512, 128, dtype=dtype), torch.ones(128, 512, dtype=dtype)
    threads, best = torch.get_num_threads(), math.inf
    torch.set_num_threads(1)
    try:
        for _ in range(_TRIALS):
            began = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return 0.7 * threads * 2 * 512 * 128 * 512 / best


def estimate_lzma(sample: np.ndarray, total_bytes: int) -> int:
    """Bytes that fast LZMA would make of a file of `total_bytes`, from a sample of it (uint8)."""
    coded = lzma.compress(sample.tobytes(), lzma.FORMAT_RAW, filters=_FAST)
    return len(coded) * total_bytes // max(len(sample), 1)
