"""A run from its first step to the exported network: budget, phases, checkpoints, metrics, stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mdlzip.callbacks import OnProgress
from mdlzip.errors import ExportRefused, Interrupted, NoGain, UsageError
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.reorder import like_next_to_like
from mdlzip.training import figures
from mdlzip.training.budget import Budget
from mdlzip.training.checkpoint import Checkpoints, Progress
from mdlzip.training.metrics import Metrics, prequential_bytes, read_metrics, step_seconds
from mdlzip.training.phases import Phase, begin_pruned, begin_rounded, phase_at, phase_of
from mdlzip.training.qat import export
from mdlzip.training.session import Session, Step

_CHECKPOINT_EVERY_S = 60.0
_FIRST_CHECKPOINT = 10  # steps
_RECORD_EVERY = 10  # steps, and each of the first
_GIVE_UP_FROM = 100  # steps
_FINAL_CHUNKS = 64
_DIVERGED_NATS = 1e3  # per byte; no integer predictor says so much, but what is no number does
# Fraction of the run, and the least share of the loss there that may be left at its end; on prose
# and logs it was 0.8 to 0.9.
_LEAST_SHARE_OF_LOSS = ((0.15, 0.5), (0.4, 0.65))


@dataclass(frozen=True)
class TrainResult:
    """The network, what was measured on the way, and the name of its preset."""

    network: IntegerNetwork
    figures: dict[str, float] = field(default_factory=dict)
    preset: str = ""


class Loop:
    """Drives a session through its phases until its budget is used up.

    on_progress: told of every step. should_stop: asked after every step. check_source: raises if
    the input has changed, asked before every checkpoint. rival_bytes: the size to beat, None for
    any.
    """

    def __init__(
        self,
        session: Session,
        budget: Budget,
        checkpoints: Checkpoints,
        metrics: Metrics,
        *,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
        check_source: Callable[[], None],
        rival_bytes: int | None,
    ) -> None:
        self._session, self._budget = session, budget
        self._checkpoints, self._metrics = checkpoints, metrics
        self._on_progress, self._should_stop = on_progress, should_stop
        self._check_source, self._rival_bytes = check_source, rival_bytes
        self._bits_per_byte = float("nan")  # running mean
        self._last_saved = time.monotonic()

    def run(self) -> TrainResult:
        """Train to the end of the budget and export.

        Raises NoGain as soon as the rival is out of reach, Interrupted after a checkpoint if
        `should_stop` says so, ExportRefused if the trained network breaks a bound of the predictor.
        """
        session, budget = self._session, self._budget
        while budget.fraction < 1.0:
            self._enter_phase()
            self._record(session.step(budget.fraction))
            budget.tick(session.steps_done)
            note = f"{self._bits_per_byte:.3f} bits per byte"
            self._on_progress("train", min(budget.fraction, 1.0), 1.0, note)
            if session.steps_done % _RECORD_EVERY == 0:
                self._give_up_in_time()
            if self._should_stop():
                self._stop()
            self._save_now_and_then()
        self._enter_phase()
        self._save()
        return self._finish()

    def _enter_phase(self) -> None:
        due = phase_at(self._session.config, self._budget.fraction)
        if phase_of(self._session) < Phase.PRUNED <= due:
            self._on_progress("prune", 0, 1, "searching the threshold")
            begin_pruned(self._session, self._metrics.write)
        if phase_of(self._session) < Phase.ROUNDED <= due:
            begin_rounded(self._session, self._metrics.write)

    def _record(self, step: Step) -> None:
        """A line of the log about some steps: the loss of each would be waited for."""
        if step.number % _RECORD_EVERY and step.number >= _RECORD_EVERY:
            return
        bits, old = self._session.bits_per_byte(step), self._bits_per_byte
        self._bits_per_byte = bits if old != old else 0.8 * old + 0.2 * bits
        self._metrics.write(
            "step",
            step=step.number,
            bytes_seen=self._session.bytes_before(step.number),
            fraction=self._budget.fraction,
            alpha=step.alpha,
            bits_per_byte=bits,
            muon_lr=step.rates["muon"],
            elapsed_s=self._budget.elapsed_s,
        )

    def _give_up_in_time(self) -> None:
        """Raise NoGain if not even a loss that falls faster than any seen would beat the rival."""
        budget, rival = self._budget, self._rival_bytes
        share = max((s for f, s in _LEAST_SHARE_OF_LOSS if budget.fraction >= f), default=0.0)
        least = self._bits_per_byte * share * self._session.total_bytes / 8
        if rival is not None and self._session.steps_done >= _GIVE_UP_FROM and least > rival:
            raise NoGain(
                f"training was given up after {budget.elapsed_s:.0f} s: at"
                f" {self._bits_per_byte:.2f} bits per byte the model will not get below"
                f" {rival:,} bytes"
            )

    # --- checkpoints -------------------------------------------------------------------------

    def _save(self) -> bool:
        """Write a checkpoint; whether that went well. It is a convenience, the archive decides."""
        self._check_source()
        budget, steps = self._budget, self._session.steps_done
        progress = Progress(steps, budget.fraction, budget.elapsed_s)
        saved = self._checkpoints.save(progress, self._session.state_dict())
        self._last_saved = time.monotonic()
        return saved

    def _save_now_and_then(self) -> None:
        early = self._session.steps_done == _FIRST_CHECKPOINT  # a full disk is known soon
        if early or time.monotonic() - self._last_saved > _CHECKPOINT_EVERY_S:
            self._save()

    def _stop(self) -> None:
        if self._save():
            raise Interrupted("stopped after a checkpoint; the same command with --resume goes on")
        raise Interrupted("stopped; the checkpoint could not be written")

    # --- the end -----------------------------------------------------------------------------

    def _finish(self) -> TrainResult:
        self._on_progress("quantise", 0, 1, "exporting")
        session = self._session
        session.refit_vectors()
        rounding = session.rounding
        assert rounding is not None
        network = like_next_to_like(export(session.model, rounding, session.vocabulary))
        batches = session.batches
        sample = batches.sample_chunks(_FINAL_CHUNKS)  # whole ones, as they are coded
        qat = figures.float_nats(session.model, batches, sample, beside_experts=False)
        session.stop_rounding()
        plain = figures.float_nats(session.model, batches, sample, beside_experts=False)
        integer = figures.integer_nats(network, batches, batches.chunks_for(_FINAL_CHUNKS))
        out = {
            "float_bits_per_byte": plain / np.log(2),
            "qat_bits_per_byte": qat / np.log(2),
            "integer_bits_per_byte": integer / np.log(2),
            "steps": float(session.steps_done),
            "train_seconds": self._budget.elapsed_s,
            "alpha": session.config.alpha,
        }
        out |= self._from_log()
        self._metrics.write("finish", **out)
        if not integer < _DIVERGED_NATS:
            raise ExportRefused(
                "training diverged; try a smaller learning rate (--set train.muon_lr)"
            )
        measured = {k: float(v) for k, v in out.items()}
        return TrainResult(network, measured, session.preset.name)

    def _from_log(self) -> dict[str, float]:
        """The time of a step, and the online code length if the run has seen the whole file."""
        path, session = self._metrics.path, self._session
        if path is None:
            return {}
        try:
            records = read_metrics(path)
            out = {"step_seconds": step_seconds(records)}
            if session.bytes_before(session.steps_done) >= session.total_bytes:
                out["online_bytes"] = prequential_bytes(records, session.total_bytes)
        except (OSError, UsageError):
            return {}  # a metrics file that another run has begun anew
        return out
