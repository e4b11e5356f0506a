"""From an exception to one line and an exit code; every command is wrapped in this."""

from __future__ import annotations

import functools
import signal
import sys
import traceback
from collections.abc import Callable

import typer

from mdlzip.cli import streams
from mdlzip.cli.bundles import flattened
from mdlzip.cli.console import error
from mdlzip.cli.signals import Cancelled
from mdlzip.errors import MdlzipError

READER_LEFT = 128 + signal.SIGPIPE


def describe(problem: BaseException) -> tuple[str, int]:
    """The one line and the exit code for an exception."""
    if isinstance(problem, Cancelled):
        return f"stopped by {signal.Signals(problem.signum).name}", 128 + problem.signum
    if isinstance(problem, MdlzipError):
        return str(problem) or type(problem).__doc__ or "", problem.exit_code
    if isinstance(problem, KeyboardInterrupt):
        return "stopped", 128 + signal.SIGINT
    if isinstance(problem, OSError):
        name = f"{problem.filename}: " if problem.filename else ""
        return f"{name}{problem.strerror or problem}", 1
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return "not enough memory; try a smaller --preset, or --device cpu", 1
    what = " ".join(f"{type(problem).__name__}: {problem}".split())
    return f"unexpected {what}; please report this (-vv shows the traceback)", 1


def reader_left(problem: BaseException | None) -> bool:
    """Whether the reader of our output has gone away, however deeply that is wrapped."""
    while problem is not None:
        if isinstance(problem, BrokenPipeError):
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def report_failure(problem: BaseException, *, verbose: int, file: str | None = None) -> int:
    """Say what went wrong (with which FILE) and return the exit code.

    A closed pipe is not reported.
    """
    if reader_left(problem):
        streams.discard(sys.stdout)
        return READER_LEFT
    text, code = describe(problem)
    trace = "".join(traceback.format_exception(problem)) if verbose >= 2 else ""
    error(text, exit_code=code, file=file, trace=trace.rstrip())
    return code


def guarded(command: Callable[..., int | None]) -> Callable[..., None]:
    """Make a command of the command line out of a function.

    Its bundles of options (see `cli.options`) become options one by one, and it ends in an exit
    code, never in a traceback (save with -vv).
    """
    flat = flattened(command)

    @functools.wraps(flat)
    def run(**options: object) -> None:
        try:
            code = flat(**options) or 0
        except (typer.Exit, SystemExit):
            raise
        except BaseException as problem:
            verbose = options.get("verbose", 0)
            code = report_failure(problem, verbose=verbose if isinstance(verbose, int) else 0)
        raise typer.Exit(code)

    return run
