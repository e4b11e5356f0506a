"""Training and pruning steps of a classifier; `run` puts them in order."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdlzip.callbacks import OnProgress
from mdlzip.errors import MdlzipError
from mdlzip.sparsity.base import Method
from mdlzip.sparsity.convergence import has_converged
from mdlzip.sparsity.masks import MaskHold, Masks
from mdlzip.sparsity.schedule import AlphaSchedule
from mdlzip.studies.classifiers.compact import Compaction, can_shrink
from mdlzip.studies.classifiers.datasets import Source
from mdlzip.studies.classifiers.distillation import distillation_loss
from mdlzip.studies.classifiers.networks import prunable
from mdlzip.studies.classifiers.recipes import Recipe

MOMENTUM = 0.9
EVALUATION_BATCH = 500


class Diverged(MdlzipError):
    """The loss of a run is no number any more."""


class Score(NamedTuple):
    """Mean cross-entropy, nats an example, and the share of examples that are right."""

    loss: float
    accuracy: float


@torch.no_grad()
def evaluate(model: nn.Module, source: Source) -> Score:
    """Score of the model on all of `source`, in evaluation mode; the mode is put back."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    loss, right = 0.0, 0
    for images, labels in source.batches(EVALUATION_BATCH):
        logits = model(images.to(device)).float()
        target = labels.to(device)
        loss += float(F.cross_entropy(logits, target, reduction="sum"))
        right += int((logits.argmax(1) == target).sum())
    model.train(training)
    return Score(loss / source.n, right / source.n)


@dataclass(frozen=True)
class Phase:
    """A stretch of training: its name for the reader, length, rates and penalty.

    lr: peak rate; cosine: it falls to 0; warmup: epochs of linear climb; alpha, ramp: strength of
    the penalty and share of the phase over which it climbs; window: of the convergence
    criterion, 0 for none; average: share of the steps, from the end, that are averaged; live: only
    live units are trained even without masks. Dead ones behind a ReLU have no gradient, so this
    changes nothing but the time.
    """

    name: str
    epochs: int
    lr: float
    cosine: bool = True
    warmup: float = 0.0
    alpha: float = 0.0
    ramp: float = 0.0
    window: int = 0
    average: float = 0.0
    live: bool = False

    def rate(self, epoch: float) -> float:
        """Learning rate after `epoch` epochs (a fraction within one counts)."""
        climb = min(1.0, (epoch + 1e-3) / self.warmup) if self.warmup else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * epoch / self.epochs)) if self.cosine else 1.0
        return self.lr * climb * fall


class _Average:
    """The mean of the weights over the steps for which `add` was called."""

    def __init__(self, params: list[Tensor]) -> None:
        self.params, self.count = params, 0
        self.means = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def add(self) -> None:
        self.count += 1
        torch._foreach_lerp_(self.means, self.params, 1 / self.count)

    @torch.no_grad()
    def keep_better(self, model: nn.Module, valid: Source) -> None:
        """Put the mean into the model unless the last weights do better on `valid`."""
        if not self.count:
            return
        last, before = [p.detach().clone() for p in self.params], evaluate(model, valid)
        torch._foreach_copy_(self.params, self.means)
        if not evaluate(model, valid).loss <= before.loss:
            torch._foreach_copy_(self.params, last)


class Trainer:
    """A model with its data, its method and its random numbers, through one phase after another.

    seconds, epochs: what `fit` took, by the name of the phase.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Source,
        valid: Source,
        recipe: Recipe,
        method: Method,
        seed: int,
        on_progress: OnProgress,
    ) -> None:
        self.model, self.train, self.valid = model, train, valid
        self.recipe, self.method, self.on_progress = recipe, method, on_progress
        self.generator = torch.Generator().manual_seed(seed)
        self.device = next(model.parameters()).device
        self.seconds: dict[str, float] = {}
        self.epochs: dict[str, int] = {}

    def fit(self, phase: Phase, masks: Masks | None = None) -> None:
        """Train through `phase`, the weights outside `masks` held at 0; raises Diverged.

        A pruned chain of layers is trained as its small copy without the dead units, if these are
        held by masks or by `phase.live`.
        """
        if not phase.epochs:
            return
        began = time.monotonic()
        if (masks is not None or phase.live) and can_shrink(self.model):
            compaction = Compaction(self.model)
            small = compaction.shrink(self.model)
            done = self._fit(small, phase, None if masks is None else compaction.take(masks))
            compaction.put(small, self.model)
        else:
            done = self._fit(self.model, phase, masks)
        self.epochs[phase.name] = self.epochs.get(phase.name, 0) + done
        self.seconds[phase.name] = self.seconds.get(phase.name, 0.0) + time.monotonic() - began

    def _optimiser(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        if self.recipe.optimiser == "sgd":
            return torch.optim.SGD(model.parameters(), lr, momentum=MOMENTUM)
        return torch.optim.Adam(model.parameters(), lr)

    def _fit(self, model: nn.Module, phase: Phase, masks: Masks | None) -> int:
        """Epochs that it took."""
        _channels_last(model)
        optimiser = self._optimiser(model, phase.lr)
        if phase.alpha > 0:
            self.method.attach(prunable(model))
        schedule = AlphaSchedule(phase.alpha, warmup=phase.ramp)
        average = _Average(list(model.parameters()))
        history: list[float] = []
        params = dict(model.named_parameters())
        held = MaskHold(params, masks, optimiser) if masks is not None else nullcontext()
        model.train()
        with held:
            for epoch in range(phase.epochs):
                loss = self._epoch(model, optimiser, phase, epoch, schedule, average)
                if not math.isfinite(loss):
                    raise Diverged(
                        f"training diverged at alpha {phase.alpha:g}: the loss is {loss}"
                    )
                self.on_progress(phase.name, epoch + 1, phase.epochs, f"loss {loss:.4f}")
                if phase.window and (epoch + 1) / phase.epochs >= phase.ramp:
                    history.append(self._objective(model, phase.alpha))
                    if has_converged(history, phase.window):
                        break
        average.keep_better(model, self.valid)
        return epoch + 1

    def _objective(self, model: nn.Module, alpha: float) -> float:
        """Validation loss plus the penalty."""
        with torch.no_grad():
            penalty = float(self.method.objective(alpha)) if alpha > 0 else 0.0
        return evaluate(model, self.valid).loss + penalty

    def _epoch(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        phase: Phase,
        epoch: int,
        schedule: AlphaSchedule,
        average: _Average,
    ) -> float:
        """One pass over the training data; mean loss in nats."""
        recipe = self.recipe
        steps = -(-self.train.n // recipe.batch)
        weights: list[Tensor] = list(prunable(model).values())
        total = torch.zeros((), device=self.device)
        for i, (images, labels) in enumerate(self.train.batches(recipe.batch, self.generator)):
            at = epoch + i / steps
            rate, alpha = phase.rate(at), schedule(at / phase.epochs)
            for group in optimiser.param_groups:
                group["lr"] = rate
            logits = model(self._dropped(images).to(self.device, non_blocking=True))
            target = labels.to(self.device, non_blocking=True)
            loss = self._loss(logits, target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self._penalise(weights, alpha)
            optimiser.step()
            if alpha > 0:
                self.method.advance(alpha, rate)
            if phase.average and at >= (1 - phase.average) * phase.epochs:
                average.add()
            total += loss.detach() * len(labels)
        return float(total) / self.train.n

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats an example; target: labels int64 [b], or a teacher's logits [b, classes]."""
        if target.is_floating_point():
            return distillation_loss(logits, target, self.recipe.temperature)
        return F.cross_entropy(logits, target, label_smoothing=self.recipe.label_smoothing)

    def _dropped(self, images: Tensor) -> Tensor:
        """The images with the recipe's share of their numbers zeroed; the unregularised as is."""
        share = self.recipe.input_dropout
        if not share or self.method.name == "none":
            return images
        keep = torch.rand(images.shape, generator=self.generator) >= share
        return images * keep.to(images.device) / (1 - share)

    @torch.no_grad()
    def _penalise(self, weights: list[Tensor], alpha: float) -> None:
        """Add the gradients of the method and of the l2 term rho sum w^2."""
        if alpha > 0:
            self.method.add_to_gradients(alpha)
        if self.recipe.rho:
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in weights]
            torch._foreach_add_(grads, weights, alpha=2 * self.recipe.rho)


@torch.no_grad()
def _channels_last(model: nn.Module) -> None:
    """Lay the kernels of convolutions out so that these run up to 1.7 times as fast on a CPU."""
    for param in model.parameters():
        if param.ndim == 4 and param.device.type == "cpu":
            # Not `contiguous`: kernels of one channel count as laid out both ways and would stay.
            laid_out = torch.empty_like(param, memory_format=torch.channels_last)
            param.data = laid_out.copy_(param)


def fisher_diagonal(
    model: nn.Module,
    source: Source,
    batch: int,
    generator: torch.Generator,
    most: int = 20_000,
) -> dict[str, Tensor]:
    """Diagonal of the Fisher information an example, for every parameter, by its name.

    The labels are drawn from the model itself, so that gradients of single examples are independent
    with mean 0 and the square of a batch's sum estimates the sum of their squares.
    most: images of `source` that are looked at.
    """
    names, params = zip(*model.named_parameters(), strict=True)
    sums = [torch.zeros_like(p) for p in params]
    training, seen = model.training, 0
    model.eval()
    for images, _ in source.batches(batch):
        logits = model(images.to(sums[0].device)).float()
        odds = torch.rand(logits.shape, generator=generator).to(logits.device)
        gumbel = -torch.log(-torch.log(odds.clamp(1e-12, 1 - 1e-7)))
        drawn = (logits.detach() + gumbel).argmax(1)
        loss = F.cross_entropy(logits, drawn, reduction="sum")
        for total, grad in zip(sums, torch.autograd.grad(loss, params), strict=True):
            total.addcmul_(grad, grad)
        seen += len(images)
        if seen >= most:
            break
    model.train(training)
    return {name: total / seen for name, total in zip(names, sums, strict=True)}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the model's parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def non_zeros(named: Mapping[str, Tensor]) -> int:
    """Number of entries that are not zero."""
    return sum(int(torch.count_nonzero(tensor)) for tensor in named.values())
