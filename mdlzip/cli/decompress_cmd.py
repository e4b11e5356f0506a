"""`mdlzip decompress`: bytes back, metadata back."""

from __future__ import annotations

from typing import Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.call_files import CallFiles
from mdlzip.cli.failures import guarded
from mdlzip.cli.progress import under_way
from mdlzip.cli.terminal import (
    STDIO,
    check_input,
    check_output,
    data_on_stdout,
    destination,
    files_or_stdin,
    single_destination,
)
from mdlzip.report import decompress_json, printable


@guarded
def decompress(
    files: opt.Files = None,
    *,
    output: opt.Output = None,
    stdout: opt.Stdout = False,
    name: Annotated[
        bool,
        typer.Option(
            "--name",
            "-N",
            help="Take the stored name even if it is hidden, begins with a dash or holds "
            "invisible characters.",
        ),
    ] = False,
    force: opt.Force = False,
    source: opt.Source,
    machine: opt.Decoding,
    display: opt.Display,
) -> int:
    """Give the original back, bit for bit, with its name, mode and time."""
    from mdlzip import codec

    files = files_or_stdin(files)
    target = destination(files, output, stdout=stdout, joined=True)
    where = machine.chosen()
    seen = CallFiles(files)
    batch = Batch(files, display, to_stderr=data_on_stdout(files, target))

    def one(file: str) -> Outcome:
        dst = single_destination(file, target)
        if dst != STDIO:
            seen.begin(file)
        check_input(file, archive=True)
        check_output(dst, force=force, silent=display.is_silent())
        with under_way(display.progress, quiet=display.quiet) as show:
            report = codec.decompress(
                file,
                dst,
                force=force,
                stored_name=name,
                on_progress=show,
                remove_source=source.remove,
                check_target=seen.check,
                **where,
            )
        text = (
            f"{printable(file)}: {report.original_bytes:,} bytes -> {printable(str(report.path))}"
        )
        return Outcome(decompress_json(report), "" if dst == STDIO else text, report.path)

    return batch.run(one)
