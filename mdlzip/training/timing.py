"""How long a training step and the coder take on this machine, tried on a session."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from mdlzip.process.cores import thread_count
from mdlzip.training.qat import QatRounding, calibrate, choose_steps, export
from mdlzip.training.session import Session

INSIDE_THE_PENALTY = 0.5
"""Fraction of a run where a step takes longest: past the warm-up of alpha, before pruning."""
_TIMED_STEPS = 16


@contextmanager
def throw_away(session: Session) -> Iterator[None]:
    """At the end of the block the session is again what it was before."""
    before = {name: tensor.clone() for name, tensor in session.state_dict().items()}
    try:
        yield
    finally:
        session.load_state_dict(before)


def time_step(session: Session, limit_s: float) -> float:
    """Seconds of one training step; the session takes some.

    The median of several, the first one apart, until `limit_s` seconds are gone: batches differ,
    and so does what else the machine is doing. The least would promise up to half as many steps
    again as there will be. One step is all if it takes ten times the limit by itself.
    """
    times: list[float] = []
    for i in range(_TIMED_STEPS):
        began = time.perf_counter()
        session.step(INSIDE_THE_PENALTY)
        session.synchronise()
        times.append(time.perf_counter() - began)
        if sum(times) > (limit_s if i else 10 * limit_s):
            break
    return statistics.median(times[1:] or times)


def time_coding(session: Session, threads: int | None, *, verify: bool) -> float:
    """Seconds to encode the corpus and to decode it for the check; measured on a small piece."""
    from mdlzip.quantised.memory import DECODE_TILE_CHUNKS
    from mdlzip.quantised.predictor import Predictor, shifted

    batches, model = session.batches, session.model
    layout = batches.tokens.layout
    if session.device.type != "cpu":
        return 10.0 + layout.total_bytes / 2e6
    x = batches.gather(batches.sample(2)).symbols
    steps = choose_steps(session.params, session.specs, 0.5)
    rounding = QatRounding(session.specs, steps, calibrate(model, [x]), 0.0)
    network = export(model, rounding, batches.vocabulary)
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
    work = batches.tokens.n_symbols * (encode + (decode if verify else 0) + 2 * coder_s)
    return work / thread_count(threads) * 1.1
