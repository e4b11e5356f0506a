"""`mdlzip export` and `mdlzip import`: the weights as COO tensors in safetensors, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.failures import guarded
from mdlzip.cli.progress import under_way
from mdlzip.cli.show import ledger_table, sizes_line
from mdlzip.cli.signals import StopSwitch
from mdlzip.cli.terminal import (
    STDIO,
    check_input,
    check_output,
    data_on_stdout,
    single_destination,
)
from mdlzip.cli.values import parse_path, parse_size
from mdlzip.report import compress_json, printable


@guarded
def export_weights(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="A learned archive.")],
    *,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="OUT", help="The safetensors file to write; - is stdout."
        ),
    ],
    force: opt.Force = False,
    memory: opt.Memory = opt.MEMORY,
    allow_slow: opt.AllowSlow = False,
    voice: opt.Voice,
) -> int:
    """Write the weights as NAME.indices, NAME.values and NAME.scale, for any reader."""
    from mdlzip import codec

    limit = parse_size(memory)

    def one(file: str) -> Outcome:
        check_input(file, archive=True)
        check_output(output, force=force, silent=voice.quiet)
        with StopSwitch().installed():
            codec.export_weights(file, output, force=force, memory=limit, allow_slow=allow_slow)
        made = None if output == STDIO else output
        text = f"{printable(file)}: weights -> {printable(output)}"
        return Outcome({"file": file, "output": made}, text, made)

    return Batch([archive], voice, to_stderr=data_on_stdout([archive], output)).run(one)


@guarded
def import_weights(
    weights: Annotated[
        Path,
        typer.Argument(parser=parse_path, metavar="WEIGHTS", help="A safetensors file."),
    ],
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to code with them.")],
    *,
    output: opt.Output = None,
    force: opt.Force = False,
    form: opt.Weights = "coded",
    verify: opt.Verify = True,
    machine: opt.Machine,
    display: opt.Display,
) -> int:
    """Code FILE with weights that are there already; nothing is trained."""
    from mdlzip import codec

    dst = single_destination(file, output)
    options = opt.compress_options(
        machine, fallback=False, verify=verify, force=force, weights=form
    )

    def one(file: str) -> Outcome:
        check_input(file, archive=False)
        check_output(dst, force=force, silent=display.is_silent())
        with under_way(display.progress, quiet=display.quiet) as show:
            report = codec.import_weights(weights, file, dst, options, on_progress=show)
        text = sizes_line(file, report.original_bytes, report.archive_bytes, report.method)
        text += "\n" + ledger_table(report.ledger, report.original_bytes)
        return Outcome(compress_json(report), text, report.path)

    return Batch([file], display, to_stderr=data_on_stdout([file], output)).run(one)
