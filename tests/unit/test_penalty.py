"""Every l0 method trains the transformer, prunes it, and resumes to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mdlzip.codec.options import CompressOptions
from mdlzip.config import METHOD_NAMES, TrainConfig
from mdlzip.errors import Interrupted, UsageError
from mdlzip.sparsity.drr import SmoothL0
from mdlzip.sparsity.methods import METHODS
from mdlzip.symbols.survey import present_in
from mdlzip.training.metrics import read_metrics
from mdlzip.training.penalty import make_penalty, price_weights
from tests.unit.test_training import OPTIONS, TEXT, codes, run

PMMP_FIRMLY = "u=1,rate=30"  # 40 steps are few: let gamma arrive


def options(method: str, *more: str) -> CompressOptions:
    return replace(OPTIONS, method=method, overrides=(*OPTIONS.overrides, *more))


def kept(folder: Path, chosen: CompressOptions) -> float:
    """Share of the weights that pruning leaves; the rows of absent symbols count as gone."""
    assert run(folder, chosen).figures["integer_bits_per_byte"] < 6.0
    (record,) = (r for r in read_metrics(folder / "metrics.jsonl") if r["event"] == "prune")
    return float(record["density"])


def test_names_are_those_of_the_classes() -> None:
    assert tuple(METHODS) == METHOD_NAMES


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_trains_and_prunes(method: str, tmp_path: Path) -> None:
    extra = {
        "pmmp": ("train.alpha=0.002", f"train.method_options='{PMMP_FIRMLY}'"),
        "fpp": ("train.alpha=0.002", f"train.method_options='{PMMP_FIRMLY}'"),
        "admm": ("train.alpha=0.002", "train.method_options='rho=1.0,every=5'"),
    }.get(method, ())
    share, all_of_them = (
        kept(tmp_path, options(method, *extra)),
        kept(tmp_path / "none", options("none")),
    )
    assert share == all_of_them if method == "none" else share < 0.9 * all_of_them


def test_without_a_method_nothing_is_pruned(tmp_path: Path) -> None:
    present = int(present_in(TEXT.tobytes()).sum())
    width, hidden = 16, 32
    inside = 4 * width * width + 2 * width * hidden
    rows = 257 + 257  # of embedding and head; one row more than bytes for start and for trust
    alive = inside + (2 * present + 2) * width
    share = kept(tmp_path, options("none", "train.vocabulary=0"))
    assert share == pytest.approx(alive / (inside + rows * width), abs=1e-3)


@pytest.mark.parametrize("method", ["fpp", "admm"])
def test_own_variables_are_in_the_checkpoint(method: str, tmp_path: Path) -> None:
    chosen = options(method, "train.alpha=0.002")
    whole = run(tmp_path / "whole", chosen)
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", chosen, stop=lambda: next(calls) == 17)
    assert codes(run(tmp_path / "cut", replace(chosen, resume=True))) == codes(whole)


def test_options_reach_the_method() -> None:
    method = make_penalty(
        TrainConfig(method="drr", method_options="beta=25,relaxation=student,relative=true")
    )
    assert isinstance(method, SmoothL0) and method.beta == 25.0 and method.relative
    assert method.relaxation.beta == 0.2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"method": "l2"}, "unknown method 'l2'; choose one of none, rl1"),
        ({"method": "drr", "method_options": "gamma=1"}, "no option 'gamma'; it takes beta"),
        ({"method": "drr", "method_options": "beta"}, "'beta' is not of the form key=value"),
        ({"method": "drr", "method_options": "beta=-1"}, "beta = -1 must be above 0"),
        ({"method": "admm", "method_options": "every=often"}, "wrong type"),
    ],
)
def test_bad_options_say_so(config: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_penalty(TrainConfig(**config))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown method 'l2'"):
        CompressOptions(method="l2")


def test_weights_are_priced_by_the_bytes_they_serve() -> None:
    small, large = (price_weights(TrainConfig(), ratio) for ratio in (0.18, 0.06))
    assert small.alpha > large.alpha > 0
    assert price_weights(TrainConfig(method="pmmp"), 0.06).alpha < large.alpha
    given = TrainConfig(step_rms=0.3, alpha=0.02)
    assert price_weights(given, 0.18) == given
    assert price_weights(TrainConfig(optimiser="adamw"), 0.18).alpha == 0
