"""`mdlzip study transformer`: U-curves of the compressor on the user's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.console import result, table
from mdlzip.cli.progress import under_way
from mdlzip.cli.study.options import Folder, Log, Methods, Seeds, study_command, tell
from mdlzip.cli.values import finite, parse_list, parse_path, parse_size
from mdlzip.process.settings import prepare_training


@study_command
def transformer(
    files: opt.RegularFiles,
    *,
    over: Annotated[
        str,
        typer.Option("--over", metavar="NAME", help="alpha, coarseness or chunk-size."),
    ] = "alpha",
    values: Annotated[
        str | None,
        typer.Option(
            "--values",
            metavar="LIST",
            help="Such as 0.5,1,2: multiples of the automatic alpha or step; bytes of a chunk.",
        ),
    ] = None,
    methods: Methods = "rl1",
    crosses: Annotated[
        str,
        typer.Option(
            "--crosses",
            metavar="LIST",
            help="Presets to train without regularisation, for comparison.",
        ),
    ] = "",
    output: Folder = Path("study-transformer"),
    log: Log,
    seeds: Seeds = 1,
    effort: opt.Effort,
    settings: opt.Settings,
    place: opt.Place,
    display: opt.Display,
) -> None:
    """Compress FILE many times, varying one setting: loss, model and total bytes; plots.

    The budget or the steps are those of each run. Every run is a line of DIR/runs.jsonl; after a
    stop, --resume makes those that are missing.
    """
    from mdlzip.studies.transformer import Sweep, check_sweep, plot_sweep, run_sweep

    sweep = Sweep(
        over,
        tuple(parse_list(values, parse_size if over == "chunk-size" else finite, "--values")),
        tuple(parse_list(methods, str, "--method")),
        tuple(parse_list(crosses, str, "--crosses")),
        seeds,
    )
    prepare_training(fixed_steps=effort.steps is not None)
    options = opt.compress_options(effort, settings, place, context="chunk")
    paths = [parse_path(file) for file in files]
    log.check_folder(output, paths)
    check_sweep(paths, sweep, options)
    made: list[list[dict[str, Any]]] = []
    with under_way(display.progress, quiet=display.quiet) as show:
        runs_log = log.open(output)
        for path in paths:
            made.append(run_sweep(path, sweep, options, runs_log, show))
            plot_sweep(output, made[-1])
    found = {"schema": 1, "runs": [run for runs in made for run in runs]}
    tell(found, display, lambda: _show(made), output)


def _show(made: list[list[dict[str, Any]]]) -> None:
    for runs in made:
        _show_file(runs)


def _show_file(runs: list[dict[str, Any]]) -> None:
    """One file's runs; `gap` compares with the automatic choice of the first run."""
    from mdlzip.studies.transformer import best

    base = runs[0]["figures"]["archive_bytes"]
    rows = []
    for run in runs:
        f, key = run["figures"], run["key"]
        rows.append(
            (
                key["method"],
                key["preset"],
                f"{key['value']:g}",
                f"{f['alpha']:.3g}",
                f"{f['nnz']:,}",
                f"{f.get('bits_per_nnz', 0):.2f}",
                f"{f['weight_bytes']:,}",
                f"{run['ledger']['data']:,}",
                f"{f['archive_bytes']:,}",
                f"{f['archive_bytes'] / base - 1:+.1%}",
                f"{1000 * f.get('step_seconds', 0):.1f}",
            )
        )
    key, least = runs[0]["key"], best(runs)
    headers = ["method", "preset", key["over"], "alpha", "nnz", "bits/nnz"]
    headers += ["weights", "data", "total", "gap", "ms/step"]
    result(f"{key['file']}: {key['bytes']:,} bytes")
    result(table(headers, rows, "<<>>>>>>>>>"))
    result(
        f"least: {least['key']['method']} at {key['over']} {least['key']['value']:g}, "
        f"{least['figures']['archive_bytes']:,} bytes"
    )
