"""`mdlzip study teacher-student`: Table 5 and figures 1a, 4 and 5."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.console import result, table
from mdlzip.cli.progress import under_way
from mdlzip.cli.study.options import Folder, Log, Methods, Seeds, study_command, tell
from mdlzip.cli.values import parse_list
from mdlzip.process.cores import thread_count

_HEADS = {"pmmp": "PMMP", "drr": "DRR", "rl1": "R-L1", "none": "unpruned"}


@study_command
def teacher_student(
    *,
    output: Folder = Path("study-teacher-student"),
    log: Log,
    seeds: Seeds = 5,
    alphas: Annotated[
        int, typer.Option("--alphas", min=2, metavar="N", help="Penalty strengths per method.")
    ] = 10,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            metavar="N",
            help="Steps with the penalty; 40 % more fine-tune. [default: 5000]",
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option("--n", metavar="LIST", help="Training samples. [default: 30,300,2000]"),
    ] = None,
    noises: Annotated[
        str | None,
        typer.Option("--noise", metavar="LIST", help="Noise variances. [default: 1e-5,0.08]"),
    ] = None,
    losses: Annotated[
        str | None, typer.Option("--loss", metavar="LIST", help="[default: mse,gauss]")
    ] = None,
    methods: Methods = "pmmp,drr,rl1,none",
    threads: opt.Threads = None,
    display: opt.Display,
) -> None:
    """Train students under l0 penalties; description lengths beside Table 5 of the paper.

    Writes runs.jsonl, table5.json and figures 1a, 4 and 5 to DIR. A stopped study keeps its
    finished runs; --resume makes the missing ones. As many runs as there are threads are made at
    a time.
    """
    log.check_folder(output)
    given: dict[str, Any] = {
        "sizes": sizes and parse_list(sizes, int, "--n"),
        "noises": noises and parse_list(noises, float, "--noise"),
        "losses": losses and parse_list(losses, str, "--loss"),
        "methods": parse_list(methods, str, "--method"),
        "steps": steps,
    }
    chosen = {name: value for name, value in given.items() if value is not None}

    from mdlzip.studies.students.study import Plan, run_study

    plan = Plan(seeds=seeds, alphas=alphas, **chosen)
    workers = thread_count(threads)
    with under_way(display.progress, quiet=display.quiet) as show:
        found = run_study(plan, log.open(output), workers=workers, on_progress=show)
    tell(found.table, display, lambda: _show(found.table), output)


def _show(found: dict[str, Any]) -> None:
    """Table 5, ours / the paper's, a row per setting and a column per method and loss."""
    cells = {(c["n"], c["noise"], c["method"], c["loss"]): c for c in found["cells"]}
    columns = list(dict.fromkeys((method, loss) for _, _, method, loss in cells))
    settings = sorted({(noise, n) for n, noise, _, _ in cells})
    rows = []
    for noise, n in settings:
        row = [cells.get((n, noise, *column)) for column in columns]
        rows.append([f"{noise:g}", f"{n:,}", *("" if c is None else _cell(c) for c in row)])
    heads = [f"{_HEADS[method]} {loss}" for method, loss in columns]
    result(f"ours / paper: {found['definition']}")
    result(table(["noise", "N", *heads], rows))
    result(
        f"{found['within_10_percent_or_below']} of {found['compared']} cells at most 10 % above "
        "the paper's"
    )


def _cell(cell: dict[str, Any]) -> str:
    paper = "" if cell["paper_bytes"] is None else f" / {cell['paper_bytes']:,}"
    return f"{cell['bytes']:,.0f}{paper}"
