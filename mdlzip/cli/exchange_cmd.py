"""`mdlzip export` and `mdlzip import`: the weights as COO tensors in safetensors, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.console import guarded, result
from mdlzip.cli.progress import make_progress
from mdlzip.cli.show import ledger_table, sizes_line
from mdlzip.cli.signals import StopSwitch
from mdlzip.cli.terminal import STDIO, check_input, check_output
from mdlzip.cli.values import parse_size


@guarded
def export_weights(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="A learned archive.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="The safetensors file to write."),
    ],
    force: opt.Force = False,
    memory: opt.Memory = "2GiB",
    allow_slow: opt.AllowSlow = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> int:
    """Write the weights as NAME.indices, NAME.values and NAME.scale, for any reader."""
    from mdlzip import codec

    check_input(archive, archive=True)
    with StopSwitch().installed():
        codec.export_weights(
            archive, output, force=force, memory=parse_size(memory), allow_slow=allow_slow
        )
    if not quiet:
        result(f"{archive}: weights -> {output}")
    return 0


@guarded
def import_weights(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="A safetensors file.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to code with them.")],
    output: opt.Output = None,
    force: opt.Force = False,
    form: opt.Weights = "coded",
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Decode and compare before naming.")
    ] = True,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    memory: opt.Memory = "2GiB",
    progress: opt.ProgressMode = "auto",
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> int:
    """Code FILE with weights that are there already; nothing is trained."""
    from mdlzip import codec

    dst = STDIO if file == STDIO and output is None else output
    check_output(dst, force=force)
    options = codec.CompressOptions(
        fallback=False,
        verify=verify,
        force=force,
        weights=form,
        device=device,
        threads=threads,
        memory=parse_size(memory),
    )
    with StopSwitch().installed(), make_progress(progress, quiet=quiet) as show:
        report = codec.import_weights(weights, file, dst, options, on_progress=show)
    if not quiet:
        line = sizes_line(file, report.original_bytes, report.archive_bytes, report.method)
        result(line, to_stderr=dst == STDIO)
        result(ledger_table(report.ledger, report.original_bytes), to_stderr=dst == STDIO)
    return 0
