"""`mdlzip cat`: a range of the original on standard output, without unpacking the rest."""

from __future__ import annotations

from typing import Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.failures import guarded
from mdlzip.cli.signals import StopSwitch
from mdlzip.cli.terminal import STDIO, check_input, check_output
from mdlzip.cli.values import check_exclusive, parse_lines, parse_range
from mdlzip.errors import UsageError


@guarded
def cat(
    file: Annotated[str, typer.Argument(metavar="ARCHIVE", help="A regular file.")],
    *,
    wanted: Annotated[
        str,
        typer.Option(
            "--range",
            "-r",
            metavar="A:B",
            help="Bytes A to B - 1, such as 1000:2000, 4MiB:, :512; - counts from the end.",
        ),
    ] = ":",
    lines: Annotated[
        str | None,
        typer.Option(
            "--line",
            metavar="A:B",
            help="Lines A to B, counted from 1, or line A; decodes all before them.",
        ),
    ] = None,
    machine: opt.Decoding,
    display: opt.Display,
) -> int:
    """Write a part of the original to standard output; decodes only what that needs.

    `mdlzip list -v` tells what a first and a later read cost.
    """
    from mdlzip import codec

    span = parse_range(wanted)
    if lines is not None:
        check_exclusive({"--line": lines, "--range": None if wanted == ":" else wanted})
    numbers = None if lines is None else parse_lines(lines)
    where = machine.chosen()

    def one(name: str) -> Outcome:
        check_input(name, archive=True)
        if name == STDIO:
            raise UsageError("cat reads a regular file; a stream is decoded by decompress -c")
        check_output(STDIO, force=True, silent=display.is_silent())
        with StopSwitch().installed():
            if numbers is not None:
                n = codec.copy_lines(name, *numbers, **where)
                return Outcome({"file": name, "first_line": numbers[0], "lines": n}, "")
            start, stop = codec.copy_range(name, *span, **where)
        return Outcome({"file": name, "start": start, "stop": stop}, "")

    return Batch([file], display, to_stderr=True).run(one)
