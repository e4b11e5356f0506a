"""How each network of the classifier studies is trained and pruned: settings, no code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mdlzip.errors import UsageError
from mdlzip.sparsity.tamade import MODES
from mdlzip.studies.classifiers.datasets import AUGMENTS

CRITERIA = ("magnitude", "rms", "fisher")
OPTIMISERS = ("adam", "sgd")
MAX_LESSON_SHIFT = 4  # pixels; what a teacher says is kept for (2 shift + 1)^2 places of each image
ONLY_PRUNED = (
    "input_dropout", "rounds", "round_epochs", "regrow_epochs", "round_lr",
    "round_alpha", "mode", "tolerance", "judge", "probe", "criterion", "least", "most", "rate",
    "give_up", "drop", "final_alpha", "temperature", "lesson_shift",
)  # fmt: skip
"""Settings of `Recipe` that do not touch the unregularised network."""


@dataclass(frozen=True)
class Recipe:
    """Settings of a run; a run is reproducible from them, the method, alpha and the seed.

    Training: optimiser "adam" or "sgd" (momentum 0.9); lr: peak rate; batch: images a step;
    epochs: of regularised training at most; lr_warmup: epochs of linear climb; cosine: rate falls
    to 0 over `epochs` (else it is constant); window: of the convergence criterion C.3 on the
    validation objective, epochs, 0 for none; alpha_ramp: share of `epochs` over which alpha climbs
    to its value; label_smoothing; rho: l2 term, gradient 2 rho w; augment: see `InMemory`.

    Pruning rounds: rounds: most; round_epochs: under the mask after each; round_lr: peak rate,
    falls as a cosine in each round; round_alpha: share of alpha that goes on in the rounds;
    regrow_epochs: before each round but the first, at round_lr and without a mask, so that a weight
    that was pruned too early can come back before as many are pruned again, and a few more;
    mode, tolerance: of TAMADE, relative with "loss", a share of the examples with "accuracy";
    judge: "train" or "validation", probe: most images of that set that TAMADE looks at; criterion:
    TAMADE thresholds "magnitude", "rms" (in units of the tensor's rms) or "fisher"
    (|theta| sqrt(F), F the diagonal of the Fisher information, as Optimal Brain Damage);
    least, most: bounds on the share of the survivors that a later round removes (the first
    round is TAMADE's alone); rate: the compression rate that is wanted, where pruning stops;
    give_up: the rounds end when validation accuracy is this far below the reference, points.

    Choice and end: the round that reaches `rate` is taken, unless it had to be given up; if none
    does, the sparsest whose validation accuracy is at most `drop` points below the reference.
    final_epochs, final_lr: fine-tuning of that network, as a cosine; final_alpha: share of alpha
    that goes on in it (0: relaxed, as in the paper; without any the few weights that are left may
    learn the training images by heart); average: share of its steps, from the end, whose weights
    are averaged (0: none; kept only if that does not raise validation loss).

    temperature: if above 0, a pruned network learns, in all phases, what the unregularised one of
    the same seed predicts at this temperature, in place of the labels (`distillation`);
    lesson_shift: pixels by which images are moved at most, either way.

    held_out: validation images, taken from the training data; code: count the bytes of labels and
    network as well (`label_code`).
    """

    optimiser: str = "adam"
    lr: float = 1e-3
    batch: int = 128
    epochs: int = 60
    lr_warmup: float = 0.0
    cosine: bool = False
    window: int = 10
    alpha_ramp: float = 0.3
    label_smoothing: float = 0.0
    rho: float = 0.0
    input_dropout: float = 0.0
    augment: str = "none"
    rounds: int = 24
    round_epochs: int = 6
    regrow_epochs: int = 0
    round_lr: float = 1e-3
    round_alpha: float = 1.0
    mode: str = "loss"
    tolerance: float = 0.02
    judge: str = "validation"
    probe: int = 10_000
    criterion: str = "magnitude"
    least: float = 0.04
    most: float = 0.12
    rate: float = math.inf
    give_up: float = 0.8
    drop: float = 0.15
    final_epochs: int = 80
    final_lr: float = 1e-3
    final_alpha: float = 0.0
    average: float = 0.25
    temperature: float = 0.0
    lesson_shift: int = 0
    held_out: int = 5_000
    code: bool = True

    def __post_init__(self) -> None:
        """Validate; raises UsageError."""
        for name, choices in (
            ("optimiser", OPTIMISERS),
            ("augment", AUGMENTS),
            ("mode", MODES),
            ("judge", ("train", "validation")),
            ("criterion", CRITERIA),
        ):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} {getattr(self, name)!r}: choose {', '.join(choices)}")
        for name in ("batch", "probe", "held_out"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)} must be at least 1")
        for name in ("lr", "round_lr", "final_lr", "rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} = {getattr(self, name)} must be above 0")
        for name in ("epochs", "rounds", "round_epochs", "regrow_epochs", "final_epochs",
                     "lr_warmup", "rho", "round_alpha", "final_alpha", "tolerance", "drop",
                     "give_up", "window", "temperature", "lesson_shift"):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} = {getattr(self, name)} must be at least 0")
        for name in (
            "alpha_ramp", "label_smoothing", "input_dropout", "least", "most", "average",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)} is outside 0..1")
        if self.window and (self.window < 4 or self.window % 2):
            raise UsageError(f"window = {self.window} must be 0 or an even number from 4")
        if self.lesson_shift > MAX_LESSON_SHIFT:
            raise UsageError(
                f"lesson_shift = {self.lesson_shift} exceeds {MAX_LESSON_SHIFT} pixels"
            )
        if self.lesson_shift and not self.temperature:
            raise UsageError("lesson_shift has no effect without a temperature above 0")
        if self.least > self.most:
            raise UsageError(f"least = {self.least} exceeds most = {self.most}")

    def of_unregularised(self) -> Recipe:
        """The same for the network that is not pruned: what has no effect on it is as by default.

        So a study with other rounds need not train that network again.
        """
        default = Recipe()
        return replace(self, **{name: getattr(default, name) for name in ONLY_PRUNED})

    def scaled(self, epochs: int) -> Recipe:
        """The same with `epochs` of regularised training and the other phases in proportion."""
        if epochs < 1:
            raise UsageError(f"epochs = {epochs} must be at least 1")
        share = epochs / max(1, self.epochs)

        def part(n: int) -> int:
            return max(1, round(n * share)) if n else 0

        return replace(
            self,
            epochs=epochs,
            rounds=part(self.rounds),
            round_epochs=part(self.round_epochs),
            regrow_epochs=part(self.regrow_epochs),
            final_epochs=part(self.final_epochs),
            lr_warmup=self.lr_warmup * share,
        )

    def laid_over(self, changes: Mapping[str, str]) -> Recipe:
        """With fields set from text, such as {"rate": "92"}; raises UsageError."""
        kinds = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        values: dict[str, Any] = {}
        for name, text in changes.items():
            if name not in kinds:
                raise UsageError(f"unknown setting {name!r}; choose one of {', '.join(kinds)}")
            try:
                values[name] = _parsed(text, kinds[name])
            except ValueError:
                raise UsageError(f"{name} = {text!r} is not a {kinds[name].__name__}") from None
        return replace(self, **values)


def _parsed(text: str, kind: type) -> object:
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    return kind(text)


RECIPES: dict[str, Recipe] = {
    "lenet-300-100": Recipe(
        input_dropout=0.2, rounds=40, round_epochs=4, regrow_epochs=4, least=0.05, most=0.08,
        rate=95.0, final_alpha=1.0,
    ),
    "lenet-5-caffe": Recipe(
        epochs=24, window=6, rounds=40, round_epochs=3, regrow_epochs=3, least=0.08, most=0.15,
        rate=345.0, probe=5_000, final_epochs=30, final_alpha=0.3, temperature=4.0, lesson_shift=1,
    ),
    "vgg-16-512": Recipe(
        epochs=160, window=20, augment="crop-flip", rounds=8, round_epochs=5, final_epochs=40,
        average=0.0, probe=5_000, most=0.3, rate=84.0, drop=0.2,
    ),
    "resnet-50": Recipe(
        optimiser="sgd", lr=0.09, epochs=90, lr_warmup=5, cosine=True, window=0,
        label_smoothing=0.1, rho=8e-6, rounds=1, round_epochs=0, final_epochs=10, final_lr=9e-3,
        round_lr=9e-3, average=0.0, held_out=10_000, drop=100.0, give_up=100.0,
        code=False,
    ),
}  # fmt: skip

# Losses are nats an example: a weight of 0.03 is worth 1e-5 at u of about 0.01, and u has to climb
# by that much in thousands of steps, not by a learning rate in each (then everything is pruned).
_GENTLY = {"u": 0.01, "u_multiplier": 0.001}
_LIKE_ITS_SGD = {"p": 1.0, "u": 2.0, "update": "sgd"}
METHOD_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "lenet-300-100": {
        "drr": {"beta": 5}, "pmmp": {"p": 0.5, **_GENTLY}, "fpp": {"p": 0.5, **_GENTLY},
    },
    "lenet-5-caffe": {
        "drr": {"beta": 25}, "pmmp": {"p": 0.5, **_GENTLY}, "fpp": {"p": 0.5, **_GENTLY},
    },
    "vgg-16-512": {
        "drr": {"beta": 5}, "pmmp": {"p": 1.0, **_GENTLY}, "fpp": {"p": 1.0, **_GENTLY},
    },
    "resnet-50": {"drr": {"beta": 5}, "pmmp": _LIKE_ITS_SGD, "fpp": _LIKE_ITS_SGD},
}  # fmt: skip
"""Options of the methods by network. beta, and p but for LeNet-300-100, as in C.2.1 and C.2.3."""

_COMMON = {"none": (0.0,), "pmmp": (1e-5,), "fpp": (1e-5,), "admm": (1e-6,)}
ALPHAS: dict[str, dict[str, tuple[float, ...]]] = {
    "lenet-300-100": {
        **_COMMON, "rl1": (1e-4,), "drr": (3e-5,), "drr-o": (3e-5,),
    },
    "lenet-5-caffe": {
        **_COMMON, "rl1": (4e-4,), "drr": (1e-4,), "drr-o": (1e-4,),
    },
    "vgg-16-512": {**_COMMON, "rl1": (5e-6, 1e-5), "drr": (1e-6, 3e-6), "drr-o": (1e-6, 3e-6)},
    "resnet-50": {
        **_COMMON, "rl1": (1e-6, 4e-6), "drr": (1e-7, 4e-7), "drr-o": (1e-7, 4e-7),
        "pmmp": (5e-6,), "fpp": (5e-6,),
    },
}  # fmt: skip
"""Strengths that a study tries by default, in nats an example per unit of the penalty."""
