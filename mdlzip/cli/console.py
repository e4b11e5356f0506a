"""What the user sees: results on stdout, everything else on stderr, errors in one line.

Text from outside (names, messages of libraries) is escaped where it does not print as itself. With
`--progress json` each line on stderr is one JSON object: {"schema": 1, "event": KIND, ...}, where
KIND is progress, remark, warning, error, result or stopping.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from mdlzip.cli import streams
from mdlzip.errors import MdlzipError
from mdlzip.report import SCHEMA, printable, to_json

RIGHT = ">"
LEFT = "<"
_events = False


class ReportLost(MdlzipError):
    """A result could not be printed."""


def speak_events(wanted: bool) -> None:
    """Whether stderr carries JSON lines from now on, those of Python's warnings included."""
    global _events
    _events = wanted
    if wanted:
        warnings.showwarning = lambda message, *_, **__: info(str(message))


def speaks_events() -> bool:
    """Whether stderr carries JSON lines."""
    return _events


def result(text: str, *, to_stderr: bool = False) -> None:
    """Print a result; to stderr only when stdout carries the data itself. Raises ReportLost."""
    text = "\n".join(map(printable, text.split("\n")))
    try:
        print(text, file=sys.stderr if to_stderr else sys.stdout, flush=True)
    except BrokenPipeError:
        raise
    except OSError as problem:
        where = "standard error" if to_stderr else "standard output"
        raise ReportLost(f"cannot write to {where}: {streams.why(problem)}") from problem


def result_json(value: object, *, to_stderr: bool = False) -> None:
    """Print a result as JSON: two spaces deep, or one line among the JSON lines of stderr."""
    result(to_json(value, indent=None if to_stderr and _events else 2), to_stderr=to_stderr)


def info(text: str, *, quiet: bool = False) -> None:
    """Print a remark to stderr unless the user asked for silence."""
    if quiet:
        return
    if _events:
        event("remark", text=text)
    else:
        to_stderr(printable(text))


def error(text: str, *, exit_code: int, file: str | None = None, trace: str = "") -> None:
    """Print an error in one line, `mdlzip:` first, as the other compressors do.

    file: the FILE that it is about; the line begins with its name. trace: a traceback, "" for none.
    """
    if _events:
        more = {"traceback": trace} if trace else {}
        event("error", file=file, error=text, exit_code=exit_code, **more)
        return
    if file and not text.startswith((f"{file}: ", f"{file} ")):
        text = f"{file}: {text}"
    to_stderr(f"{_red('mdlzip:')} {printable(text)}")
    if trace:
        to_stderr("\n".join(map(printable, trace.split("\n"))))


def event(kind: str, **values: Any) -> None:
    """Print one JSON line to stderr."""
    to_stderr(to_json({"schema": SCHEMA, "event": kind, **values}, indent=None))


def to_stderr(line: str) -> None:
    """Print a line; if stderr is closed, the work goes on and the exit code tells."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def call_out(kind: str, text: str) -> None:
    """Print a remark from a signal handler, which may have interrupted a write to stderr."""
    if _events:
        line = to_json({"schema": SCHEMA, "event": kind, "text": text}, indent=None)
    else:
        line = f"mdlzip: {text}"
    try:
        below = "\n" if not _events and os.isatty(sys.stderr.fileno()) else ""  # a bar's line
        os.write(sys.stderr.fileno(), f"{below}{line}\n".encode())
    except (OSError, ValueError):
        pass


def _red(text: str) -> str:
    plain = not sys.stderr.isatty() or os.environ.get("NO_COLOR") or _dumb()
    return text if plain else f"\x1b[1;31m{text}\x1b[0m"


def _dumb() -> bool:
    return os.environ.get("TERM", "") in ("", "dumb")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Aligned plain text, one line per row; the same on a terminal and in a file.

    align: one of '<' and '>' per column; the default puts the first column left, the rest right.
    """
    body = [[printable(cell) for cell in row] for row in rows]
    align = align or LEFT + RIGHT * (len(headers) - 1)
    widths = [max(len(r[i]) for r in [list(headers), *body]) for i in range(len(headers))]
    lines = []
    for row in [list(headers), *body]:
        cells = (f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def wants_events(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON lines; known before it is parsed, for its own errors."""
    mode = ""
    for i, word in enumerate(words):
        if word == "--":
            break
        if word == "--progress":
            mode = "".join(words[i + 1 : i + 2])
        elif word.startswith("--progress="):
            mode = word.partition("=")[2]
    return mode == "json"
