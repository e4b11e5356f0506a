"""A run of the classifier studies: regularise, prune in rounds, fine-tune, count (4.2, D.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mdlzip.callbacks import OnProgress
from mdlzip.errors import UsageError
from mdlzip.sparsity.base import Method, check_alpha
from mdlzip.sparsity.masks import Masks, apply_masks_, from_nonzero
from mdlzip.sparsity.methods import make_method
from mdlzip.studies.classifiers.datasets import InMemory, Source, Split, hold_out
from mdlzip.studies.classifiers.distillation import Lessons
from mdlzip.studies.classifiers.label_code import best_code, label_bits
from mdlzip.studies.classifiers.networks import count_parameters, make_network
from mdlzip.studies.classifiers.pruning import Bounds, prune
from mdlzip.studies.classifiers.recipes import METHOD_OPTIONS, Recipe
from mdlzip.studies.classifiers.training import (
    Phase,
    Trainer,
    evaluate,
    non_zeros,
    snapshot,
)


@dataclass(frozen=True)
class Problem:
    """Data of a run: what is trained on, what choices are made on, and the test set.

    train: shuffled and augmented; plain: the same images as they are; valid: held out of the
    training data; test: looked at for the results only.
    """

    net: str
    classes: int
    train: Source
    plain: Source
    valid: Source
    test: Source

    def probe(self, recipe: Recipe) -> Source:
        """What TAMADE judges by."""
        source = self.plain if recipe.judge == "train" else self.valid
        if isinstance(source, InMemory) and source.n > recipe.probe:
            return InMemory(Split(source.images[: recipe.probe], source.labels[: recipe.probe]))
        return source


def memory_problem(
    net: str, classes: int, train: Split, test: Split, recipe: Recipe, seed: int, device: str
) -> Problem:
    """The problem with `recipe.held_out` training images, drawn by `seed`, for validation."""
    rest, valid = hold_out(train, recipe.held_out, seed)
    plain = InMemory(rest).to(device)
    return Problem(
        net=net,
        classes=classes,
        train=InMemory(Split(plain.images, plain.labels), recipe.augment),
        plain=plain,
        valid=InMemory(valid).to(device),
        test=InMemory(test).to(device),
    )


@dataclass(frozen=True)
class Job:
    """What to run: the method, its strength in nats an example, the seed, the device.

    reference: validation accuracy (0..1) of the unregularised network of the same seed, None for
    that network itself; teacher: that network, where the recipe's temperature asks for one.
    """

    method: str
    alpha: float
    seed: int
    device: str = "cpu"
    reference: float | None = None
    teacher: nn.Module | None = None


@dataclass(frozen=True)
class Point:
    """A network after a round (0: before pruning), or at the end: non-zeros and accuracies."""

    nnz: int
    rate: float
    valid_accuracy: float
    test_accuracy: float

    def as_json(self) -> dict[str, float]:
        """Accuracies in percent."""
        return {
            "nnz": self.nnz,
            "compression_rate": round(self.rate, 3),
            "valid_accuracy_percent": round(100 * self.valid_accuracy, 4),
            "accuracy_percent": round(100 * self.test_accuracy, 4),
        }


@dataclass
class Result:
    """The finished network, where it ended and how it got there; `figures` is JSON.

    weights: of the network before they were rounded for their code; `model` holds those after it.
    """

    model: nn.Module
    weights: dict[str, Tensor]
    final: Point
    rounds: list[Point] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


class Run:
    """One run; `result` does all of it. Raises UsageError for a bad job before anything starts."""

    def __init__(self, problem: Problem, recipe: Recipe, job: Job, on_progress: OnProgress) -> None:
        check_alpha(job.alpha)
        self.problem, self.recipe, self.job = problem, recipe, job
        self.method = method_for(problem.net, job)
        self.on_progress = on_progress
        self.model = make_network(problem.net, problem.classes, job.seed).to(job.device)
        self.trainer = Trainer(
            self.model, self._lessons(), problem.valid, recipe, self.method, job.seed, on_progress
        )
        self.parameters = count_parameters(self.model)

    def _lessons(self) -> Source:
        """What is trained on: the labels, or what the teacher says."""
        train, teacher = self.problem.train, self.job.teacher
        if not self.recipe.temperature or self.job.method == "none":
            return train
        if teacher is None:
            raise UsageError("a temperature above 0 needs the unregularised network as a teacher")
        return Lessons(train, teacher.to(self.job.device), self.recipe.lesson_shift)

    @property
    def penalised(self) -> bool:
        """Whether there is anything to regularise with."""
        return self.method.name != "none" and self.job.alpha > 0

    def result(self) -> Result:
        """Train, prune, fine-tune, evaluate and code; raises Diverged."""
        self.trainer.fit(self._first_phase())
        points: list[Point] = []
        masks: Masks | None = None
        if self.job.method != "none":
            self._apply_method()
            points, masks = self._rounds()
        self.trainer.fit(self._last_phase(), masks)
        final = self._point()
        result = Result(self.model, snapshot(self.model), final, points)
        result.figures = {**self._training_figures(points), **self._code_figures()}
        return result

    def _first_phase(self) -> Phase:
        recipe = self.recipe
        return Phase(
            "train",
            recipe.epochs,
            recipe.lr,
            cosine=recipe.cosine,
            warmup=recipe.lr_warmup,
            alpha=self.job.alpha if self.penalised else 0.0,
            ramp=recipe.alpha_ramp,
            window=recipe.window,
        )

    def _apply_method(self) -> None:
        """Zero what the method itself has given up: gamma <= 1/2 of PMMP, z = 0 of ADMM."""
        if self.penalised:
            apply_masks_(dict(self.model.named_parameters()), self.method.final_masks())

    def _point(self) -> Point:
        count = self._nnz()
        return Point(
            nnz=count,
            rate=self.parameters / max(1, count),
            valid_accuracy=evaluate(self.model, self.problem.valid).accuracy,
            test_accuracy=evaluate(self.model, self.problem.test).accuracy,
        )

    def _nnz(self) -> int:
        return non_zeros(dict(self.model.named_parameters()))

    def _rounds(self) -> tuple[list[Point], Masks]:
        """Prune and fine-tune until the aim or the end; leave the chosen round in the model."""
        recipe = self.recipe
        aim = self.parameters / recipe.rate
        points = [self._point()]
        reference = self.job.reference
        reference = points[0].valid_accuracy if reference is None else reference
        chosen: dict[str, Tensor] | None = None
        for i in range(recipe.rounds):
            before = self._nnz()
            if i:
                self.trainer.fit(self._regrow_phase())
            masks = self._prune(first=i == 0, before=before, aim=aim)
            self.trainer.fit(self._round_phase(), masks)
            point = self._point()
            points.append(point)
            lost = 100 * (reference - point.valid_accuracy)
            note = f"{point.rate:.1f} times smaller, {lost:+.2f} points lost on validation"
            self.on_progress("prune", i + 1, recipe.rounds, note)
            reached, lost_too_much = point.nnz <= aim, lost > recipe.give_up
            if chosen is None or lost <= recipe.drop or (reached and not lost_too_much):
                chosen = snapshot(self.model)
            if reached or lost_too_much:
                break
        if chosen is not None:
            self.model.load_state_dict(chosen)
        return points, from_nonzero(dict(self.model.named_parameters()))

    def _prune(self, *, first: bool, before: int, aim: float) -> Masks:
        """before: non-zeros that the last round left, the measure of what this one removes."""
        recipe = self.recipe
        most = before if first else int(before * (1 - recipe.least))
        least = int(aim) if first else max(int(aim), int(before * (1 - recipe.most)))
        bounds = Bounds(min(least, before), max(min(most, before), min(least, before)))
        return prune(
            self.model,
            recipe,
            self.problem.plain,
            self.problem.probe(recipe),
            bounds,
            self.trainer.generator,
        )

    def _round_phase(self) -> Phase:
        recipe = self.recipe
        alpha = self._rest_of_alpha(recipe.round_alpha)
        return Phase("rounds", recipe.round_epochs, recipe.round_lr, alpha=alpha)

    def _regrow_phase(self) -> Phase:
        recipe = self.recipe
        alpha = self._rest_of_alpha(recipe.round_alpha)
        return Phase(
            "regrow",
            recipe.regrow_epochs,
            recipe.round_lr,
            cosine=False,
            alpha=alpha,
            live=True,
        )

    def _last_phase(self) -> Phase:
        recipe = self.recipe
        alpha = self._rest_of_alpha(recipe.final_alpha)
        return Phase(
            "fine-tune", recipe.final_epochs, recipe.final_lr, alpha=alpha, average=recipe.average
        )

    def _rest_of_alpha(self, share: float) -> float:
        """Strength after pruning. Methods with variables of their own, which do not know the masks,
        have had their say then.
        """
        return self.job.alpha * share if self.penalised and not self.method.state_dict() else 0.0

    def _training_figures(self, points: list[Point]) -> dict[str, Any]:
        epochs, seconds = self.trainer.epochs, self.trainer.seconds
        return {
            "parameters": self.parameters,
            "rounds": [point.as_json() for point in points],
            "epochs": dict(epochs),
            "seconds": {name: round(s, 3) for name, s in seconds.items()},
            "seconds_per_epoch": round(seconds["train"] / epochs["train"], 4),
        }

    def _code_figures(self) -> dict[str, Any]:
        """Bytes of labels and network (`label_code`); the model then holds what was decoded."""
        if not self.recipe.code:
            return {}
        problem = self.problem
        splits = {"train": (problem.plain, problem.valid), "test": (problem.test,)}
        exact = {n: sum(label_bits(self.model, s) for s in of) / 8 for n, of in splits.items()}
        coded = best_code(self.model, splits["train"], self.on_progress)
        rounded = {n: sum(label_bits(self.model, s) for s in of) / 8 for n, of in splits.items()}
        return {
            "label_bytes": {n: round(v, 1) for n, v in exact.items()},
            "labels": {n: sum(s.n for s in of) for n, of in splits.items()},
            "coded_bytes": len(coded.data),
            "coded_step_share": coded.share,
            "coded_nnz": self._nnz(),
            "coded_label_bytes": {n: round(v, 1) for n, v in rounded.items()},
            "coded_accuracy_percent": round(100 * evaluate(self.model, problem.test).accuracy, 4),
        }


def method_for(net: str, job: Job) -> Method:
    """The method of a job with the options that the network asks for; raises UsageError."""
    if net not in METHOD_OPTIONS:
        raise UsageError(f"unknown net {net!r}; choose one of {', '.join(METHOD_OPTIONS)}")
    options = METHOD_OPTIONS[net].get(job.method, {})
    return make_method(job.method, alpha=job.alpha, **options)


def run_once(problem: Problem, recipe: Recipe, job: Job, on_progress: OnProgress) -> Result:
    """All of one run; reproducible from its arguments on one machine and thread count."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        return Run(problem, recipe, job, on_progress).result()
