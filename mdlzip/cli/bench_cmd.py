"""`mdlzip bench`: ours and theirs in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.call_files import check_written
from mdlzip.cli.console import info, table
from mdlzip.cli.failures import guarded
from mdlzip.cli.progress import under_way
from mdlzip.cli.terminal import STDIO, check_input, check_output
from mdlzip.cli.values import parse_path
from mdlzip.errors import UsageError
from mdlzip.process.settings import prepare_training
from mdlzip.report import document, printable, to_json

if TYPE_CHECKING:
    from mdlzip.bench.run import BenchResult
    from mdlzip.codec import CompressOptions


@guarded
def bench(
    files: opt.RegularFiles,
    *,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="NAMES",
            help="Baselines, such as xz-9e,zstd-22,ppmd,chunk-lzma2,zpaq-5. [default: all that"
            " are quick]",
        ),
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            "--tool",
            metavar="NAME=PATH",
            help="Run this program, too: zpaq, bsc, lrzip, cmix or paq8px.",
        ),
    ] = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Measure the baselines only.")
    ] = False,
    contexts: Annotated[
        bool,
        typer.Option(
            "--contexts",
            help="Code with the same network in every context, too, and without it.",
        ),
    ] = False,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed",
            help="Time coding, reading and a training step, too, beside zstd -19, xz -9, PPMd and"
            " zpaq.",
        ),
    ] = False,
    lines: opt.Lines = False,
    model: opt.Model = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            parser=parse_path,
            metavar="FILE",
            help="Measure this archive; where there is none yet, keep the new one there.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Write the result as JSON, too; - prints it in place of the tables.",
        ),
    ] = None,
    force: opt.Force = False,
    effort: opt.Effort,
    recipe: opt.Recipe,
    machine: opt.Machine,
    display: opt.Display,
) -> int:
    """Compare mdlzip with other compressors on FILE: sizes, times, ledger, gap to the best.

    Whole-file baselines may use all of the file for every byte; per-chunk ones, like mdlzip, let
    any chunk be read on its own. With --lines models and dictionaries are trained on nine lines in
    ten, and the others coded each by itself.
    """
    from mdlzip.bench.baselines import DEFAULT, make_codec
    from mdlzip.bench.external import installed, read_programs
    from mdlzip.bench.run import run_bench
    from mdlzip.bench.speed import BASELINES, PROGRAMS

    prepare_training(fixed_steps=effort.steps is not None)
    programs = read_programs(tool or [])
    given = None if against is None else [n for n in against.split(",") if n]
    usual = (*BASELINES, *(n for n in installed() if n in PROGRAMS)) if speed else DEFAULT
    if not speed:
        usual += tuple(installed())
    names = usual if given is None else tuple(given)
    names += tuple(n for n in programs if not any(n == at.partition("-")[0] for at in names))
    for name in names:
        make_codec(name)  # a misspelt name must be refused before an hour of training
    options = opt.compress_options(effort, recipe, machine)
    if model is not None and not lines:
        raise UsageError("--model goes with --lines")
    _check_outputs(files, archive, output, force=force)
    voice = opt.Voice(display.as_json or output == STDIO, display.quiet, display.verbose)
    batch = Batch(files, voice)

    def one(file: str) -> Outcome:
        check_input(file, archive=False)
        if lines:
            return _records(file, options, model, display)
        with under_way(display.progress, quiet=display.quiet) as show:
            measured = run_bench(
                Path(file),
                against=names,
                options=None if no_model else options,
                chunk_size=options.chunk_bytes(),
                archive=archive,
                programs=programs,
                contexts=contexts,
                speed=speed,
                on_progress=show,
                should_stop=lambda: False,
            )
        return Outcome({**measured.as_json(), "file": file}, _text(measured))

    code = batch.run(one)
    if output not in (None, STDIO) and any("error" not in entry for entry in batch.entries):
        _write(Path(str(output)), batch, force=force)
        info(f"written: {output}", quiet=display.quiet)
    return code


def _records(
    file: str, options: CompressOptions, model: str | None, display: opt.Display
) -> Outcome:
    """What --lines asks for."""
    from mdlzip.bench import table as made
    from mdlzip.bench.records import bench_records

    with under_way(display.progress, quiet=display.quiet) as show:
        measured = bench_records(Path(file), options, model=model, on_progress=show)
    head = (
        f"{printable(file)}: {measured.unseen:,} records of {measured.unseen_bytes:,} bytes that"
        f" nobody saw; trained on {measured.seen:,} others of {measured.seen_bytes:,} bytes"
    )
    lines = table(made.RECORD_HEADERS, made.record_rows(measured), made.RECORD_ALIGN)
    return Outcome({**measured.as_json(), "file": file}, f"{head}\n{lines}")


def _check_outputs(
    files: Sequence[str], archive: Path | None, output: str | None, *, force: bool
) -> None:
    """Refuse before any work what could not be written, or would cost an input."""
    check_output(output, force=True, silent=True)  # JSON may go to a terminal
    if archive is not None:
        if len(files) > 1:
            raise UsageError("--archive takes one FILE")
        if str(archive) == STDIO:
            raise UsageError("--archive -: needs the name of a file")
        # an archive that is there is measured, so only a new one is an output
        check_written(archive, files, force=archive.is_file())
    if output not in (None, STDIO):
        inputs = files if archive is None else [*files, str(archive)]
        check_written(Path(str(output)), inputs, force=force)


def _write(path: Path, batch: Batch, *, force: bool) -> None:
    from mdlzip.fileio import open_output

    with open_output(path, force=force, seekable=False) as out:
        out.write(to_json(document(batch.key, batch.entries)).encode() + b"\n")
        out.commit()


def _text(measured: BenchResult) -> str:
    from mdlzip.bench import table as made
    from mdlzip.cli.show import figures_table, ledger_table

    parts = [f"{printable(measured.file)}: {measured.original_bytes:,} bytes"]
    parts.append(table(made.HEADERS, made.rows(measured), made.ALIGN))
    if measured.run is not None:
        parts.append("\n" + ledger_table(measured.run.ledger, measured.original_bytes))
        parts.append("\n" + figures_table(measured.run.figures) + "\n")
        if measured.run.contexts:
            lines = made.context_rows(measured)
            parts.append(table(made.CONTEXT_HEADERS, lines, made.CONTEXT_ALIGN) + "\n")
        if measured.run.speed:
            lines = made.speed_rows(measured)
            parts.append(table(made.SPEED_HEADERS, lines, made.SPEED_ALIGN) + "\n")
        parts += made.gap_lines(measured)
    return "\n".join(parts)
