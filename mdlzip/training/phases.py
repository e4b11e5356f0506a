"""The three phases of a run: dense under the penalty, pruned, rounded.

Dense: until `prune_at` of the run; every weight may be other than zero, and the l0 method drives
many of them there. Pruned: until `qat_at`; which weights are zero is fixed, the others recover.
Rounded: to the end; the network sees the rounding of its weights and activations.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from mdlzip.config import TrainConfig
from mdlzip.sparsity.base import NoMethod
from mdlzip.sparsity.masks import density, from_nonzero
from mdlzip.training import figures
from mdlzip.training.pruning import prune
from mdlzip.training.qat import (
    calibrate,
    choose_steps,
    choose_stream_shift,
    halve_unbearable,
    measure_curvature,
    price_steps,
)
from mdlzip.training.session import Session

Record = Callable[..., None]
"""Takes the name of an event and its figures by keyword, as `Metrics.write` does."""
# Pieces of the file that a decision is made on.
_PRUNING_PIECES, _CURVATURE_PIECES, _CALIBRATION_PIECES = 48, 24, 16


class Phase(IntEnum):
    """In the order of a run."""

    DENSE = 0
    PRUNED = 1
    ROUNDED = 2


def phase_at(config: TrainConfig, fraction: float) -> Phase:
    """The phase that a run is in when `fraction` of it is done; the last one at 1."""
    if fraction >= config.qat_at:
        return Phase.ROUNDED
    return Phase.PRUNED if fraction >= config.prune_at else Phase.DENSE


def phase_of(session: Session) -> Phase:
    """The phase that a session is in."""
    if session.rounding is not None:
        return Phase.ROUNDED
    return Phase.PRUNED if session.pruned else Phase.DENSE


def begin_pruned(session: Session, record: Record) -> None:
    """Prune, unless there is no method to prune by; the masks are fixed from here on."""
    prunable = session.method.named()
    masks = {}
    if not isinstance(session.method, NoMethod):
        prune(
            session.model,
            session.method,
            session.batches,
            session.sample(_PRUNING_PIECES),
            session.config.tolerance,
            session.steps_done,
        )
        masks = from_nonzero(prunable)
    session.fix_masks(masks)
    record("prune", step=session.steps_done, density=density(prunable))


def begin_rounded(session: Session, record: Record) -> None:
    """Choose the steps of the codes and the exponents of the sites; from here on they are seen."""
    sample = [batch.symbols for batch in session.sample(_CALIBRATION_PIECES)]
    steps = choose_steps(session.params, session.specs, _wanted_steps(session, record))
    exponents = calibrate(session.model, sample)
    shift = choose_stream_shift(session.model, sample)
    session.round_by(steps, exponents, shift)
    record("quantise", step=session.steps_done, stream_shift=shift, **exponents)


def _wanted_steps(session: Session, record: Record) -> float | dict[str, float]:
    """One step in root mean squares if the user set it, else from what each tensor bears."""
    c, params, n_bytes = session.config, session.params, session.total_bytes
    if c.step_rms:
        return c.step_rms
    sample = session.sample(_CURVATURE_PIECES)

    def loss() -> float:
        return figures.float_nats(session.model, session.batches, sample)

    matrices = {n: p for n, p in params.items() if session.specs[n].is_matrix}
    curvature = measure_curvature(matrices, loss)
    wanted = price_steps(params, curvature, n_bytes, c.coarseness)
    wanted = halve_unbearable(params, wanted, loss, n_bytes, c.coarseness)
    record("steps", **wanted)
    return wanted
