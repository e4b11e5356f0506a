"""A training session alone, the phases and the budget: no folder, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from mdlzip.config import METHOD_NAMES, Preset, TrainConfig, load_preset
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.survey import present_in
from mdlzip.symbols.tokens import Tokens
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of
from mdlzip.training.budget import Budget
from mdlzip.training.phases import Phase, begin_pruned, begin_rounded, phase_at, phase_of
from mdlzip.training.session import Session
from mdlzip.training.timing import throw_away, time_coding, time_step
from tests.conftest import ROOT
from tests.symbol_tools import tokens_of

TEXT = np.frombuffer((ROOT / "LICENSE").read_bytes()[:6000], np.uint8)
SMALL = ("model.d_model=16", "model.n_layers=1", "model.d_ff=32", "train.alpha=0.02")


@pytest.fixture(scope="module")
def tokens() -> Iterator[Tokens]:
    vocabulary = Vocabulary(alphabet_of(present_in(TEXT.tobytes())))
    with tokens_of(TEXT, Layout(len(TEXT), 64, 16), vocabulary) as made:
        yield made


def preset(*overrides: str) -> Preset:
    return load_preset("nano", overrides=(*SMALL, *overrides))


def session(tokens: Tokens, *overrides: str, seed: int = 0) -> Session:
    return Session(tokens, preset(*overrides), device="cpu", seed=seed)


def ignore(event: str, **figures: float) -> None:
    """A log that nobody keeps."""


def assert_same(one: Session, other: Session) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    if one.rounding and other.rounding:
        assert list(one.rounding.exponents) == list(other.rounding.exponents)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_timing_leaves_no_trace(tokens: Tokens, method: str, optimiser: str) -> None:
    """A session that the planner has timed trains as one that nobody has touched."""
    settings = (f"train.method={method}", f"train.optimiser={optimiser}", "train.alpha=0.002")
    timed, fresh = session(tokens, *settings), session(tokens, *settings)
    with throw_away(timed):
        times = time_step(timed, limit_s=0.02)
        assert times.usual_s >= times.least_s > 0
        assert timed.steps_done > 0
        with pytest.raises(AssertionError):
            assert_same(timed, fresh)
    assert_same(timed, fresh)
    for fraction in (0.0, 0.3, 0.5):
        timed.step(fraction)
        fresh.step(fraction)
    assert_same(timed, fresh)


def test_timing_the_coder_leaves_the_weights(tokens: Tokens) -> None:
    timed = session(tokens)
    assert time_coding(timed, 1, verify=True) > 0
    assert_same(timed, session(tokens))


@pytest.mark.parametrize("phase", Phase)
def test_the_state_is_all_there_is(tokens: Tokens, phase: Phase) -> None:
    """Another session goes on from it to the bit, whatever it was before."""
    one, other = session(tokens), session(tokens)
    for _ in range(12):
        one.step(0.5)
    if phase >= Phase.PRUNED:
        begin_pruned(one, ignore)
        one.step(0.8)
    if phase is Phase.ROUNDED:
        begin_rounded(one, ignore)
        one.step(0.9)
    assert phase_of(one) is phase
    for _ in range(3):
        other.step(0.2)
    # Sorted, as a file gives it back.
    other.load_state_dict({k: v.clone() for k, v in sorted(one.state_dict().items())})
    assert phase_of(other) is phase
    for _ in range(8):  # across a step at which vectors are fitted anew
        losses = [float(s.step(0.95).loss) for s in (one, other)]
        assert losses[0] == losses[1]
    assert_same(one, other)


def test_a_state_from_an_earlier_phase_takes_the_later_one_back(tokens: Tokens) -> None:
    one = session(tokens)
    one.step(0.5)
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    begin_pruned(one, ignore)
    begin_rounded(one, ignore)
    one.load_state_dict(before)
    assert phase_of(one) is Phase.DENSE
    assert one.state_dict().keys() == before.keys()
    other = session(tokens)
    for fraction in (0.5, 0.6):
        other.step(fraction)
    one.step(0.6)
    assert_same(one, other)


def test_pruned_weights_stay_zero(tokens: Tokens) -> None:
    one = session(tokens, "train.tolerance=0.5")
    for _ in range(10):
        one.step(0.5)
    begin_pruned(one, ignore)
    zeros = {n: p == 0 for n, p in one.method.named().items()}
    assert sum(int(z.sum()) for z in zeros.values()) > 100
    for _ in range(5):
        one.step(0.79)
    assert all(not p[zeros[n]].any() for n, p in one.method.named().items())


def test_the_fraction_sets_rates_and_penalty(tokens: Tokens) -> None:
    one = session(tokens, "train.warmup_steps=2")
    steps = [one.step(fraction) for fraction in (0.0, 0.05, 0.3, 0.75, 0.9)]
    assert [step.number for step in steps] == [0, 1, 2, 3, 4]
    assert [step.alpha for step in steps] == pytest.approx([0.0, 0.01, 0.02, 0.02, 0.0])
    peak = one.config.muon_lr
    rates = [step.rates["muon"] / peak for step in steps]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.2])


def test_random_numbers_of_the_caller_are_left(tokens: Tokens) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one = session(tokens)
    one.step(0.5)
    begin_pruned(one, ignore)
    begin_rounded(one, ignore)
    one.step(0.9)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize(
    ("fraction", "phase"),
    [(0.0, Phase.DENSE), (0.77, Phase.DENSE), (0.78, Phase.PRUNED), (0.82, Phase.ROUNDED)],
)
def test_phases_follow_the_fraction(fraction: float, phase: Phase) -> None:
    assert phase_at(TrainConfig(), fraction) is phase


def test_the_last_phase_is_reached_at_the_end() -> None:
    late = replace(TrainConfig(), prune_at=1.0, qat_at=1.0)
    assert phase_at(late, 0.999) is Phase.DENSE and phase_at(late, 1.0) is Phase.ROUNDED


def test_a_budget_of_seconds() -> None:
    times = iter([100.0, 102.0, 101.0, 110.0])
    budget = Budget(10.0, elapsed_s=1.0, clock=lambda: next(times))
    found = []
    for step in (1, 2, 3):
        budget.tick(step)
        found.append((budget.elapsed_s, budget.fraction))
    # A clock that goes back takes nothing of what is done.
    assert found == [(3.0, 0.3), (2.0, 0.3), (11.0, 1.1)]


def test_a_budget_of_steps_does_not_look_at_the_clock() -> None:
    times = iter([0.0, 50.0, 100.0])
    budget = Budget(1.0, 4, fraction=0.25, clock=lambda: next(times))
    for step, fraction in ((2, 0.5), (3, 0.75)):
        budget.tick(step)
        assert budget.fraction == fraction
    assert budget.elapsed_s == 100.0
