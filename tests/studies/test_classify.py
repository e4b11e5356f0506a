"""A run of the classifier studies on small data: accuracy, non-zeros, masks, thresholds."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.base import Method, NoMethod
from mdlzip.sparsity.masks import from_nonzero
from mdlzip.sparsity.rl1 import RelaxedL1
from mdlzip.studies.classifiers.datasets import InMemory, Split
from mdlzip.studies.classifiers.distillation import (
    Lessons,
    distillation_loss,
    load_weights,
    save_weights,
)
from mdlzip.studies.classifiers.networks import make_network
from mdlzip.studies.classifiers.pruning import Bounds, prune, within
from mdlzip.studies.classifiers.recipes import ALPHAS, METHOD_OPTIONS, RECIPES, Recipe
from mdlzip.studies.classifiers.run import Job, Run, run_once
from mdlzip.studies.classifiers.sweep import PAPER
from mdlzip.studies.classifiers.training import (
    Phase,
    Trainer,
    evaluate,
    fisher_diagonal,
    non_zeros,
)
from tests.studies.classifier_tools import NET, QUICK, SHORT, blob_problem, run, silent

# --- a run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "alpha"), [("rl1", 1e-4), ("drr", 2e-5), ("pmmp", 1e-5)])
def test_prunes_a_separable_problem_without_loss(method: str, alpha: float) -> None:
    result = run(method, alpha)
    assert result.final.test_accuracy >= 0.97
    assert result.final.rate >= 5 and result.final.nnz < 266_610 / 5
    before = result.rounds[0].nnz  # PMMP brings a mask of its own
    assert before < 266_610 if method == "pmmp" else before == 266_610
    assert result.final.nnz <= result.rounds[1].nnz < before
    figures = result.figures
    assert figures["labels"] == {"train": 500, "test": 200}
    assert figures["coded_bytes"] < 4 * result.final.nnz
    assert figures["label_bytes"]["train"] < 500 * math.log2(10) / 8 / 3
    assert figures["coded_accuracy_percent"] >= 95
    assert figures["epochs"]["fine-tune"] == 6 and 0 < figures["epochs"]["train"] <= 20


def test_unregularised_network_keeps_all_weights() -> None:
    result = run("none", 0.0, replace(QUICK, code=False))
    assert result.final.nnz == result.figures["parameters"] == 266_610
    assert result.rounds == [] and result.final.test_accuracy >= 0.97


def test_stops_at_the_wanted_rate() -> None:
    recipe = replace(SHORT, epochs=6, rate=30.0, rounds=20, least=0.3, tolerance=0.0)
    result = run("rl1", 1e-4, recipe)
    rates = [point.rate for point in result.rounds]
    assert rates[-2] < 30 <= rates[-1] < 45 and result.final.nnz <= result.rounds[-1].nnz


def test_gives_up_below_the_reference() -> None:
    recipe = replace(SHORT, rounds=20)
    job = Job("rl1", 1e-4, 0, reference=1.5)  # out of reach
    result = run_once(blob_problem(), recipe, job, silent)
    assert len(result.rounds) == 2 and result.final.nnz == result.rounds[1].nnz


def test_pruned_weights_can_come_back() -> None:
    alive: list[torch.Tensor] = []

    def record(phase: str, done: float, total: float, note: str) -> None:
        if phase == "prune":
            alive.append(torch.cat([p.detach().flatten() != 0 for p in going.model.parameters()]))

    recipe = replace(SHORT, rounds=3, regrow_epochs=2, give_up=100.0)
    going = Run(blob_problem(), recipe, Job("rl1", 1e-4, 0), record)
    result = going.result()
    counts = [point.nnz for point in result.rounds[1:]]
    assert len(counts) == 3 and result.figures["epochs"]["regrow"] == 4
    for before, after in pairwise(counts):
        assert after <= before * (1 - recipe.least)
    assert bool((alive[1] & ~alive[0]).any()), "no weight grew back"
    assert bool((~alive[0]).any()) and bool((alive[0] & ~alive[1]).any())


def test_without_masks_dead_units_may_be_left_out() -> None:
    trained = []
    for live in (False, True):
        model = make_network(NET, 10, 0)
        with torch.no_grad():
            for param in list(model.parameters())[:2]:
                param[50:] = 0.0
        problem = blob_problem()
        trainer = Trainer(model, problem.train, problem.valid, SHORT, RelaxedL1(), 0, silent)
        trainer.fit(Phase("regrow", 2, 1e-3, alpha=1e-4, live=live))
        trained.append([param.detach() for param in model.parameters()])
    assert not bool(trained[0][0][50:].any()), "a dead unit came back by itself"
    trained[0][2][:, 50:] = 0.0  # what the next layer makes of them does not matter
    for whole, small in zip(*trained, strict=True):
        torch.testing.assert_close(small, whole, rtol=1e-3, atol=1e-5)


def test_same_seed_same_run() -> None:
    recipe = replace(SHORT, rounds=1, augment="shift")
    first, second, other = (run("drr", 1e-5, recipe, seed) for seed in (0, 0, 1))
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.final == second.final
    assert any(
        not torch.equal(a, b)
        for a, b in zip(first.model.parameters(), other.model.parameters(), strict=True)
    )


@pytest.mark.parametrize(("method", "net"), [("pmmp", "lenet-5-caffe"), ("admm", NET)])
def test_methods_with_variables_of_their_own_run(method: str, net: str) -> None:
    recipe = replace(SHORT, rate=20.0)
    result = run_once(replace(blob_problem(), net=net), recipe, Job(method, 1e-6, 0), silent)
    assert 0 < result.final.nnz < result.figures["parameters"]
    assert "coded_bytes" not in result.figures


def test_bad_jobs_fail_in_one_line() -> None:
    for job, word in (
        (Job("rl1", -1.0, 0), "alpha"),
        (Job("rl1", math.nan, 0), "alpha"),
        (Job("l0", 1.0, 0), "unknown method"),
    ):
        with pytest.raises(UsageError, match=word):
            run_once(blob_problem(), QUICK, job, silent)
    problem = replace(blob_problem(), net="alexnet")
    with pytest.raises(UsageError, match="unknown net"):
        run_once(problem, QUICK, Job("rl1", 1.0, 0), silent)


# --- training and pruning -------------------------------------------------------------------------


def trainer(model: nn.Module, recipe: Recipe = QUICK) -> Trainer:
    data = blob_problem()
    return Trainer(model, data.train, data.valid, recipe, NoMethod(), 0, silent)


@pytest.mark.parametrize("shrinkable", [True, False])
def test_masks_hold_through_fine_tuning(shrinkable: bool) -> None:
    model = make_network(NET, 10, 0)
    if not shrinkable:
        model.append(nn.Identity())
    with torch.no_grad():
        for param in model.parameters():
            param[torch.rand(param.shape, generator=torch.Generator().manual_seed(1)) < 0.8] = 0
    masks = from_nonzero(dict(model.named_parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    loss = evaluate(model, blob_problem().valid).loss
    trainer(model).fit(Phase("fine-tune", 2, 1e-3, average=0.5), masks)
    assert evaluate(model, blob_problem().valid).loss < loss
    for (name, param), old in zip(model.named_parameters(), before, strict=True):
        assert not param[~masks[name]].any()
        assert not masks[name].any() or not torch.equal(param, old)


def test_phase_rates() -> None:
    phase = Phase("x", 10, 0.1, warmup=2)
    assert phase.rate(1) < phase.rate(2) and phase.rate(10) == pytest.approx(0)
    assert Phase("x", 10, 0.1, cosine=False).rate(9) == 0.1


def test_prune_keeps_the_loss_and_the_bounds() -> None:
    data = blob_problem()
    model = make_network(NET, 10, 0)
    trainer(model).fit(Phase("train", 4, 1e-3))
    before = evaluate(model, data.valid)
    generator = torch.Generator().manual_seed(0)
    recipe = replace(QUICK, tolerance=0.1)
    masks = prune(model, recipe, data.plain, data.valid, Bounds(0, 266_610), generator)
    after = evaluate(model, data.valid)
    assert after.loss <= 1.1 * before.loss + 1e-6
    kept = non_zeros(dict(model.named_parameters()))
    assert kept < 200_000 and set(masks) == set(dict(model.named_parameters()))
    prune(model, recipe, data.plain, data.valid, Bounds(0, 1000), generator)
    assert 0 < non_zeros(dict(model.named_parameters())) <= 1000


@pytest.mark.parametrize("criterion", ["rms", "fisher"])
@pytest.mark.parametrize("mode", ["loss", "accuracy"])
def test_other_criteria_and_modes(criterion: str, mode: str) -> None:
    data = blob_problem()
    model = make_network(NET, 10, 0)
    trainer(model).fit(Phase("train", 3, 1e-3))
    before = evaluate(model, data.valid)
    recipe = replace(QUICK, criterion=criterion, mode=mode, tolerance=0.02)
    generator = torch.Generator().manual_seed(0)
    prune(model, recipe, data.plain, data.valid, Bounds(0, 266_610), generator)
    after = evaluate(model, data.valid)
    assert non_zeros(dict(model.named_parameters())) < 200_000
    if mode == "accuracy":
        assert after.accuracy >= before.accuracy - 0.02 - 1e-9
    else:
        assert after.loss <= 1.02 * before.loss + 1e-6


def test_within_takes_the_highest_scores() -> None:
    worth = {"a": torch.tensor([0.0, 5.0, 1.0]), "b": torch.tensor([[3.0, 4.0]])}
    masks = {name: score > 3.5 for name, score in worth.items()}
    assert within(masks, worth, Bounds(0, 5)) is masks
    fewer = within(masks, worth, Bounds(0, 1))
    assert fewer["a"].tolist() == [False, True, False] and not fewer["b"].any()
    more = within(masks, worth, Bounds(3, 5))
    assert more["b"].all() and more["a"].tolist() == [False, True, False]
    assert within(masks, worth, Bounds(5, 5))["a"].tolist() == [False, True, True]  # 0 stays out


@pytest.mark.parametrize(("method", "drops"), [(RelaxedL1(), True), (NoMethod(), False)])
def test_input_dropout_spares_the_unregularised_network(method: Method, drops: bool) -> None:
    data, recipe = blob_problem(), replace(QUICK, input_dropout=0.25)
    seen: list[torch.Tensor] = []

    class Watch(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            out: torch.Tensor = super().forward(x)
            return out

    ones = InMemory(Split(torch.ones(400, 1, 28, 28), torch.zeros(400, dtype=torch.int64)))
    model = Watch(nn.Flatten(), nn.Linear(784, 10))
    Trainer(model, ones, data.valid, recipe, method, 0, silent).fit(Phase("train", 1, 1e-3))
    values = torch.cat(seen).flatten()
    if not drops:
        assert bool((values == 1).all())
        return
    assert values.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float((values == 0).float().mean()) == pytest.approx(0.25, abs=0.005)
    evaluate(model, ones)
    assert bool((seen[-1] == 1).all()), "evaluation drops nothing"


def test_fisher_of_a_linear_model_is_exact_enough() -> None:
    """For softmax(W x) the diagonal is E[p (1 - p) x^2] (true labels do not enter)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x = torch.rand(4000, 1, 2, 2, generator=torch.Generator().manual_seed(2))
    source = InMemory(Split(x, torch.zeros(4000, dtype=torch.int64)))
    generator = torch.Generator().manual_seed(0)
    parts = [fisher_diagonal(model, source, 20, generator)["1.weight"] for _ in range(5)]
    p = model(x).softmax(1).detach()
    expected = (p * (1 - p)).T @ x.flatten(1).square() / len(x)
    assert torch.allclose(torch.stack(parts).mean(0), expected, rtol=0.25)


def test_recipes_are_checked() -> None:
    for bad in (
        {"optimiser": "muon"}, {"window": 5}, {"least": 0.5, "most": 0.1}, {"batch": 0},
        {"rate": 0.0}, {"alpha_ramp": 1.5}, {"tolerance": -1.0}, {"criterion": "luck"},
        {"input_dropout": 1.0}, {"regrow_epochs": -1}, {"temperature": -1.0},
        {"lesson_shift": 5, "temperature": 4.0}, {"lesson_shift": 1},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            replace(QUICK, **bad)
    changed = QUICK.laid_over({"rate": "92", "cosine": "true", "judge": "train"})
    assert (changed.rate, changed.cosine, changed.judge) == (92.0, True, "train")
    for pair in ({"speed": "1"}, {"rate": "fast"}, {"cosine": "yes"}):
        with pytest.raises(UsageError):
            QUICK.laid_over(pair)
    short = RECIPES["lenet-300-100"].scaled(6)
    assert (short.epochs, short.rounds, short.final_epochs) == (6, 4, 8)
    for net in RECIPES:
        assert set(METHOD_OPTIONS[net]) <= set(ALPHAS[net]) and PAPER[net].ours


# --- distillation ---------------------------------------------------------------------------------


def test_distillation_loss_of_a_small_case() -> None:
    taught, logits = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    p = 1 / (1 + math.exp(-1.0))  # softmax([2, 0] / 2)
    by_hand = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert float(distillation_loss(logits, taught, 2.0)) == pytest.approx(by_hand, rel=1e-6)
    assert float(distillation_loss(taught, taught, 3.0)) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("augment", ["none", "shift"])
@pytest.mark.parametrize("shift", [0, 1])
def test_lessons_are_what_the_teacher_says_of_these_images(augment: str, shift: int) -> None:
    train = blob_problem().train
    assert isinstance(train, InMemory)
    teacher = make_network(NET, 10, 3)
    lessons = Lessons(InMemory(Split(train.images, train.labels), augment), teacher, shift)
    seen = []
    for images, taught in lessons.batches(64, torch.Generator().manual_seed(0)):
        assert torch.allclose(taught, teacher(images), atol=1e-5)
        seen.append(images)
    shuffled = torch.cat(seen)
    assert shuffled.shape == train.images.shape == (lessons.n, 1, 28, 28)
    as_they_are = {image.numpy().tobytes() for image in train.images}
    found = sum(image.numpy().tobytes() in as_they_are for image in shuffled) / lessons.n
    assert found == 1 if not shift and augment == "none" else found < 0.4
    plain = torch.cat([images for images, _ in lessons.batches(64)])
    assert torch.equal(plain, train.images)


def test_student_learns_from_the_teacher_alone() -> None:
    """The labels of the training data are wrong; the teacher is right."""
    problem = blob_problem()
    teacher = run("none", 0.0, replace(QUICK, code=False)).model
    source = problem.train
    assert isinstance(source, InMemory)
    wrong = InMemory(Split(source.images, (source.labels + 1) % 10))
    recipe = replace(SHORT, temperature=2.0)
    job = Job("rl1", 1e-4, 0, teacher=teacher)
    assert run_once(replace(problem, train=wrong), recipe, job, silent).final.test_accuracy > 0.9
    with pytest.raises(UsageError, match="teacher"):
        run_once(problem, recipe, replace(job, teacher=None), silent)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    save_weights(make_network(NET, 10, 1).state_dict(), path)
    model = make_network(NET, 10, 2)
    load_weights(model, path)
    for found, wanted in zip(
        model.parameters(), make_network(NET, 10, 1).parameters(), strict=True
    ):
        assert torch.equal(found, wanted)
    for other in (make_network(NET, 7, 0), make_network("lenet-5-caffe", 10, 0)):
        with pytest.raises(UsageError, match="does not hold the weights"):
            load_weights(other, path)
    path.write_bytes(b"no archive")
    with pytest.raises(UsageError, match="does not hold the weights"):
        load_weights(model, path)
