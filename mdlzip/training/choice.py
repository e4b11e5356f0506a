"""Which preset a file and a budget pay for."""

from __future__ import annotations

import lzma
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

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
# On a GPU: launches of a step, for the network and for each layer (counted, of PMMP and QAT less
# than half as many again), and the share of plain products' speed that large networks reach.
_LAUNCHES, _LAUNCHES_A_LAYER = 130, 135
_GPU_SHARE = 0.1
_SYMBOLS_A_CHUNK = 512  # of `batch_chunks`
_FAST = [{"id": lzma.FILTER_LZMA2, "preset": 3}]
_TRIALS = 40


@dataclass(frozen=True)
class TrainingSpeed:
    """What training gets out of a device: operations a second, and seconds of a launch."""

    flops: float
    launch_s: float = 0.0

    def pass_s(self, preset: Preset, n_symbols: float) -> float:
        """Seconds of a pass over a file of so many symbols: of its products, or of launches."""
        # A weight costs a multiplication and an addition forward, twice that backward.
        products_s = 6 * n_cells(preset.model) * n_symbols / self.flops
        steps = n_symbols / (preset.train.batch_chunks * _SYMBOLS_A_CHUNK)
        launches = _LAUNCHES + _LAUNCHES_A_LAYER * preset.model.n_layers
        return max(products_s, steps * launches * self.launch_s, 1e-9)


def choose_preset(
    options: Options,
    n_symbols: float,
    lzma_bytes: int,
    budget_s: float,
    device: str,
    speed_of: Callable[[torch.device], TrainingSpeed] | None = None,
) -> Preset:
    """The largest preset whose weights the file pays for and whose training the budget allows.

    n_symbols: length of the file in symbols. lzma_bytes: what LZMA would make of the file
    (`estimate_lzma`): a file of little content pays for few weights, however long it is. speed_of:
    measures the device, by default by `training_speed`.
    """
    name = options.preset
    if name is None:
        name, where = "nano", torch.device(device)
        speed = (speed_of or training_speed)(where)
        for candidate in _LADDER if where.type == "cpu" else _GPU_LADDER:
            preset = load_preset(candidate)
            affordable = n_cells(preset.model) <= lzma_bytes * _WEIGHTS_PER_LZMA_BYTE
            if affordable and budget_s / speed.pass_s(preset, n_symbols) >= _MIN_PASSES:
                name = candidate
    preset = load_preset(name, options.config_file, options.overrides)
    if options.method is not None:
        preset = replace(preset, train=replace(preset.train, method=options.method))
    return preset


def training_speed(device: torch.device) -> TrainingSpeed:
    """That of a device, tried for a moment."""
    if device.type == "cpu":
        return TrainingSpeed(_cpu_flops())
    return TrainingSpeed(*_gpu_speed(device))


def _gpu_speed(device: torch.device) -> tuple[float, float]:
    """Operations a second that training gets, and seconds of a launch, with the host's work."""
    a, small = torch.ones(2048, 2048, dtype=torch.bfloat16, device=device), torch.ones(8).to(device)
    times = {}
    for name, work, n in (("product", lambda: a @ a, 8), ("launch", lambda: small + small, 128)):
        work()
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(n):
            work()
        torch.cuda.synchronize(device)
        times[name] = (time.perf_counter() - began) / n
    return _GPU_SHARE * 2 * 2048**3 / times["product"], times["launch"]


def _cpu_flops() -> float:
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
