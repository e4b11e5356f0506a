"""Sweeps of the classifier studies: runs, tables 1, 2 and 6, figures 1b and 8."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from mdlzip.callbacks import OnProgress
from mdlzip.errors import UsageError
from mdlzip.sparsity.base import check_alpha
from mdlzip.studies.classifiers.distillation import load_weights, save_weights
from mdlzip.studies.classifiers.networks import make_network
from mdlzip.studies.classifiers.recipes import ALPHAS, Recipe
from mdlzip.studies.classifiers.run import Job, Problem, Result, method_for, run_once
from mdlzip.studies.classifiers.training import Diverged
from mdlzip.studies.plots import Axes, Curve, adaptive_bins, draw
from mdlzip.studies.run_log import RunLog

SCHEMA = 1
LARGEST_LOSS_SHOWN = 3.0  # points; the paper's figures end there as well
LEAST_IN_BIN, BIN_WIDTH = 10, 0.1  # runs, log10 of the rate (D.4)


@dataclass(frozen=True)
class Paper:
    """The paper's table: (error increase in points, compression rate) by row."""

    table: str
    figure: str
    title: str
    ours: dict[str, tuple[float, float]]
    others: dict[str, tuple[float, float]]


PAPER: dict[str, Paper] = {
    "lenet-300-100": Paper(
        "table6", "fig8a", "MNIST with LeNet-300-100",
        {"drr": (0.16, 92), "rl1": (0.23, 68), "pmmp": (0.19, 11)},
        {"DRR-O": (0.16, 90), "CPA": (-0.04, 85), "SparseVD": (0.28, 68), "GSM": (0.01, 60),
         "DNS": (-0.29, 56), "SNIP": (0.70, 50), "SWS": (0.05, 23), "L0-ADMM": (0.00, 23)},
    ),
    "lenet-5-caffe": Paper(
        "table6", "fig8b", "MNIST with LeNet-5-Caffe",
        {"drr": (0.16, 342), "rl1": (0.08, 246), "pmmp": (0.17, 77)},
        {"CPA": (-0.02, 317), "GSM": (0.15, 300), "SparseVD": (-0.05, 280), "DRR-O": (0.16, 200),
         "SWS": (0.09, 200), "DNS": (0.00, 111), "SNIP": (0.20, 100), "L0-ADMM": (0.00, 71)},
    ),
    "vgg-16-512": Paper(
        "table1", "fig1b", "CIFAR-10 with VGG-16-512",
        {"drr": (-0.89, 82), "rl1": (-0.73, 71), "pmmp": (3.88, 34)},
        {"CPA": (-0.01, 56), "SparseVD": (0.00, 48), "DRR-O": (0.70, 15), "RFP": (0.72, 9.52),
         "PP": (0.14, 6.43), "VAR-CONV": (0.07, 3.75), "EConvNets": (-0.15, 2.78),
         "SSS": (0.00, 1.67)},
    ),
    "resnet-50": Paper(
        "table2", "fig-imagenet", "ImageNet with ResNet-50",
        {"drr": (-1.2, 8.0), "rl1": (1.1, 6.8), "pmmp": (1.5, 3.5)},
        {"GSM": (0.4, 4.0), "VAR-CONV": (-0.1, 2.5), "Autoprune": (0.4, 2.2),
         "ChannelPruning": (1.1, 2.1), "ThiNet": (0.8, 1.5), "BoundedNorm": (0.5, 1.2)},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """What to run: every method at its alphas (none: `ALPHAS`) with seeds 0..seeds - 1.

    The unregularised network of each seed is always run, first. Raises UsageError for an unknown
    net or method, a bad alpha, or no method.
    """

    net: str
    recipe: Recipe
    methods: tuple[str, ...] = ("rl1", "drr")
    alphas: tuple[float, ...] = ()
    seeds: int = 3
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.methods:
            raise UsageError("no method is named")
        if self.seeds < 1:
            raise UsageError(f"seeds = {self.seeds} must be at least 1")
        for method in self.methods:
            method_for(self.net, Job(method, 0.0, 0))
        for alpha in self.alphas:
            check_alpha(alpha)

    def jobs(self, seed: int) -> list[tuple[str, float]]:
        """(method, alpha) of one seed, the unregularised one first."""
        pairs = [
            (method, alpha)
            for method in self.methods
            for alpha in self.alphas or ALPHAS[self.net][method]
            if method != "none"
        ]
        return [("none", 0.0), *dict.fromkeys(pairs)]

    def key(self, method: str, alpha: float, seed: int) -> dict[str, Any]:
        """What tells a run from others in the log."""
        plain = method == "none"
        recipe = asdict(self.recipe.of_unregularised() if plain else self.recipe)
        recipe["rate"] = str(recipe["rate"])  # JSON has no infinity
        return {
            "net": self.net, "method": method, "alpha": alpha, "seed": seed, "recipe": recipe,
        }  # fmt: skip


def run_sweep(
    sweep: Sweep,
    problem_of: Callable[[int], Problem],
    log: RunLog,
    on_progress: OnProgress,
) -> list[dict[str, Any]]:
    """Make the runs that the log lacks; all runs of the sweep, in order.

    problem_of: seed -> data; called once a seed, and only if one of its runs is missing.
    A run that diverges is logged as such and the sweep goes on.
    """
    runs: list[dict[str, Any]] = []
    total = sweep.seeds * len(sweep.jobs(0))
    for seed in range(sweep.seeds):
        problem: Problem | None = None
        base: dict[str, Any] | None = None
        for method, alpha in sweep.jobs(seed):
            key = sweep.key(method, alpha, seed)
            run = log.find(key)
            if run is None or (method == "none" and not _has_teacher(sweep, log, run)):
                problem = problem or problem_of(seed)
                job = _job(sweep, problem, log, key, base)
                run = log.add(key, _one(sweep, problem, log, job, base, on_progress))
            base = run if method == "none" else base
            runs.append(run)
            on_progress("study", len(runs), total, _note(run))
    return runs


def _has_teacher(sweep: Sweep, log: RunLog, run: dict[str, Any]) -> bool:
    """Whether the weights of an unregularised run are there, or are not needed."""
    if not sweep.recipe.temperature or run.get("diverged"):
        return True
    return _teacher_path(sweep, log, run["key"]["seed"]).is_file()


def _teacher_path(sweep: Sweep, log: RunLog, seed: int) -> Path:
    """Beside the log; named by the settings, so that none teaches a study of others."""
    settings = json.dumps(sweep.key("none", 0.0, seed), sort_keys=True).encode()
    return log.path.with_name(f"unregularised-{hashlib.sha256(settings).hexdigest()[:16]}.npz")


def _job(
    sweep: Sweep,
    problem: Problem,
    log: RunLog,
    key: dict[str, Any],
    base: dict[str, Any] | None,
) -> Job:
    """The job of a run; base: the unregularised run of the seed, None for that run itself."""
    job = Job(key["method"], key["alpha"], key["seed"], sweep.device)
    if base is None or base.get("diverged"):
        return job
    job = replace(job, reference=base["valid_accuracy_percent"] / 100)
    if not sweep.recipe.temperature:
        return job
    teacher = make_network(problem.net, problem.classes, job.seed)
    load_weights(teacher, _teacher_path(sweep, log, job.seed))
    return replace(job, teacher=teacher)


def _one(
    sweep: Sweep,
    problem: Problem,
    log: RunLog,
    job: Job,
    base: dict[str, Any] | None,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """The result of one run, as it is logged."""
    if base is not None and base.get("diverged"):
        return {"diverged": True}
    try:
        result = run_once(problem, sweep.recipe, job, on_progress)
    except Diverged:
        return {"diverged": True}
    if job.method == "none" and sweep.recipe.temperature:
        save_weights(result.weights, _teacher_path(sweep, log, job.seed))
    return described(result, base)


def described(result: Result, base: dict[str, Any] | None) -> dict[str, Any]:
    """A result as JSON, with error increases in points against the run `base` (None: itself)."""
    figures = dict(result.figures)
    top = result.final.as_json()
    best = top["accuracy_percent"] if base is None else base["accuracy_percent"]
    for point in (top, *figures["rounds"]):
        point["error_increase_points"] = round(best - point["accuracy_percent"], 4)
    if "coded_accuracy_percent" in figures:
        figures["coded_error_increase_points"] = round(best - figures["coded_accuracy_percent"], 4)
    return {**top, "paper_bytes": 4 * result.final.nnz, **figures}


def _note(run: dict[str, Any]) -> str:
    key = run["key"]
    name = f"{key['method']} alpha {key['alpha']:g} seed {key['seed']}"
    if run.get("diverged"):
        return f"{name}: diverged"
    return (
        f"{name}: {run['accuracy_percent']:.2f} %, {run['error_increase_points']:+.2f} points,"
        f" {run['compression_rate']:.1f} times smaller"
    )


# --- tables and figures ---------------------------------------------------------------------------


def summary(sweep: Sweep, runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the seeds of each method and alpha, and the paper's rows beside them.

    A method's `best` is the setting with the highest median rate among those whose median error
    increase is at most the paper's for that method (0.16 where it has none), else None.
    """
    paper = PAPER[sweep.net]
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["key"]["method"], run["key"]["alpha"]), []).append(run)
    rows = [_row(*setting, group) for setting, group in groups.items()]
    limits = {m: paper.ours.get(m, (0.16, 0))[0] for m in sweep.methods}
    return {
        "schema": SCHEMA,
        "net": sweep.net,
        "table": paper.table,
        "rows": rows,
        "best": {m: _best(rows, m, limit) for m, limit in limits.items() if m != "none"},
        "paper": {
            "ours": {m: _pair(*values) for m, values in paper.ours.items()},
            "others": {m: _pair(*values) for m, values in paper.others.items()},
        },
    }


def _pair(increase: float, rate: float) -> dict[str, float]:
    return {"error_increase_points": increase, "compression_rate": rate}


def _row(method: str, alpha: float, group: list[dict[str, Any]]) -> dict[str, Any]:
    good = [run for run in group if not run.get("diverged")]
    row: dict[str, Any] = {"method": method, "alpha": alpha, "runs": len(group)}
    row["diverged"] = len(group) - len(good)
    if good:
        for name in (
            "accuracy_percent", "error_increase_points", "nnz", "compression_rate",
            "coded_bytes", "coded_error_increase_points", "seconds_per_epoch",
        ):  # fmt: skip
            if name in good[0]:
                row[name] = round(median(run[name] for run in good), 4)
        for name in ("label_bytes", "coded_label_bytes"):
            parts = good[0].get(name, {})
            row[name] = {part: median(run[name][part] for run in good) for part in parts}
        row["seconds"] = round(median(sum(run["seconds"].values()) for run in good), 1)
    return row


def _best(rows: list[dict[str, Any]], method: str, limit: float) -> dict[str, Any] | None:
    fits = [
        row for row in rows
        if row["method"] == method and row.get("error_increase_points", limit + 1) <= limit
    ]  # fmt: skip
    return max(fits, key=lambda row: float(row["compression_rate"]), default=None)


def write_summary(sweep: Sweep, runs: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Write TABLE.json and the figure; give the summary."""
    found = summary(sweep, runs)
    paper = PAPER[sweep.net]
    path = folder / f"{paper.table}-{sweep.net}.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    axes = Axes(
        "compression rate (parameters / non-zeros)",
        "error increase (points)",
        paper.title,
        x_log=True,
    )
    draw(folder / paper.figure, axes, curves(runs))
    return found


def curves(runs: Iterable[dict[str, Any]]) -> list[Curve]:
    """Error increase against compression rate, a curve a method: every round of every run.

    Ten or more points a bin as in D.4, median and quartiles; with fewer than two bins the points
    themselves. The finished networks are crosses.
    """
    rounds: dict[str, list[tuple[float, float]]] = {}
    ends: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        if run["key"]["method"] == "none" or run.get("diverged"):
            continue
        for kind, points in ((rounds, run["rounds"][1:]), (ends, [run])):
            kind.setdefault(run["key"]["method"], []).extend(
                (p["compression_rate"], p["error_increase_points"])
                for p in points
                if p["error_increase_points"] <= LARGEST_LOSS_SHOWN
            )
    return [
        *(_curve(method, points) for method, points in rounds.items()),
        *(
            Curve(f"{method}, finished", [p[0] for p in points], [p[1] for p in points], line=False)
            for method, points in ends.items()
        ),
    ]


def _curve(method: str, points: list[tuple[float, float]]) -> Curve:
    x, y = [p[0] for p in points], [p[1] for p in points]
    bins = adaptive_bins(x, y, least=LEAST_IN_BIN, width=BIN_WIDTH) if points else []
    if len(bins) < 2:
        return Curve(method, x, y)
    return Curve(
        method,
        [b.x for b in bins],
        [b.median for b in bins],
        [b.low for b in bins],
        [b.high for b in bins],
    )
