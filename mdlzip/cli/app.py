"""The typer application: commands, short forms, version; every other room is imported lazily."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from mdlzip import __version__
from mdlzip.cli.bench_cmd import bench
from mdlzip.cli.compress_cmd import compress
from mdlzip.cli.console import report_failure
from mdlzip.cli.decompress_cmd import decompress
from mdlzip.cli.doctor_cmd import doctor
from mdlzip.cli.exchange_cmd import export_weights, import_weights
from mdlzip.cli.list_cmd import list_archives
from mdlzip.cli.study_cmd import study
from mdlzip.cli.test_cmd import test
from mdlzip.cli.values import expand_short_forms
from mdlzip.errors import MdlzipError
from mdlzip.process.settings import wait_passively

app = typer.Typer(
    name="mdlzip",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich costs half of the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compress")(compress)
app.command("decompress")(decompress)
app.command("test")(test)
app.command("list")(list_archives)
app.command("bench")(bench)
app.command("export")(export_weights)
app.command("import")(import_weights)
app.command("doctor")(doctor)
app.add_typer(study)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mdlzip {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Compress a file by training a small sparse transformer on it; decode it bit for bit.

    Short forms: mdlzip -d FILE (decompress), -t FILE (test), -l FILE (list). Sources are kept.
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 corrupt archive, 4 newer format, 5 over a limit,
    6 output exists, 7 verification failed, 128 + n stopped by signal n.
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit; never shows a traceback unless -vv asks for it."""
    leave_on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        if callable(leave_on_interrupt):  # not ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)
        wait_passively()
        words = expand_short_forms(sys.argv[1:] if argv is None else argv)
        app(args=words, prog_name="mdlzip")
    except (MdlzipError, KeyboardInterrupt, OSError) as problem:
        sys.exit(report_failure(problem, verbose=0))
    finally:
        signal.signal(signal.SIGINT, leave_on_interrupt)
        _quiet_stdout()


def _quiet_stdout() -> None:
    """Flush now, so that a reader who has left causes no message at interpreter exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
