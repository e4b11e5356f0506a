"""What the user sees: results on stdout, everything else on stderr, errors in one line."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec

import typer

from mdlzip.cli.signals import Cancelled
from mdlzip.errors import Interrupted, MdlzipError

P = ParamSpec("P")
RIGHT = ">"
LEFT = "<"


def result(text: str, *, to_stderr: bool = False) -> None:
    """Print a result; to stderr only when stdout carries the data itself."""
    print(text, file=sys.stderr if to_stderr else sys.stdout, flush=True)


def result_json(value: object) -> None:
    """Print a result as JSON, two spaces deep, non-ASCII kept."""
    result(json.dumps(value, indent=2, ensure_ascii=False))


def info(text: str, *, quiet: bool = False) -> None:
    """Print a remark to stderr unless the user asked for silence."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def error(text: str) -> None:
    """Print an error in one line, `mdlzip:` first, as the other compressors do."""
    line = " ".join(text.split())
    try:
        print(f"{_red('mdlzip:')} {line}", file=sys.stderr, flush=True)
    except OSError:
        pass  # stderr itself is gone; the exit code still tells


def _red(text: str) -> str:
    plain = not sys.stderr.isatty() or os.environ.get("NO_COLOR") or _dumb()
    return text if plain else f"\x1b[1;31m{text}\x1b[0m"


def _dumb() -> bool:
    return os.environ.get("TERM", "") in ("", "dumb")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Aligned plain text, one line per row; the same on a terminal and in a file.

    align: one of '<' and '>' per column; the default puts the first column left, the rest right.
    """
    body = [list(row) for row in rows]
    align = align or LEFT + RIGHT * (len(headers) - 1)
    widths = [max(len(r[i]) for r in [list(headers), *body]) for i in range(len(headers))]
    lines = []
    for row in [list(headers), *body]:
        cells = (f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def describe(problem: BaseException) -> tuple[str, int]:
    """The one line and the exit code for an exception."""
    if isinstance(problem, Cancelled):
        return f"stopped by {signal.Signals(problem.signum).name}", 128 + problem.signum
    if isinstance(problem, MdlzipError):
        return str(problem) or type(problem).__doc__ or "", problem.exit_code
    if isinstance(problem, KeyboardInterrupt):
        return "stopped", 130
    if isinstance(problem, OSError):
        name = f"{problem.filename}: " if problem.filename else ""
        return f"{name}{problem.strerror or problem}", 1
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return "not enough memory; try a smaller --preset, or --device cpu", 1
    what = f"{type(problem).__name__}: {problem}"
    return f"unexpected {what}; please report this (-vv shows the traceback)", 1


def is_broken_pipe(problem: BaseException | None) -> bool:
    """Whether the reader of our output has gone away, however deeply that is wrapped."""
    while problem is not None:
        if isinstance(problem, BrokenPipeError):
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def report_failure(problem: BaseException, *, verbose: int, prefix: str = "") -> int:
    """Say what went wrong and return the exit code; a closed pipe is nobody's news."""
    if is_broken_pipe(problem):
        # whatever is still buffered must not raise again when Python closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    text, code = describe(problem)
    error(prefix + text)
    if verbose >= 2:
        traceback.print_exception(problem, file=sys.stderr)
    return code


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """Wrap a command so that it ends in an exit code, never in a traceback (save with -vv)."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs) or 0
            sys.stdout.flush()
        except (typer.Exit, SystemExit):
            raise
        except BaseException as problem:
            verbose: Any = kwargs.get("verbose", 0)
            code = report_failure(problem, verbose=int(verbose))
        raise typer.Exit(code)

    return run


def for_each(files: Sequence[str], action: Callable[[str], None], *, verbose: int) -> int:
    """Run `action` on every file, going on after errors; the first error's code is returned.

    A signal, an interruption or a closed pipe ends the whole run.
    """
    first = 0
    for file in files:
        try:
            action(file)
        except (MdlzipError, OSError) as problem:
            if isinstance(problem, Interrupted) or is_broken_pipe(problem):
                raise
            prefix = "" if str(problem).startswith(file) else f"{file}: "
            code = report_failure(problem, verbose=verbose, prefix=prefix)
            first = first or code
    return first
