"""`mdlzip compress`: parse, call the codec, show its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.console import for_each, guarded, result, result_json
from mdlzip.cli.progress import make_progress
from mdlzip.cli.signals import StopSwitch
from mdlzip.cli.terminal import (
    STDIO,
    check_not_folder,
    check_output,
    destination,
    single_destination,
)
from mdlzip.cli.values import check_exclusive, parse_duration, parse_size
from mdlzip.errors import Interrupted
from mdlzip.process.settings import prepare_training

if TYPE_CHECKING:
    from mdlzip.codec import CompressOptions, CompressReport

# Phases in which a stop is answered by a checkpoint; in all others there is nothing to keep.
CHECKPOINTED_PHASES = frozenset({"train", "prune", "fine-tune", "quantise"})


@guarded
def compress(
    files: opt.Files,
    output: opt.Output = None,
    stdout: opt.Stdout = False,
    force: opt.Force = False,
    keep: opt.Keep = False,
    remove: opt.Remove = False,
    budget: opt.Budget = None,
    level: opt.Level = None,
    steps: opt.Steps = None,
    preset: opt.Preset = None,
    config: opt.ConfigFile = None,
    overrides: opt.Overrides = None,
    method: opt.Method = None,
    weights: opt.Weights = "coded",
    chunk_size: opt.ChunkSize = "512",
    group_chunks: opt.GroupChunks = None,
    seed: opt.Seed = 0,
    fallback: Annotated[
        bool,
        typer.Option(
            "--fallback/--no-fallback",
            help="Store the file by zstd or xz, or as it is, where that is smaller.",
        ),
    ] = True,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Decode the archive and compare before it gets its name.",
        ),
    ] = True,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the checkpoint."),
    ] = False,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            "--work-dir",
            metavar="DIR",
            help="Folder for checkpoints. [default: hidden, beside the output]",
        ),
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(
            "--metrics",
            metavar="FILE",
            help="Write metrics as JSON lines.",
        ),
    ] = None,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    memory: opt.Memory = "2GiB",
    as_json: opt.Json = False,
    progress: opt.ProgressMode = "auto",
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> int:
    """Train a small sparse transformer on FILE and store it with the coded data in FILE.mdlz.

    The estimate is printed first. One Ctrl-C leaves a checkpoint that --resume goes on from;
    a second one stops at once.
    """
    from mdlzip.codec import CompressOptions

    prepare_training(fixed_steps=steps is not None)
    check_exclusive({"--budget": budget, "--level": level, "--steps": steps})
    check_exclusive({"--keep": keep or None, "--rm": remove or None})
    target = destination(files, output, stdout=stdout, joined=False)
    options = CompressOptions(
        budget_s=None if budget is None else parse_duration(budget),
        level=level,
        preset=preset,
        config_file=config,
        overrides=tuple(overrides or ()),
        chunk_size=parse_size(chunk_size),
        group_chunks=group_chunks,
        device=device,
        threads=threads,
        seed=seed,
        steps=steps,
        method=method,
        weights=weights,
        fallback=fallback,
        verify=verify,
        force=force,
        remove_source=remove,
        work_dir=work_dir,
        resume=resume,
        metrics=metrics,
        memory=parse_size(memory),
    )

    def one(file: str) -> None:
        check_not_folder(file)
        dst = single_destination(file, target)
        check_output(dst, force=force)
        _compress_one(file, dst, options, progress, as_json=as_json, quiet=quiet)

    return for_each(files, one, verbose=verbose)


def _compress_one(
    file: str,
    dst: str | None,
    options: CompressOptions,
    mode: str,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from mdlzip import codec
    from mdlzip.report import compress_json

    switch = StopSwitch()
    with make_progress(mode, quiet=quiet) as show:

        def on_progress(phase: str, done: float, total: float, note: str) -> None:
            switch.enter_phase(graceful=phase in CHECKPOINTED_PHASES)
            show(phase, done, total, note)

        with switch.installed():
            try:
                report = codec.compress(
                    file, dst, options, on_progress=on_progress, should_stop=switch.should_stop
                )
            except Interrupted as stop:
                raise _with_hint(stop, switch) from stop
    if as_json and dst != STDIO:
        result_json(compress_json(report))
    elif not quiet:
        _show(report, to_stderr=dst == STDIO)


def _show(report: CompressReport, *, to_stderr: bool) -> None:
    from mdlzip.cli.show import choice_lines, figures_table, ledger_table, sizes_line
    from mdlzip.report import compress_figures

    name, original = report.source, report.original_bytes
    parts = [sizes_line(name, original, report.archive_bytes, report.method)]
    parts += choice_lines(report)
    parts.append(ledger_table(report.ledger, original))
    if report.method == "learned":
        parts.append(figures_table(compress_figures(report)))
    result("\n".join(parts), to_stderr=to_stderr)


def _with_hint(stop: Interrupted, switch: StopSwitch) -> Interrupted:
    """The same error with the way to go on and the exit code of the signal that caused it."""
    hinted = Interrupted(f"{stop}; run the same command with --resume to go on")
    if switch.received is not None:
        hinted.exit_code = 128 + switch.received
    return hinted
