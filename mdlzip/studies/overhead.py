"""What an l0 method adds to the time of a training step of the compressor (Table 4).

All methods train side by side in one process and take their steps in turn, so that each round
compares them under the same conditions: a machine that grows slower slows all of them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mdlzip.callbacks import OnProgress
from mdlzip.codec import CompressOptions
from mdlzip.config import check_method
from mdlzip.errors import UsageError
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import sample_of
from mdlzip.symbols.source import ByteSource
from mdlzip.symbols.survey import take_survey
from mdlzip.symbols.tokens import prepare
from mdlzip.training.cpu import settled_cpu
from mdlzip.training.planner import choose, choose_vocabulary
from mdlzip.training.session import Session
from mdlzip.training.timing import INSIDE_THE_PENALTY

BASELINE = "none"
_STEPS_A_TURN = 5
_WARM_UP_ROUNDS = 2  # allocations, kernels chosen at the first call


@dataclass(frozen=True)
class Cost:
    """A method's step. step_seconds: median over the rounds; overhead: median over the rounds of
    its time over that of `none` in the same round, less 1; low, high: quartiles of overhead.
    """

    method: str
    step_seconds: float
    overhead: float
    low: float
    high: float


@dataclass(frozen=True)
class Overhead:
    """The costs, `none` first, and what they were measured on."""

    preset: str
    n_weights: int
    batch_bytes: float
    device: str
    threads: int
    costs: tuple[Cost, ...]


def measure_overhead(
    source: ByteSource,
    methods: Sequence[str],
    options: CompressOptions,
    rounds: int,
    on_progress: OnProgress,
) -> Overhead:
    """Time training steps on the bytes of `source` with each method and without any.

    options: as for compress; its method is not used. rounds: turns of 5 steps for each method.
    Only temporary files are written. Raises UsageError for an empty file, an unknown method or no
    rounds.
    """
    for method in methods:
        check_method(method)
    if not source.size:
        raise UsageError("an empty file has nothing to train on")
    if rounds < 1:
        raise UsageError(f"{rounds} rounds measure nothing")
    names = (BASELINE, *(m for m in dict.fromkeys(methods) if m != BASELINE))
    layout = Layout(source.size, options.chunk_bytes(), options.chunks_per_group())
    options = replace(options, method=None)  # it would be every session's
    with ExitStack() as stack:
        stack.enter_context(settled_cpu(options.threads))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mdlzip-study-")))
        sample = sample_of(source)
        vocabulary = choose_vocabulary(take_survey(source).present, sample, layout, options)
        tokens = stack.enter_context(
            prepare(source, layout, vocabulary, folder, threads=options.threads)
        )
        choice = choose(tokens, sample, options)
        sessions = {}
        for name in names:
            train = replace(choice.preset.train, method=name)
            preset = replace(choice.preset, train=train)
            sessions[name] = Session(tokens, preset, device=choice.device, seed=options.seed)
        times: dict[str, list[float]] = {name: [] for name in names}
        for number in range(-_WARM_UP_ROUNDS, rounds):
            # There and back again: no method always follows the same one.
            for name in names if number % 2 else reversed(names):
                seconds = _turn(sessions[name])
                if number >= 0:
                    times[name].append(seconds)
            on_progress("steps", number + 1 + _WARM_UP_ROUNDS, rounds + _WARM_UP_ROUNDS, "")
        baseline = sessions[BASELINE]
        return Overhead(
            choice.preset.name,
            baseline.n_weights,
            baseline.batches.passes_per_step * source.size,
            choice.device,
            torch.get_num_threads(),
            paired_costs(times),
        )


def _turn(session: Session) -> float:
    """Seconds of a step: the mean over a turn."""
    session.synchronise()
    began = time.perf_counter()
    for _ in range(_STEPS_A_TURN):
        session.step(INSIDE_THE_PENALTY)
    session.synchronise()
    return (time.perf_counter() - began) / _STEPS_A_TURN


def paired_costs(times: Mapping[str, Sequence[float]]) -> tuple[Cost, ...]:
    """Medians and quartiles. times: method -> seconds of a step, one a round; with BASELINE."""
    out = []
    for method, seconds in times.items():
        more = np.asarray(seconds) / np.asarray(times[BASELINE]) - 1
        low, middle, high = (float(np.quantile(more, q)) for q in (0.25, 0.5, 0.75))
        out.append(Cost(method, statistics.median(seconds), middle, low, high))
    return tuple(out)
