"""One batched training of the teacher-student study: penalty, pruning, fine-tuning, code length.

Phases (appendix C.2.1): regularised training, pruning, fine-tuning. All students of a batch take
the same number of steps: the paper stops each run by its own convergence criterion, which would
leave a batch half idle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdlzip.callbacks import OnProgress
from mdlzip.errors import UsageError
from mdlzip.sparsity.base import Method, NoMethod
from mdlzip.sparsity.masks import MaskHold, Masks, apply_masks_, from_nonzero
from mdlzip.sparsity.methods import make_method
from mdlzip.sparsity.random_gradient import random_gradient_prune
from mdlzip.sparsity.schedule import AlphaSchedule
from mdlzip.studies.code_length import best_sigma, float32_spacing, regression_bits
from mdlzip.studies.students.networks import (
    TEACHER_RMS,
    Students,
    Teacher,
    draw_samples,
    gaussian_loss,
)

FINE_TUNING = 0.4  # steps after pruning, as a share of those before it
LEARNING_RATE = 1e-2
FINE_TUNING_RATE = 5e-3
WARMUP = 0.15  # share of the regularised phase over which alpha climbs
FULL_BATCH = 300  # more training samples than that are taken in minibatches
MINIBATCH = 256
TOLERANCE = 0.02  # of TAMADE, relative, in the mean squared error; the paper's code has 0.02
PROBES = 20
PROBE_ROWS = 64  # inputs per draw of random gradient pruning
LEAST_RESIDUAL = 1e-9  # keeps the code length of a perfectly fitted set finite
BYTES_PER_WEIGHT = 4
BYTES_OF_SIGMAS = 8


@dataclass(frozen=True)
class Setting:
    """n: training samples; noise: variance sigma^2 of the targets; loss: "mse" or "gauss"."""

    n: int
    noise: float
    loss: str


@dataclass(frozen=True)
class Batch:
    """Data of S students: float32 tensors [S, n, 2] and [S, n, 1] of either set."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def load_batch(setting: Setting, seeds: Sequence[int]) -> Batch:
    """The data of one student per entry of `seeds`; equal seeds get equal data."""
    teacher, n = Teacher(), setting.n
    drawn = {seed: draw_samples(teacher, seed, n, setting.noise) for seed in set(seeds)}
    x = torch.from_numpy(np.stack([drawn[seed][0] for seed in seeds]))
    y = torch.from_numpy(np.stack([drawn[seed][1] for seed in seeds]))
    return Batch(x[:, :n], y[:, :n], x[:, n:], y[:, n:])


def options_of(method: str, loss: str) -> dict[str, float]:
    """The best hyperparameters of appendix C.2.1: beta of DRR, (p, u) of PMMP."""
    if method == "drr":
        return {"beta": 5.0}
    if method == "pmmp":
        return {"p": 1.0 if loss == "gauss" else 0.0, "u": 1.0}
    return {}


def train_students(
    setting: Setting,
    method: str,
    alphas: Sequence[float],
    seeds: Sequence[int],
    steps: int,
    on_progress: OnProgress,
) -> list[dict[str, Any]]:
    """Train, prune and fine-tune a student per (alpha, seed), alphas outermost; their results.

    steps: those with the penalty; `FINE_TUNING` times as many follow without it. With the method
    "none" all of them are one unregularised training, and nothing is pruned (the UP of Table 5).
    Raises UsageError for no alphas, no seeds, or fewer than one step.
    """
    if not (alphas and seeds and steps >= 1):
        raise UsageError("a batch of students needs an alpha, a seed and a step at least")
    pairs = [(alpha, seed) for alpha in alphas for seed in seeds]
    batch = load_batch(setting, [seed for _, seed in pairs])
    sigma = TEACHER_RMS if setting.loss == "gauss" else None
    students = Students([seed for _, seed in pairs], sigma=sigma)
    run = _Training(students, batch, on_progress)
    l0 = make_method(method, **options_of(method, setting.loss))
    l0.attach(students.regularised())
    strengths = [float(alpha) for alpha, _ in pairs]
    alpha = torch.tensor(strengths, dtype=torch.float32).reshape(-1, 1, 1)
    tuning = max(1, round(FINE_TUNING * steps))
    if isinstance(l0, NoMethod):
        run.train("train", steps + tuning, LEARNING_RATE, l0, alpha)
    else:
        run.train("train", steps, LEARNING_RATE, l0, alpha)
        masks = prune_students(students, batch, l0)
        run.train("fine-tune", tuning, FINE_TUNING_RATE, masks=masks)
    return [
        {"alpha": alpha, "seed": seed, **result}
        for (alpha, seed), result in zip(pairs, measure(students, batch), strict=True)
    ]


class _Training:
    """Steps of Adam on all students of a batch."""

    def __init__(self, students: Students, batch: Batch, on_progress: OnProgress) -> None:
        self.students, self.batch, self.on_progress = students, batch, on_progress
        self._order = torch.Generator().manual_seed(0)
        self._queue = torch.empty(0, dtype=torch.int64)

    def train(
        self,
        phase: str,
        steps: int,
        rate: float,
        method: Method | None = None,
        alpha: Tensor | None = None,
        masks: Masks | None = None,
    ) -> None:
        """Take `steps` steps, the rate falling to 0 along a cosine; under `masks` if given."""
        params = self.students.regularised()
        optimiser = torch.optim.Adam(self.students.parameters(), lr=rate, fused=True)
        hold = MaskHold(params, masks, optimiser) if masks is not None else None
        climb = AlphaSchedule(1.0, warmup=WARMUP)
        for step in range(steps):
            now = rate * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            optimiser.param_groups[0]["lr"] = now
            optimiser.zero_grad()
            self._loss().backward()
            if method is not None and alpha is not None:
                strength = alpha * climb(step / steps)
                method.add_to_gradients(strength)
                optimiser.step()
                method.advance(strength, now)
            else:
                optimiser.step()
            self.students.hold_sigma_()
            if step % 50 == 0:
                self.on_progress(phase, step, steps, "")
        self.on_progress(phase, steps, steps, "")
        if hold is not None:
            hold.release()

    def _loss(self) -> Tensor:
        """Sum over students of each one's loss: its gradient is every student's own."""
        x, y = self._samples()
        residuals = y - self.students(x)
        if self.students.log_sigma is not None:
            return gaussian_loss(residuals, self.students.log_sigma).sum()
        # Not divided by the variance of y: PMMP's multipliers start at 1, the scale of the plain
        # error; for the error in units of the variance they are too strong, and nothing survives.
        return residuals.square().mean(dim=(1, 2)).sum()

    def _samples(self) -> tuple[Tensor, Tensor]:
        """All samples, or the next minibatch; every student takes the same places of its data."""
        n = self.batch.x.shape[1]
        if n <= FULL_BATCH:
            return self.batch.x, self.batch.y
        if len(self._queue) < MINIBATCH:
            self._queue = torch.randperm(n, generator=self._order)
        chosen, self._queue = self._queue[:MINIBATCH], self._queue[MINIBATCH:]
        return self.batch.x[:, chosen], self.batch.y[:, chosen]


@torch.no_grad()
def squared_errors(students: Students, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each student, [S]."""
    return (y - students(x)).square().mean(dim=(1, 2))


def prune_students(students: Students, batch: Batch, method: Method) -> Masks:
    """The method's own mask, TAMADE, random gradient pruning; the masks of what is left."""
    params = students.regularised()
    apply_masks_(params, method.final_masks())
    cut_students(students, lambda: squared_errors(students, batch.x, batch.y), TOLERANCE)
    source = torch.Generator().manual_seed(0)
    shape = (len(students), PROBE_ROWS, batch.x.shape[2])
    # ||y - f(z)||^2 is a sum over students: one backward pass judges the weights of all of them.
    random_gradient_prune(
        students,
        lambda: students(torch.randn(shape, generator=source)),
        exclude=[] if students.log_sigma is None else ["log_sigma"],
        generator=source,
    )
    return from_nonzero(params)


@torch.no_grad()
def cut_students(students: Students, loss_fn: Callable[[], Tensor], tolerance: float) -> Tensor:
    """TAMADE (Alg. 1) for every student at once: `PROBES` bisections, a threshold each, [S].

    As `mdlzip.sparsity.tamade.find_threshold`, student by student, with one probe more: the
    threshold that leaves nothing is tried first, since the empty model is a candidate here.
    loss_fn: loss of each student, [S]. Accepted: loss <= (1 + tolerance) * loss before.
    """
    params = list(students.regularised().values())
    kept = [param.clone() for param in params]
    limit = loss_fn() * (1 + tolerance)

    def cut(threshold: Tensor) -> None:
        for param, original in zip(params, kept, strict=True):
            param.copy_(original * (original.abs() > threshold[:, None, None]))

    high = torch.stack([original.abs().amax(dim=(1, 2)) for original in kept]).amax(dim=0)
    cut(high)
    low = torch.where(loss_fn() <= limit, high, torch.zeros_like(high))
    for _ in range(PROBES):
        middle = (low + high) / 2
        cut(middle)
        accepted = loss_fn() <= limit
        low, high = torch.where(accepted, middle, low), torch.where(accepted, high, middle)
    cut(low)
    return low


@torch.no_grad()
def measure(students: Students, batch: Batch) -> list[dict[str, Any]]:
    """Per student: nnz, model_bytes, both mean squared errors, sigma, bytes of both definitions."""
    counts, sigma = students.nnz(), students.log_sigma
    results = []
    errors = [
        (y.double() - students(x).double()).numpy()[:, :, 0]
        for x, y in ((batch.x, batch.y), (batch.test_x, batch.test_y))
    ]
    targets = [y.numpy()[:, :, 0] for y in (batch.y, batch.test_y)]
    for s in range(len(students)):
        own_errors, own_targets = [e[s] for e in errors], [t[s] for t in targets]
        nnz = int(counts[s])
        results.append(
            {
                "nnz": nnz,
                "model_bytes": BYTES_PER_WEIGHT * nnz,
                "train_mse": float(np.square(own_errors[0]).mean()),
                "test_mse": float(np.square(own_errors[1]).mean()),
                "sigma": None if sigma is None else float(sigma[s].exp()),
                **description_bytes(nnz, own_targets, own_errors),
            }
        )
    return results


def description_bytes(
    nnz: int, targets: Sequence[np.ndarray], errors: Sequence[np.ndarray]
) -> dict[str, float]:
    """Model plus data in bytes, by the definitions "uniform" and "float32" of the study.

    targets, errors: of each set (training, test), which is coded with a sigma of its own.
    Keys uniform_bytes, float32_bytes, and cell, the width A of the uniform cells.
    """
    cell = float(float32_spacing(np.array([max(np.abs(t).max() for t in targets)]))[0])
    model = BYTES_PER_WEIGHT * nnz + BYTES_OF_SIGMAS
    totals = {"cell": cell}
    for name, width in (("uniform", cell), ("float32", None)):
        bits = sum(
            regression_bits(t, e, max(best_sigma(e), LEAST_RESIDUAL), cell=width)
            for t, e in zip(targets, errors, strict=True)
        )
        totals[f"{name}_bytes"] = model + bits / 8
    return totals
