"""`mdlzip study overhead`: what an l0 method adds to a training step (Table 4)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.console import result, table
from mdlzip.cli.progress import under_way
from mdlzip.cli.study.options import Methods, study_command, tell
from mdlzip.cli.values import parse_list, parse_path

if TYPE_CHECKING:
    from mdlzip.studies.overhead import Overhead


@study_command
def overhead(
    file: Annotated[
        Path, typer.Argument(parser=parse_path, metavar="FILE", help="A regular file.")
    ],
    *,
    methods: Methods = "rl1,drr,pmmp,fpp,admm",
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="N", help="Turns of 5 steps a method.")
    ] = 40,
    settings: opt.Settings,
    place: opt.Place,
    display: opt.Display,
) -> None:
    """Time training steps on FILE with each l0 method and without, in turn."""
    from mdlzip.corpus import open_corpus
    from mdlzip.studies.overhead import measure_overhead

    options = opt.compress_options(settings, place)
    names = parse_list(methods, str, "--method")
    with (
        open_corpus(file) as corpus,
        under_way(display.progress, quiet=display.quiet) as show,
    ):
        found = measure_overhead(corpus, names, options, rounds, show)
    figures = {"schema": 1, "file": file.name, "rounds": rounds, **asdict(found)}
    tell(figures, display, lambda: _show(found))


def _show(found: Overhead) -> None:
    rows = [
        (
            cost.method,
            f"{1000 * cost.step_seconds:.1f}",
            f"{cost.overhead:+.1%}",
            f"{cost.low:+.1%} to {cost.high:+.1%}",
        )
        for cost in found.costs
    ]
    result(
        f"{found.preset}: {found.n_weights:,} weights, {found.batch_bytes:,.0f} bytes a step, "
        f"{found.device}, threads: {found.threads}"
    )
    result(table(("method", "ms/step", "over none", "quartiles"), rows, "<>>>"))
