"""The typer application: commands, short forms, version; every other room is imported lazily."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Annotated, Any, cast

import typer
import typer.main

from mdlzip import __version__
from mdlzip.cli import streams
from mdlzip.cli.bench_cmd import bench
from mdlzip.cli.cat_cmd import cat
from mdlzip.cli.compress_cmd import compress
from mdlzip.cli.console import ReportLost, error, result, speak_events, wants_events
from mdlzip.cli.decompress_cmd import decompress
from mdlzip.cli.doctor_cmd import doctor
from mdlzip.cli.exchange_cmd import export_weights, import_weights
from mdlzip.cli.failures import reader_left, report_failure
from mdlzip.cli.list_cmd import list_archives
from mdlzip.cli.models_cmd import models
from mdlzip.cli.short_forms import Grammar, LeveledCommand, expand
from mdlzip.cli.study import study
from mdlzip.cli.test_cmd import test
from mdlzip.cli.train_cmd import train
from mdlzip.errors import MdlzipError
from mdlzip.process.settings import wait_passively

_NAME = "mdlzip"
_COMPLETION = "_MDLZIP_COMPLETE"
# base of all that the parser raises; typer has its own copy of it in some releases
_MISUSE = cast(type[Exception], typer.BadParameter.__mro__[2])

app = typer.Typer(
    name=_NAME,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich costs half of the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compress", cls=LeveledCommand)(compress)
app.command("decompress")(decompress)
app.command("test")(test)
app.command("list")(list_archives)
app.command("cat")(cat)
app.command("bench", cls=LeveledCommand)(bench)
app.command("train", cls=LeveledCommand)(train)
app.command("export")(export_weights)
app.command("import")(import_weights)
app.command("doctor")(doctor)
app.add_typer(models)
app.add_typer(study)


def _print_version(wanted: bool) -> None:
    if wanted:
        result(f"mdlzip {__version__}")
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

    Short forms: mdlzip FILE or -9 FILE (compress), -d FILE (decompress), -t FILE (test), -l FILE
    (list); without FILE from standard input to standard output, so tar -I mdlzip works. Sources are
    kept.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 corrupt archive, 4 newer format, 5 over a limit,
    6 output exists, 7 verification failed, 8 model missing, 128 + n stopped by signal n.
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit; never shows a traceback unless -vv asks for it."""
    streams.settle_streams()
    line = sys.argv[1:] if argv is None else argv
    speak_events(wants_events(line))
    wait_passively()
    at_edges = signal.getsignal(signal.SIGINT)  # `__main__` ends the process quietly
    try:
        code = _run(line)
    finally:
        signal.signal(signal.SIGINT, at_edges)
    sys.exit(_finished(code))


def _run(line: list[str]) -> int:
    """The exit code of a line of words."""
    program = typer.main.get_command(app)
    if _COMPLETION in os.environ:  # the shell asks for completions
        program.main(prog_name=_NAME)
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on it is reported
        words = expand(line, Grammar.of(program))
        with program.make_context(_NAME, words) as context:
            program.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except _MISUSE as problem:
        return _refuse(problem)
    except OSError as problem:  # of the help: the commands let none of theirs out
        return report_failure(_lost(problem), verbose=0)
    except (MdlzipError, KeyboardInterrupt) as problem:
        return report_failure(problem, verbose=0)
    return 0


def _refuse(problem: Any) -> int:
    """Say in one line what is wrong with the options; a group without a command shows its help."""
    if type(problem).__name__ == "NoArgsIsHelpError":
        with contextlib.suppress(OSError):
            problem.show()
        return int(problem.exit_code)
    context = getattr(problem, "ctx", None)
    where = context.command_path if context else _NAME
    text = " ".join(problem.format_message().split()).rstrip(".")
    error(f"{text}; see {where} --help", exit_code=problem.exit_code)
    return int(problem.exit_code)


def _lost(problem: OSError) -> Exception:
    """What to report when standard output does not take what was printed."""
    if reader_left(problem) or isinstance(problem, MdlzipError):
        return problem
    return ReportLost(f"cannot write to standard output: {streams.why(problem)}")


def _finished(code: int) -> int:
    """`code`, or why the last of the output could not be written; nothing is left to go wrong."""
    try:
        sys.stdout.flush()
    except OSError as problem:
        code = code or report_failure(_lost(problem), verbose=0)
        streams.discard(sys.stdout)
    try:
        sys.stderr.flush()
    except OSError:
        streams.discard(sys.stderr)
    return code
