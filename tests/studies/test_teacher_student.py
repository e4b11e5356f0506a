"""The teacher-student study: batched students, their losses, pruning, code lengths, the command."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.tamade import find_threshold
from mdlzip.studies.code_length import float32_spacing, gaussian_bits
from mdlzip.studies.students.figures import description_length
from mdlzip.studies.students.networks import (
    TEACHER_RMS,
    Students,
    Teacher,
    draw_samples,
    gaussian_loss,
)
from mdlzip.studies.students.study import (
    LOSSES,
    METHODS,
    PAPER,
    SIZES,
    STEPS,
    Plan,
    alpha_grid,
    best_cell,
    make_table,
)
from mdlzip.studies.students.training import (
    Setting,
    cut_students,
    description_bytes,
    load_batch,
    train_students,
)

HIGH = Setting(30, 0.08, "gauss")


def silent(*_: object) -> None:
    return None


def one_mlp(students: Students, s: int) -> nn.Sequential:
    """Student s as ordinary layers."""
    layers: list[nn.Module] = []
    for weight, bias in zip(students.weights, students.biases, strict=True):
        layer = nn.Linear(weight.shape[2], weight.shape[1])
        layer.load_state_dict({"weight": weight[s].detach(), "bias": bias[s, 0].detach()})
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def test_students_are_ordinary_networks() -> None:
    students, x = Students([3, 1, 4]), torch.randn(3, 20, 2)
    out = students(x)
    assert out.shape == (3, 20, 1)
    for s in range(3):
        torch.testing.assert_close(out[s], one_mlp(students, s)(x[s]))
    assert students.nnz().tolist() == [751] * 3
    with pytest.raises(UsageError, match="no students"):
        Students([])


def test_a_student_does_not_know_its_neighbours() -> None:
    """Training with other seeds and alphas in the batch gives the same student."""
    batch = train_students(HIGH, "drr", [0.01, 0.03], [0, 1, 2], 60, silent)
    alone = train_students(HIGH, "drr", [0.03], [1], 60, silent)[0]
    same = next(s for s in batch if (s["alpha"], s["seed"]) == (0.03, 1))
    assert same["nnz"] == alone["nnz"]
    assert same["test_mse"] == pytest.approx(alone["test_mse"], rel=1e-3)
    assert len({s["nnz"] for s in batch}) > 1


def test_the_teacher_has_the_stated_scale() -> None:
    x = np.random.default_rng(9).normal(size=(20000, 2))
    y = Teacher()(x)
    assert y.shape == (20000, 1)
    assert float(y.mean()) == pytest.approx(0, abs=0.1)
    assert float(y.std()) == pytest.approx(TEACHER_RMS, rel=0.03)
    assert np.array_equal(Teacher()(x), y) and not np.allclose(Teacher(1)(x), y)


def test_data_depend_on_the_seed_and_have_the_noise() -> None:
    teacher = Teacher()
    x, y = draw_samples(teacher, 5, 2000, 0.08)
    clean = draw_samples(teacher, 5, 2000, 0.0)
    assert x.shape == (4000, 2) and y.shape == (4000, 1) and y.dtype == np.float32
    assert np.array_equal(x, clean[0]) and not np.array_equal(
        x, draw_samples(teacher, 6, 2000, 0)[0]
    )
    assert float(np.var(y - clean[1])) == pytest.approx(0.08, rel=0.1)
    batch = load_batch(Setting(2000, 0.08, "mse"), [5, 6, 5])
    assert torch.equal(batch.x[0], batch.x[2]) and not torch.equal(batch.x[0], batch.x[1])
    assert torch.equal(batch.test_y[0], torch.from_numpy(y[2000:]))


def test_gaussian_loss_is_eq_6_by_hand() -> None:
    residuals = torch.tensor([[[0.5], [-1.0]], [[0.0], [2.0]]])
    sigma = torch.tensor([0.5, 2.0]).reshape(-1, 1, 1)
    loss = gaussian_loss(residuals, sigma.log())
    first = 0.5 * math.log2(2 * math.pi * 0.25) + (0.25 + 1) / 2 / (2 * 0.25 * math.log(2))
    second = 0.5 * math.log2(2 * math.pi * 4) + (0 + 4) / 2 / (2 * 4 * math.log(2))
    assert loss.tolist() == pytest.approx([first, second])
    assert float(loss[0]) == pytest.approx(gaussian_bits(residuals[0].numpy(), 0.5).sum() / 2)


def test_the_learned_sigma_becomes_the_rms_of_the_residuals() -> None:
    residuals = 0.3 * torch.randn(1, 500, 1, generator=torch.Generator().manual_seed(0))
    log_sigma = nn.Parameter(torch.zeros(1, 1, 1))
    optimiser = torch.optim.Adam([log_sigma], lr=0.02)
    for _ in range(400):
        optimiser.zero_grad()
        gaussian_loss(residuals, log_sigma).sum().backward()
        optimiser.step()
    rms = float(residuals.square().mean().sqrt())
    assert float(log_sigma.exp().detach()) == pytest.approx(rms, rel=1e-3)
    assert rms == pytest.approx(0.3, rel=0.1)


def test_batched_tamade_is_tamade_student_by_student() -> None:
    students, source = Students(range(4)), torch.Generator().manual_seed(0)
    x = torch.randn(4, 50, 2, generator=source)
    y = students(x).detach() + 0.05 * torch.randn(4, 50, 1, generator=source)
    alone = [one_mlp(students, s) for s in range(4)]

    def errors() -> Tensor:
        return (y - students(x)).square().mean(dim=(1, 2))

    thresholds = cut_students(students, errors, 0.05)
    counts = students.nnz().tolist()
    for s, mlp in enumerate(alone):
        found = find_threshold(
            dict(mlp.named_parameters()),
            lambda mlp=mlp, s=s: float((y[s] - mlp(x[s])).square().mean().detach()),
            0.05,
        )
        assert found.threshold == pytest.approx(float(thresholds[s]), abs=1e-5)
        assert sum(int(m.sum()) for m in found.masks.values()) == counts[s]
    assert 0 < min(counts) and max(counts) < 751


def test_batched_tamade_can_leave_nothing() -> None:
    students, always = Students([0, 1]), torch.tensor([1.0, 1.0])
    cut_students(students, lambda: always, 0.0)
    assert students.nnz().tolist() == [0, 0]


@pytest.mark.parametrize("method", ["rl1", "drr", "pmmp"])
def test_a_huge_alpha_leaves_the_empty_model(method: str) -> None:
    """Its description length by hand: two sigmas, and every target under its set's own sigma."""
    found = train_students(HIGH, method, [1e3], [0, 1], 200, silent)
    batch = load_batch(HIGH, [0, 1])
    for s, student in enumerate(found):
        sets = [batch.y[s].double().numpy(), batch.test_y[s].double().numpy()]
        exponent = math.floor(math.log2(max(float(np.abs(y).max()) for y in sets)))
        bits = sum(
            30 * (0.5 * math.log2(2 * math.pi * math.e * float(np.mean(y**2))) - (exponent - 23))
            for y in sets
        )
        assert student["nnz"] == 0 and student["model_bytes"] == 0
        assert student["uniform_bytes"] == pytest.approx(8 + bits / 8, rel=1e-6)
        assert student["cell"] == 2.0 ** (exponent - 23)
        assert student["test_mse"] == pytest.approx(float(np.mean(sets[1] ** 2)), rel=1e-5)


def test_description_bytes_of_a_perfect_model_are_the_model() -> None:
    y = np.array([1.5, -6.0], np.float32)
    found = description_bytes(10, [y, y], [np.zeros(2), np.zeros(2)])
    assert found["uniform_bytes"] == found["float32_bytes"] == 48
    assert found["cell"] == float32_spacing(np.array([6.0]))[0] == 2.0**-21


def test_isolines_agree_with_the_code_length() -> None:
    rng = np.random.default_rng(3)
    y, e = rng.uniform(4, 7, 1000), rng.normal(0, 0.2, 1000)
    exact = description_bytes(25, [y, y], [e, e])
    line = description_length(1000, exact["cell"])(np.array([100.0]), np.array([np.mean(e**2)]))
    assert float(line[0]) == pytest.approx(exact["uniform_bytes"])


def test_unpruned_students_keep_every_weight_and_learn() -> None:
    found = train_students(Setting(30, 1e-5, "mse"), "none", [0.0], [0, 1], 300, silent)
    assert [s["nnz"] for s in found] == [751, 751]
    assert all(s["train_mse"] < 0.2 * TEACHER_RMS**2 and s["sigma"] is None for s in found)


def test_minibatches_train_too() -> None:
    found = train_students(Setting(600, 0.08, "gauss"), "rl1", [1e-4], [0], 200, silent)[0]
    assert found["test_mse"] < 0.3 * TEACHER_RMS**2
    assert 0.1 < found["sigma"] < TEACHER_RMS


@pytest.mark.parametrize("method", ["pmmp", "drr", "rl1"])
def test_alpha_grids_are_ascending_and_complete(method: str) -> None:
    for n, loss, count in itertools.product(SIZES, LOSSES, (2, 4, 5, 10)):
        grid = alpha_grid(Setting(n, 0.08, loss), method, count)
        assert len(grid) == count and grid == sorted(set(grid)) and grid[-1] >= 30
    with pytest.raises(UsageError, match="at least 2"):
        alpha_grid(HIGH, method, 1)


def test_the_paper_table_is_where_it_belongs() -> None:
    assert len(PAPER) == 6 * 7 and ("none", "gauss") not in {key[2:][::-1] for key in PAPER}
    assert PAPER[300, 1e-5, "mse", "rl1"] == 1586
    assert PAPER[2000, 0.08, "gauss", "pmmp"] == 10660
    assert PAPER[30, 0.08, "mse", "none"] == 3105
    assert len(list(Plan().runs())) == 36 + 12


def test_a_cell_is_the_least_median() -> None:
    sizes = {0.1: [100, 300, 200], 1.0: [150, 160, 900], 2.0: [190, 191, 192]}
    students = [
        {"alpha": a, "uniform_bytes": b, "float32_bytes": b + 7, "nnz": i, "train_mse": 1.0,
         "test_mse": 2.0}
        for a, row in sizes.items() for i, b in enumerate(row)
    ]  # fmt: skip
    key = {"n": 30, "noise": 0.08, "loss": "mse", "method": "rl1", "alphas": list(sizes)}
    cell = best_cell({"key": key, "students": students})
    assert (cell["alpha"], cell["bytes"], cell["float32_bytes"], cell["nnz"]) == (1.0, 160, 167, 1)
    assert (cell["low_bytes"], cell["high_bytes"]) == (155, 530)
    assert cell["paper_bytes"] == 180 and cell["reproduced"] and cell["verbatim_bytes"] == 240
    worse = [{**s, "uniform_bytes": s["uniform_bytes"] + 100} for s in students]
    records = [{"key": key, "students": s, "seconds": 1.0} for s in (students, worse)]
    table = make_table(records)
    assert (table["compared"], table["within_10_percent_or_below"]) == (2, 1)


SMALL = ("study", "teacher-student", "-o", "out", "--n", "30", "--noise", "0.08", "--loss", "gauss")
SMALL += ("--method", "rl1,none", "--seeds", "2", "--alphas", "2", "--steps", "200", "-T", "1")


def test_the_command_runs_and_resumes(cli: Callable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = cli(*SMALL, "--progress", "json")
    assert first.returncode == 0, first.stderr
    assert b"R-L1 gauss" in first.stdout and b"/ 209" in first.stdout
    assert b"1 of 1 cells" in first.stdout
    event = json.loads(first.stderr.splitlines()[0])
    assert event["phase"] == "students" and event["total"] > 0
    lines = (out / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 2
    students = json.loads(lines[0])["students"]
    assert students[0]["nnz"] > 20 and students[-1]["nnz"] == 0
    table = json.loads((out / "table5.json").read_text())
    assert [c["method"] for c in table["cells"]] == ["rl1", "none"]
    drawn = {p.name for p in out.glob("*.svg")}
    names = {f"fig{f}-n30-noise0.08-gauss.svg" for f in (4, 5)}
    assert drawn == names

    # The first line is marked, so that a run made anew would show; the second is lost.
    marked = json.loads(lines[0])
    marked["seconds"] = 123.0
    (out / "runs.jsonl").write_text(json.dumps(marked) + "\n")
    second = cli(*SMALL, "--resume", "--json", "-q")
    assert second.returncode == 0, second.stderr
    again = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    assert again[0] == marked
    assert again[1]["students"] == json.loads(lines[1])["students"]
    assert json.loads(second.stdout)["cells"] == table["cells"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--loss", "huber"), 2, b"unknown loss 'huber'"),
        (("--method", "rl1,l2"), 2, b"unknown method 'l2'"),
        (("--n", "30,many"), 2, b"--n 30,many: write values with commas"),
        (("--n", "1"), 2, b"at least 2 training samples"),
        (("--noise", "nan"), 2, b"noise variance must be"),
        (("--method", ","), 2, b"nothing to run"),
    ],
)
def test_bad_input_is_one_line(
    cli: Callable, tmp_path: Path, arguments: tuple[str, ...], code: int, words: bytes
) -> None:
    done = cli("study", "teacher-student", "-o", "out", *arguments)
    assert done.returncode == code
    assert words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_old_folder_is_not_overwritten(cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "runs.jsonl").write_text("")
    done = cli(*SMALL)
    assert done.returncode == 6 and b"--resume goes on" in done.stderr


def test_the_help_states_the_real_defaults(cli: Callable) -> None:
    text = b" ".join(cli("study", "teacher-student", "--help").stdout.split()).decode()
    for default in (str(STEPS), ",".join(map(str, SIZES)), ",".join(METHODS), ",".join(LOSSES)):
        assert f"[default: {default}]" in text
