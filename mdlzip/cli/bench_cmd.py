"""`mdlzip bench`: ours and theirs in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.console import for_each, guarded, info, result, result_json, table
from mdlzip.cli.progress import make_progress
from mdlzip.cli.signals import StopSwitch
from mdlzip.cli.values import check_exclusive, parse_duration, parse_size
from mdlzip.errors import OutputExists, UsageError
from mdlzip.process.settings import prepare_training

if TYPE_CHECKING:
    from mdlzip.bench.run import BenchResult


@guarded
def bench(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Regular files.")],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="NAMES",
            help="Baselines, such as xz-9e,zstd-22,ppmd,chunk-lzma2. [default: all]",
        ),
    ] = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Measure the baselines only.")
    ] = False,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            metavar="FILE",
            help="Measure this archive; where there is none yet, keep the new one there.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Write the result as JSON, too."),
    ] = None,
    force: opt.Force = False,
    budget: opt.Budget = None,
    level: opt.Level = None,
    steps: opt.Steps = None,
    preset: opt.Preset = None,
    config: opt.ConfigFile = None,
    overrides: opt.Overrides = None,
    method: opt.Method = None,
    chunk_size: opt.ChunkSize = "512",
    group_chunks: opt.GroupChunks = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    memory: opt.Memory = "2GiB",
    as_json: opt.Json = False,
    progress: opt.ProgressMode = "auto",
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> int:
    """Compare mdlzip with other compressors on FILE: sizes, times, ledger, gap to the best.

    Whole-file baselines may use all of the file for every byte; per-chunk ones, like mdlzip, let
    any chunk be read on its own.
    """
    from mdlzip.bench.baselines import DEFAULT, make_codec
    from mdlzip.bench.run import run_bench
    from mdlzip.codec import CompressOptions
    from mdlzip.report import SCHEMA

    prepare_training(fixed_steps=steps is not None)
    check_exclusive({"--budget": budget, "--level": level, "--steps": steps})
    if archive is not None and len(files) > 1:
        raise UsageError("--archive takes one FILE")
    if output is not None and output.exists() and not force:
        raise OutputExists(f"{output} exists; use --force to overwrite it")
    names = DEFAULT if against is None else [n for n in against.split(",") if n]
    for name in names:
        make_codec(name)  # a misspelt name must not be found out after an hour of training
    chunk_bytes = parse_size(chunk_size)
    options = CompressOptions(
        budget_s=None if budget is None else parse_duration(budget),
        level=level,
        steps=steps,
        preset=preset,
        config_file=config,
        overrides=tuple(overrides or ()),
        method=method,
        chunk_size=chunk_bytes,
        group_chunks=group_chunks,
        seed=seed,
        device=device,
        threads=threads,
        memory=parse_size(memory),
    )
    results: list[BenchResult] = []

    def one(file: str) -> None:
        with StopSwitch().installed(), make_progress(progress, quiet=quiet) as show:
            measured = run_bench(
                Path(file),
                against=names,
                options=None if no_model else options,
                chunk_size=chunk_bytes,
                archive=archive,
                on_progress=show,
                should_stop=lambda: False,
            )
        results.append(measured)
        if not as_json and not quiet:
            _show(measured)

    code = for_each([str(f) for f in files], one, verbose=verbose)
    everything = {"schema": SCHEMA, "files": [r.as_json() for r in results]}
    if as_json:
        result_json(everything)
    if output is not None and results:
        output.write_text(json.dumps(everything, indent=2, ensure_ascii=False) + "\n")
        info(f"written: {output}", quiet=quiet)
    return code


def _show(measured: BenchResult) -> None:
    from mdlzip.bench.table import ALIGN, HEADERS, gap_lines, rows
    from mdlzip.cli.show import figures_table, ledger_table

    result(f"{measured.file}: {measured.original_bytes:,} bytes")
    result(table(HEADERS, rows(measured), ALIGN))
    if measured.run is not None:
        result("\n" + ledger_table(measured.run.ledger, measured.original_bytes))
        result("\n" + figures_table(measured.run.figures))
        result("")
        for line in gap_lines(measured):
            result(line)
