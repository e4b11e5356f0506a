"""What to train for this file, device and budget, and what it will cost."""

from __future__ import annotations

import lzma
import math
import statistics
import time
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

from mdlzip import limits
from mdlzip.chunks import Layout
from mdlzip.config import Preset, TrainConfig, load_preset
from mdlzip.errors import UsageError
from mdlzip.model.transformer import Transformer
from mdlzip.process.cores import thread_count
from mdlzip.training.data import IGNORE, Batches
from mdlzip.training.optim import make_optimisers
from mdlzip.training.qat import QatRounding, calibrate, choose_steps, export
from mdlzip.vocabulary import Vocabulary, alphabet_of, bytes_present, learn_merges, sample_of

SECONDS_PER_MB = {1: 4, 2: 8, 3: 15, 4: 30, 5: 60, 6: 90, 7: 120, 8: 150, 9: 300}
DEFAULT_LEVEL = 5
_MIN_BUDGET_S = 15.0
# Preset and its number of weights, smallest first.
_LADDER = (
    ("nano", 52_816),
    ("micro", 82_624),
    ("mini", 132_160),
    ("tiny", 181_696),
    ("small", 383_008),
    ("base", 658_048),
)
_GPU_LADDER = (*_LADDER, ("large", 5_087_296), ("huge", 24_923_776))
# The most weights for each byte that LZMA makes of the file; from runs on 1 and 10 MB of prose.
_WEIGHTS_PER_LZMA_BYTE = 0.5
# On a CPU a larger model pays once the budget holds so many passes over the file. At one to two
# passes 3 x 96 beats 3 x 128 by 2.5 % on 10 MB of text; where they are even was not measured.
_MIN_PASSES = 10.0
_TIMED_STEPS, _TIMING_SHARE = 16, 0.02  # so many steps, or this share of the budget, are timed
_FAST = [{"id": lzma.FILTER_LZMA2, "preset": 3}]


class Options(Protocol):
    """The part of the codec's options that training reads."""

    budget_s: float | None
    level: int | None
    preset: str | None
    config_file: object
    overrides: tuple[str, ...]
    device: str
    threads: int | None
    seed: int
    steps: int | None
    method: str | None
    metrics: object
    resume: bool
    verify: bool


@dataclass(frozen=True)
class Plan:
    """What will be done. Times in seconds; `steps` is fixed only if the user fixed it.

    spent_s: what start, rivals and planning have taken of the budget already. vocabulary: symbols
    to predict.
    """

    preset: Preset
    device: str
    budget_s: float
    step_s: float
    coding_s: float
    overhead_s: float
    expected_bytes: int
    steps: int | None
    spent_s: float = 0.0
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    @property
    def train_s(self) -> float:
        """Time from the start until training must end."""
        return max(self.budget_s - self.coding_s - self.overhead_s, 0.1 * self.budget_s)

    def sentence(self, total_bytes: int, rival_bytes: int | None = None) -> str:
        """The estimate for people. rival_bytes: what the best general method needs, if known."""
        n = self.steps or max(1, int((self.train_s - self.spent_s) / self.step_s))
        total = self.spent_s + self.step_s * n + self.coding_s + self.overhead_s
        return (
            f"{self.preset.name} model, about {n} steps on {self.device}; "
            f"{_duration(total)} in all ({_duration(self.coding_s)} of it coding and checking), "
            f"expected size very roughly {self.expected_bytes:,} of {total_bytes:,} bytes"
            + self._pay(rival_bytes)
        )

    def _pay(self, rival_bytes: int | None) -> str:
        if rival_bytes is None:
            return ""
        share = self.expected_bytes / max(rival_bytes, 1)
        if share > 1:
            return (
                f"; this may not pay, a general method needs {rival_bytes:,}; then training stops"
            )
        return f", {1 - share:.0%} below the {rival_bytes:,} of the best general method"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def pick_device(name: str) -> str:
    """The device: auto becomes cuda where there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def budget_seconds(options: Options, total_bytes: int) -> float:
    """The budget as given, or from the level: seconds per MB, at least 15 s."""
    if options.budget_s is not None:
        return options.budget_s
    rate = SECONDS_PER_MB[options.level or DEFAULT_LEVEL]
    return max(_MIN_BUDGET_S, rate * total_bytes / 1e6)


def choose_preset(
    options: Options, n_symbols: float, lzma_bytes: int, budget_s: float, device: str
) -> Preset:
    """The largest preset whose weights the file pays for and whose training the budget allows.

    n_symbols: length of the file in symbols. lzma_bytes: what LZMA would make of the file
    (`estimate_lzma`): a file of little content pays for few weights, however long it is.
    """
    name = options.preset
    if name is None:
        name, ladder = "nano", _LADDER if device == "cpu" else _GPU_LADDER
        speed = _training_flops() if device == "cpu" else math.inf
        for candidate, weights in ladder:
            affordable = weights <= lzma_bytes * _WEIGHTS_PER_LZMA_BYTE
            # A weight costs a multiplication and an addition forward, twice that backward.
            passes = budget_s / max(6 * weights * n_symbols / speed, 1e-9)
            if affordable and passes >= _MIN_PASSES:
                name = candidate
    preset = load_preset(name, options.config_file, options.overrides)  # type: ignore[arg-type]
    if options.method is not None:
        preset = replace(preset, train=replace(preset.train, method=options.method))
    return preset


def _training_flops() -> float:
    """Operations a second that training gets out of this CPU: 0.7 of a plain matrix product's."""
    dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    a, b = torch.ones(2048, 128, dtype=dtype), torch.ones(128, 512, dtype=dtype)
    best = math.inf
    for _ in range(12):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 0.7 * 2 * 2048 * 128 * 512 / best


def estimate_lzma(data: np.ndarray) -> int:
    """Bytes that fast LZMA would make of `data` (uint8), from at most 2 MiB of it."""
    sample = sample_of(data).tobytes()
    coded = lzma.compress(sample, lzma.FORMAT_RAW, filters=_FAST)
    return len(coded) * len(data) // max(len(sample), 1)


def make_plan(data: np.ndarray, layout: Layout, options: Options, began: float) -> Plan:
    """Choose the preset, time a training step and the coder on this machine, and estimate.

    began: when the time of the budget began, as time.monotonic().
    """
    device = pick_device(options.device)
    budget = budget_seconds(options, len(data))
    rival = estimate_lzma(data)
    any_preset = load_preset(options.preset or "nano", options.config_file, options.overrides)  # type: ignore[arg-type]
    if any_preset.model.n_merges:
        raise UsageError("model.n_merges follows from the file; set train.vocabulary instead")
    vocabulary = make_vocabulary(data, any_preset.train, layout.chunk_size)
    sample = sample_of(data)
    n_symbols = len(data) * len(vocabulary.tokenise(sample)) / max(len(sample), 1)
    preset = choose_preset(options, n_symbols, rival, budget, device)
    preset = replace(preset, model=replace(preset.model, n_merges=len(vocabulary.merges)))
    model = Transformer(preset.model, layout.chunk_size).to(device)
    model.initialise(options.seed)
    model.restrict(torch.from_numpy(vocabulary.symbols).long())
    batches = make_batches(data, layout, preset, 0, vocabulary)
    step_s = _time_step(model, preset, batches, device, _TIMING_SHARE * budget)
    coding_s = _time_coding(model, batches, layout, options)
    weights = sum(p.numel() for p in model.parameters())
    # A rough law, from prose; the comparison with the fallback is what decides in the end.
    passes = max(budget - coding_s, 0.1 * budget) / step_s * batches.passes_per_step
    expected = min(int(rival * (0.62 + 0.2 / (0.3 + passes))), len(data)) + weights * 22 // 80
    overhead = 1.0 + min(14.0, 0.04 * budget)
    spent = time.monotonic() - began
    return Plan(
        preset,
        device,
        budget,
        step_s,
        coding_s,
        overhead,
        expected,
        options.steps,
        spent,
        vocabulary,
    )


def make_vocabulary(data: np.ndarray, config: TrainConfig, chunk_size: int) -> Vocabulary:
    """The byte values of `data` and as many merges as `config` and the data allow."""
    alphabet = alphabet_of(bytes_present(data))
    most = min(config.vocabulary - alphabet.size, limits.MAX_MERGES)
    longest = min(config.merge_bytes, chunk_size // 2)
    return Vocabulary(
        alphabet,
        learn_merges(data, alphabet, most, config.merge_count, config.merge_gain, longest),
    )


def _time_step(
    model: Transformer, preset: Preset, batches: Batches, device: str, limit_s: float
) -> float:
    """Seconds of one training step, on throw-away weights.

    The median of several, the first one apart, until `limit_s` seconds are gone: batches differ,
    and so does what else the machine is doing. The least would promise up to half as many steps
    again as there will be. One step is all if it takes ten times the limit by itself.
    """
    optimisers = make_optimisers(model, preset.train)
    times: list[float] = []
    for i in range(_TIMED_STEPS):
        began = time.perf_counter()
        x, y, matches = batches.batch(i).to(device)
        logits = model(x, matches).flatten(0, 1)
        F.cross_entropy(logits, y.flatten(), ignore_index=IGNORE).backward()
        for o in optimisers.values():
            o.step()
            o.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
        if sum(times) > (limit_s if i else 10 * limit_s):
            break
    return statistics.median(times[1:] or times)


def make_batches(
    data: np.ndarray, layout: Layout, preset: Preset, seed: int, vocabulary: Vocabulary
) -> Batches:
    """The training data for a preset, whose `batch_chunks` counts 512 symbols each.

    Long chunks come in pieces where the network sees a window only and places are relative to one
    another. All layers together see further back than the one window that is put before a piece,
    but every symbol of context is computed and not learned from.
    """
    model = preset.model
    local = 0 < model.window < layout.chunk_size and model.positions == "rotary"
    return Batches(
        data,
        layout,
        preset.train.batch_chunks * 512,
        seed,
        vocabulary,
        lead=model.window if local else 0,
        least_match=model.match_min,
    )


def _time_coding(model: Transformer, batches: Batches, layout: Layout, options: Options) -> float:
    """Seconds to encode the corpus and to decode it for the check; measured on a small piece."""
    from mdlzip.quantised.memory import DECODE_TILE_CHUNKS
    from mdlzip.quantised.predictor import Predictor, shifted

    device = pick_device(options.device)
    if device != "cpu":
        return 10.0 + len(batches.data) / 2e6
    params = dict(model.named_parameters())
    x = batches.gather(batches.sample(2)).symbols
    symbols = len(batches.data) / batches.bytes_per_symbol
    steps = choose_steps(params, 0.5)
    network = export(model, QatRounding(steps, calibrate(model, [x]), 0.0), batches.vocabulary)
    predictor = Predictor(network, layout.chunk_size)
    rows = min(DECODE_TILE_CHUNKS, max(layout.n_chunks, 1))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        previous = shifted(x.numpy())
        stepwise = np.repeat(previous[:1, :1], rows, axis=0)
        for warm in (True, False):  # the first round compiles the kernels
            began = time.perf_counter()
            predictor.forward(previous, predictor.new_state(len(previous)))
            encode = (time.perf_counter() - began) / previous.size
            state = predictor.new_state(rows)
            began = time.perf_counter()
            for _ in range(2 if warm else 4):
                predictor.forward(stepwise, state)
            decode = (time.perf_counter() - began) / (4 * rows)
    finally:
        torch.set_num_threads(before)
    coder_s = 1.2e-6  # the range coder, both ways
    work = symbols * (encode + (decode if options.verify else 0) + 2 * coder_s)
    return work / thread_count(options.threads) * 1.1
