"""`mdlzip compress`: parse, call the codec, show its report."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.call_files import CallFiles
from mdlzip.cli.failures import guarded
from mdlzip.cli.resumable import resumable
from mdlzip.cli.terminal import (
    check_input,
    check_not_folder,
    check_output,
    data_on_stdout,
    destination,
    files_or_stdin,
    single_destination,
)
from mdlzip.process.settings import prepare_training

if TYPE_CHECKING:
    from mdlzip.codec import CompressOptions, CompressReport


@guarded
def compress(
    files: opt.Files = None,
    *,
    output: opt.Output = None,
    stdout: opt.Stdout = False,
    force: opt.Force = False,
    source: opt.Source,
    effort: opt.Effort,
    recipe: opt.Recipe,
    weights: opt.Weights = "coded",
    fallback: Annotated[
        bool,
        typer.Option(
            "--fallback/--no-fallback",
            help="Store the file without a network, by zstd, xz or as it is, if that is smaller.",
        ),
    ] = True,
    verify: opt.Verify = True,
    model: opt.Model = None,
    training: opt.Training,
    machine: opt.Machine,
    display: opt.Display,
) -> int:
    """Train a small sparse transformer on FILE and store it with the coded data in FILE.mdlz.

    The estimate is printed first. One Ctrl-C leaves a checkpoint that --resume goes on from;
    a second one stops at once.
    """
    prepare_training(fixed_steps=effort.steps is not None)
    # between two pipes, as tar starts it, there is progress but no report
    voice = display if files or display.verbose else replace(display, quiet=True)
    files = files_or_stdin(files)
    target = destination(files, output, stdout=stdout, joined=False)
    options = opt.compress_options(
        effort,
        recipe,
        machine,
        training,
        weights=weights,
        fallback=fallback,
        verify=verify,
        force=force,
        remove_source=source.remove,
        model=model,
    )
    metrics_before = _made(training.metrics)
    seen = CallFiles(files)
    batch = Batch(files, voice, to_stderr=data_on_stdout(files, target))

    def one(file: str) -> Outcome:
        seen.begin(file)
        check_input(file, archive=False)
        check_not_folder(file)
        dst = single_destination(file, target)
        check_output(dst, force=force, silent=display.is_silent())
        made = _made(training.metrics) not in (None, metrics_before)
        chosen = replace(options, append_metrics=made)
        return _outcome(_compress_one(file, dst, chosen, seen, display))

    return batch.run(one)


def _made(path: Path | None) -> tuple[int, int] | None:
    """What tells a file from one that was there before under the same name."""
    try:
        status = None if path is None else os.stat(path)
    except OSError:
        return None
    return None if status is None else (status.st_ino, status.st_ctime_ns)


def _compress_one(
    file: str,
    dst: str | None,
    options: CompressOptions,
    seen: CallFiles,
    display: opt.Display,
) -> CompressReport:
    from mdlzip import codec

    with resumable(display) as (on_progress, should_stop):
        return codec.compress(
            file,
            dst,
            options,
            on_progress=on_progress,
            should_stop=should_stop,
            check_target=seen.check,
        )


def _outcome(report: CompressReport) -> Outcome:
    from mdlzip.cli.show import choice_lines, figures_table, ledger_table, sizes_line
    from mdlzip.report import compress_figures, compress_json

    name, original = report.source, report.original_bytes
    parts = [sizes_line(name, original, report.archive_bytes, report.method)]
    parts += choice_lines(report)
    parts.append(ledger_table(report.ledger, original))
    if report.model_id is not None:
        parts.append(
            f"model {report.model_id[:16]} (not in the file): {report.model_bytes or 0:,} bytes"
        )
    if report.method in ("learned", "experts"):
        parts.append(figures_table(compress_figures(report)))
    return Outcome(compress_json(report), "\n".join(parts), report.path)
