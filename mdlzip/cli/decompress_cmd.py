"""`mdlzip decompress`: bytes back, metadata back; of damaged archives what can be had."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.call_files import CallFiles
from mdlzip.cli.console import info
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
from mdlzip.cli.values import check_exclusive
from mdlzip.errors import CorruptArchive, NotAnArchive, UsageError
from mdlzip.report import decompress_json, printable, salvage_json

if TYPE_CHECKING:
    from mdlzip.codec import SalvageReport

_SHOWN_RANGES = 20  # --json has all


@dataclass(frozen=True)
class Salvage:
    """What to do with a damaged archive. Raises UsageError for what needs --salvage."""

    salvage: Annotated[
        bool,
        typer.Option(
            "--salvage",
            help="Write what can be had of a damaged archive, to FILE.salvaged unless told else; "
            "list what is lost; exit code 3 if that is anything.",
        ),
    ] = False
    skip_damaged: Annotated[
        bool,
        typer.Option("--skip-damaged", help="Leave lost bytes out; they are zeros otherwise."),
    ] = False
    from_copy: Annotated[
        str | None,
        typer.Option(
            "--from-copy",
            metavar="OTHER",
            help="Second copy of the same archive, for parts that are damaged here.",
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, given in (
            ("--skip-damaged", self.skip_damaged),
            ("--from-copy", self.from_copy is not None),
        ):
            if given and not self.salvage:
                raise UsageError(f"{name} goes with --salvage")

    def chosen(self) -> Mapping[str, Any]:
        """Keywords of `codec.salvage`."""
        return {"skip_damaged": self.skip_damaged, "from_copy": self.from_copy}


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
    rescue: Salvage,
    source: opt.Source,
    machine: opt.Decoding,
    display: opt.Display,
) -> int:
    """Give the original back, bit for bit, with its name, mode and time."""
    from mdlzip import codec

    if rescue.salvage:
        check_exclusive({"--salvage": True, "--rm": source.remove or None})
        check_exclusive({"--salvage": True, "--name": name or None})
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
            if rescue.salvage:
                saved = codec.salvage(
                    file,
                    dst,
                    force=force,
                    on_progress=show,
                    check_target=seen.check,
                    **rescue.chosen(),
                    **where,
                )
                return _salvaged(file, saved, to_stdout=dst == STDIO)
            with _pointing_to_salvage(file):
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


@contextmanager
def _pointing_to_salvage(file: str) -> Iterator[None]:
    """A damaged archive that is a file may hold much that is whole."""
    try:
        yield
    except NotAnArchive:
        raise
    except CorruptArchive as problem:
        if not os.path.isfile(file):
            raise
        raise CorruptArchive(f"{problem}; --salvage gives back what is whole") from problem


def _salvaged(file: str, report: SalvageReport, *, to_stdout: bool) -> Outcome:
    """The result; what is damaged goes to standard error, in lines of their own."""
    for line in _damage(report):
        info(f"{printable(file)}: {line}")
    got = report.original_bytes - report.lost_bytes
    whole = "whole, and its SHA-256 is right" if report.verified else "NOT the whole original"
    text = (
        f"{printable(file)}: {got:,} of {report.original_bytes:,} bytes ->"
        f" {printable(str(report.path))}: {whole}"
    )
    code = 0 if report.verified else CorruptArchive.exit_code
    return Outcome(salvage_json(report), "" if to_stdout else text, report.path, code)


def _damage(report: SalvageReport) -> list[str]:
    """A line for each range of the original, and for what was put right."""
    lines = [f"{name} section: a flipped bit was put right" for name in report.repaired]
    for damage in report.damage[:_SHOWN_RANGES]:
        what = "lost" if damage.lost else "written as found, but no checksum vouches for them"
        lines.append(f"bytes {damage.start:,} to {damage.stop - 1:,}: {what}")
    if len(report.damage) > _SHOWN_RANGES:
        lines.append(f"{len(report.damage) - _SHOWN_RANGES} more ranges: --json has all")
    if not report.verified and not report.lost_bytes:
        lines.append("nothing is known to be lost, but the SHA-256 in the archive is another")
    return lines
