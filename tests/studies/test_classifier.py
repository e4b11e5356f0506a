"""Sweeps of the classifier studies, the larger networks, and the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mdlzip.cli.app import app
from mdlzip.errors import UsageError
from mdlzip.sparsity.base import NoMethod
from mdlzip.studies.classifiers.distillation import load_weights
from mdlzip.studies.classifiers.imagenet import folder_problem
from mdlzip.studies.classifiers.networks import count_parameters, make_network
from mdlzip.studies.classifiers.recipes import ONLY_PRUNED, RECIPES
from mdlzip.studies.classifiers.run import Problem
from mdlzip.studies.classifiers.sweep import Sweep, curves, run_sweep, summary
from mdlzip.studies.classifiers.training import Phase, Trainer, evaluate
from mdlzip.studies.run_log import RunLog
from tests.studies.classifier_tools import (
    NET,
    SHORT,
    blob_problem,
    silent,
    write_cifar,
    write_mnist,
    write_tree,
)

# --- sweeps ---------------------------------------------------------------------------------------


def test_sweep_resumes_and_sums_up(tmp_path: Path) -> None:
    sweep = Sweep(NET, SHORT, ("rl1",), (1e-4,), seeds=2)
    asked: list[int] = []

    def problem_of(seed: int) -> Problem:
        asked.append(seed)
        return blob_problem(SHORT, seed)

    runs = run_sweep(sweep, problem_of, RunLog(tmp_path), silent)
    assert asked == [0, 1] and [r["key"]["method"] for r in runs] == ["none", "rl1"] * 2
    path = tmp_path / "runs.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:20])  # as a kill leaves it
    again = run_sweep(sweep, problem_of, RunLog(tmp_path, resume=True), silent)
    assert asked == [0, 1, 1] and again[:3] == runs[:3]
    for name in ("nnz", "accuracy_percent", "rounds", "error_increase_points"):
        assert again[3][name] == runs[3][name]
    found = summary(sweep, again)
    base, row = found["rows"]
    assert (base["method"], base["error_increase_points"], row["runs"]) == ("none", 0, 2)
    increases = [run["error_increase_points"] for run in again if run["key"]["method"] == "rl1"]
    assert row["error_increase_points"] == pytest.approx(sum(increases) / 2, abs=1e-3)
    assert row["compression_rate"] == pytest.approx(
        sum(run["compression_rate"] for run in again[1::2]) / 2, abs=1e-3
    )
    assert found["paper"]["ours"]["drr"] == {"error_increase_points": 0.16, "compression_rate": 92}


def test_unregularised_network_is_kept_when_only_pruning_changes(tmp_path: Path) -> None:
    other = replace(
        SHORT, input_dropout=0.3, rounds=1, round_epochs=2, regrow_epochs=1, round_lr=0.1,
        round_alpha=0.5, mode="accuracy", tolerance=0.1, judge="train", probe=7, criterion="rms",
        least=0.01, most=0.4, rate=2.0, give_up=9.0, drop=9.0, final_alpha=0.7, temperature=2.0,
        lesson_shift=1,
    )  # fmt: skip
    assert all(getattr(other, name) != getattr(SHORT, name) for name in ONLY_PRUNED)
    sweeps = [Sweep(NET, recipe, ("none",), seeds=1) for recipe in (SHORT, other)]
    found = [
        run_sweep(sweep, lambda seed: blob_problem(SHORT, seed), RunLog(tmp_path / str(i)), silent)
        for i, sweep in enumerate(sweeps)
    ]
    timed = {"seconds", "seconds_per_epoch"}
    first, second = ({k: v for k, v in runs[0].items() if k not in timed} for runs in found)
    assert first == second
    assert sweeps[0].key("rl1", 1e-4, 0) != sweeps[1].key("rl1", 1e-4, 0)
    longer = Sweep(NET, replace(SHORT, final_epochs=SHORT.final_epochs + 1), ("none",), seeds=1)
    assert longer.key("none", 0.0, 0) != first["key"]


def test_distilled_sweep_keeps_its_teachers(tmp_path: Path) -> None:
    sweep = Sweep(NET, replace(SHORT, temperature=4.0), ("rl1",), (1e-4,), seeds=1)
    asked: list[int] = []

    def problem_of(seed: int) -> Problem:
        asked.append(seed)
        return blob_problem(SHORT, seed)

    def steady(run: dict) -> dict:
        return {k: v for k, v in run.items() if k not in ("seconds", "seconds_per_epoch")}

    runs = run_sweep(sweep, problem_of, RunLog(tmp_path), silent)
    (teacher,) = tmp_path.glob("unregularised-*.npz")
    network = make_network(NET, 10, 0)
    load_weights(network, teacher)
    accuracy = evaluate(network, blob_problem(SHORT, 0).test).accuracy
    assert 100 * accuracy == pytest.approx(runs[0]["accuracy_percent"])
    labels = Sweep(NET, SHORT, ("rl1",), (1e-4,), seeds=1)
    plain = run_sweep(labels, problem_of, RunLog(tmp_path, resume=True), silent)
    assert plain[0] == runs[0] and plain[1]["rounds"] != runs[1]["rounds"]  # one baseline for both
    log = tmp_path / "runs.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    again = run_sweep(sweep, problem_of, RunLog(tmp_path, resume=True), silent)
    assert again[0] == runs[0] and steady(again[1]) == steady(runs[1])  # the teacher from its file
    teacher.unlink()
    asked.clear()
    run_sweep(sweep, problem_of, RunLog(tmp_path, resume=True), silent)
    assert asked == [0] and teacher.is_file()  # made anew
    teacher.write_bytes(teacher.read_bytes()[:1000])
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    with pytest.raises(UsageError, match="does not hold the weights"):
        run_sweep(sweep, problem_of, RunLog(tmp_path, resume=True), silent)


def test_sweep_refuses_bad_settings() -> None:
    for methods, alphas in (((), ()), (("l0",), ()), (("rl1",), (-1.0,))):
        with pytest.raises(UsageError):
            Sweep(NET, SHORT, methods, alphas)
    with pytest.raises(UsageError):
        Sweep("alexnet", SHORT)


def test_best_row_respects_the_papers_limit() -> None:
    def line(alpha: float, increase: float, rate: float) -> dict:
        size = {"train": 1.0, "test": 1.0}
        return {
            "key": {"method": "drr", "alpha": alpha}, "accuracy_percent": 98.0, "nnz": 1,
            "error_increase_points": increase, "compression_rate": rate, "coded_bytes": 1,
            "coded_error_increase_points": 0, "seconds_per_epoch": 1, "label_bytes": size,
            "coded_label_bytes": size, "seconds": {"train": 1.0},
        }  # fmt: skip

    runs = [line(1.0, 0.1, 80), line(2.0, 0.16, 95), line(3.0, 0.17, 120)]
    runs += [{"key": {"method": "drr", "alpha": 4.0}, "diverged": True}]
    found = summary(Sweep(NET, SHORT, ("drr",)), runs)
    assert found["best"]["drr"]["compression_rate"] == 95
    assert [row["diverged"] for row in found["rows"]] == [0, 0, 0, 1]
    assert summary(Sweep(NET, SHORT, ("drr",)), runs[2:])["best"] == {"drr": None}


def test_curves_bin_the_rounds_and_mark_the_ends() -> None:
    def line(i: int) -> dict:
        points = [
            {"compression_rate": 10.0 * 1.3**k + i / 100, "error_increase_points": 0.1 * k + i}
            for k in range(4)
        ]
        return {
            "key": {"method": "drr"}, "rounds": points, "compression_rate": 20.0,
            "error_increase_points": 0.1,
        }  # fmt: skip

    lines = curves([line(i % 2) for i in range(12)])
    assert [c.line for c in lines] == [True, False]
    assert len(lines[0].x) == 2 and lines[0].low is not None  # a bin spans 0.1 or more
    assert len(lines[1].x) == 12
    assert len(curves([line(0)])[0].x) == 3  # too few for bins; the unpruned network left out
    assert curves([{"key": {"method": "none"}}]) == []


# --- the larger networks --------------------------------------------------------------------------


def test_vgg_takes_a_step_on_cifar(tmp_path: Path) -> None:
    write_cifar(tmp_path / "data", n=2)
    out = tmp_path / "out"
    call = ["study", "cifar", "--data", str(tmp_path / "data"), "-o", str(out), "--seeds", "1"]
    call += ["--method", "drr", "--alpha", "1e-6", "--epochs", "1", "--device", "cpu", "--json"]
    call += ["--set", "final_epochs=0"]
    for pair in ("held_out=2", "batch=8", "rounds=1", "round_epochs=0", "code=false", "rate=4"):
        call += ["--set", pair]
    done = CliRunner().invoke(app, [*call, "-q"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert [row["method"] for row in rows] == ["none", "drr"]
    assert rows[0]["nnz"] == 14_986_698 > rows[1]["nnz"] > 1_000_000
    assert (out / "table1-vgg-16-512.json").is_file() and (out / "fig1b.svg").is_file()


def test_resnet_takes_a_step_on_a_folder(tmp_path: Path) -> None:
    write_tree(tmp_path, classes=2, n=3)
    recipe = replace(
        RECIPES["resnet-50"], epochs=1, held_out=2, batch=2, rounds=0, final_epochs=0, lr=1e-4
    )
    problem = folder_problem("resnet-50", tmp_path, recipe, 0, size=32)
    model = make_network("resnet-50", problem.classes, 0)
    before = [p.detach().clone() for p in model.parameters()]
    own = Trainer(model, problem.train, problem.valid, recipe, NoMethod(), 0, silent)
    own.fit(Phase("train", 1, recipe.lr, warmup=5))
    assert sum(not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)) > 100
    assert own.epochs == {"train": 1} and 0 <= evaluate(model, problem.test).accuracy <= 1
    assert count_parameters(model) == 25_557_032 - 998 * 2049


# --- the command ----------------------------------------------------------------------------------


def test_mnist_command(tmp_path: Path) -> None:
    write_mnist(tmp_path / "data")
    call = ["study", "mnist", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out")]
    call += ["--seeds", "1", "--epochs", "3", "--method", "rl1", "--alpha", "1e-4"]
    call += [
        "--set",
        "held_out=100",
        "--set",
        "batch=50",
        "--set",
        "code=false",
        "--progress",
        "never",
    ]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert "drr, paper" in done.stdout and "92" in done.stdout
    assert len((tmp_path / "out" / "runs.jsonl").read_text().splitlines()) == 2
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "runs.jsonl", "table6-lenet-300-100.json", "fig8a.svg", "fig8a.png",
    }  # fmt: skip
    assert CliRunner().invoke(app, call).exit_code == 6  # the folder has runs already
    resumed = CliRunner().invoke(app, [*call, "--resume", "--json"])
    assert resumed.exit_code == 0 and json.loads(resumed.stdout)["table"] == "table6"


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--net", "alexnet"], "lenet-5-caffe"),
        (["--method", "l0"], "unknown method"),
        (["--alpha", "-1"], "alpha"),
        (["--alpha", "much"], "--alpha"),
        (["--set", "speed=1"], "unknown setting"),
        (["--set", "rate"], "--set"),
        (["--device", "abacus"], "abacus"),
        (["--resume", "--force"], "exclude"),
        ([], "no folder"),
    ],
)
def test_mnist_command_says_what_is_wrong(tmp_path: Path, more: list[str], word: str) -> None:
    call = ["study", "mnist", "--data", str(tmp_path / "no folder"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*call, *more])
    assert done.exit_code == 2, done.output
    assert word in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
