"""How long a training step and the coder take on this machine, tried on a session."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mdlzip.quantised.placement import choose_device, coding_times
from mdlzip.training.qat import QatRounding, calibrate, choose_steps, export
from mdlzip.training.session import Session

INSIDE_THE_PENALTY = 0.5
"""Fraction of a run where a step takes longest: past the warm-up of alpha, before pruning."""
_TIMED_STEPS = 16
_SLOWER = 1.1  # than a moment's trial
_IN_STEP = 1.3  # chunks end before others, threads share caches and memory
_BESIDE = 1.4  # experts beside a network take longer than alone: many lanes, threads that wait


@contextmanager
def throw_away(session: Session) -> Iterator[None]:
    """At the end of the block the session is again what it was before."""
    before = {name: tensor.clone() for name, tensor in session.state_dict().items()}
    try:
        yield
    finally:
        session.load_state_dict(before)


class StepTimes(NamedTuple):
    """Seconds of one training step: the median of several, and the least."""

    usual_s: float
    least_s: float


def time_step(session: Session, limit_s: float) -> StepTimes:
    """How long a training step takes; the session takes some.

    Several, the first one apart, until `limit_s` seconds are gone: batches differ, and so does what
    else the machine is doing. The least would promise up to half as many steps again as there will
    be; the median of a busy moment would rule out what an idle machine can do. One step is all if
    it takes ten times the limit by itself.
    """
    times: list[float] = []
    for i in range(_TIMED_STEPS):
        began = time.perf_counter()
        session.step(INSIDE_THE_PENALTY)
        session.synchronise()
        times.append(time.perf_counter() - began)
        if sum(times) > (limit_s if i else 10 * limit_s):
            break
    return StepTimes(statistics.median(times[1:] or times), min(times))


def time_coding(
    session: Session,
    threads: int | None,
    *,
    verify: bool,
    device: str = "cpu",
    memory: int | None = None,
) -> float:
    """Seconds to encode the corpus and to decode it for the check, experts included.

    The network's part is measured on a small piece.

    device: where the codec was told to work, "auto" included; memory: most bytes of it. Raises
    LimitExceeded if they are too few.
    """
    batches, model = session.batches, session.model
    layout = batches.tokens.layout
    x = batches.gather(batches.sample(2)).to(session.device).symbols
    steps = choose_steps(session.params, session.specs, 0.5)
    rounding = QatRounding(session.specs, steps, calibrate(model, [x]), 0.0)
    network = export(model, rounding, batches.vocabulary)
    device = choose_device(device, network, layout, threads=threads, memory=memory)
    times = coding_times(network, layout, device, threads=threads, memory=memory)
    tokens = batches.tokens
    n, expert_s = tokens.n_symbols, tokens.expert_s
    encode_s, decode_s = (_IN_STEP * n * s for s in (times.encode_s, times.decode_s))
    if expert_s:
        ahead_s = n * times.predict_ahead_s
        together = max(ahead_s, expert_s) if tokens.in_turn else ahead_s + expert_s
        encode_s, decode_s = _BESIDE * together, _BESIDE * (n * times.predict_s + expert_s)
    return _SLOWER * (encode_s + (decode_s if verify else 0.0))
