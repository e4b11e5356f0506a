"""Progress on stderr: a bar on a terminal, a line every 10 s elsewhere, JSON lines on demand."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from mdlzip.cli.console import event, speaks_events, to_stderr
from mdlzip.cli.signals import StopSwitch
from mdlzip.errors import UsageError
from mdlzip.report import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

MODES = ("auto", "always", "never", "json")
PLAIN_INTERVAL_S = 10.0
JSON_INTERVAL_S = 1.0
PLAN = "plan"  # the phase whose note is the estimate: shown as a line of its own


class Progress(Protocol):
    """Shows how far a command has come; also a context manager, and callable by the codec."""

    def __call__(self, phase: str, done: float, total: float, note: str) -> None:
        """`done` of `total` units of `phase` are finished; `note` is for the reader."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def check_mode(mode: str) -> None:
    """UsageError unless `mode` is one of MODES."""
    if mode not in MODES:
        raise UsageError(f"--progress {mode}: choose one of {', '.join(MODES)}")


def make_progress(mode: str, *, quiet: bool) -> Progress:
    """The display for `--progress MODE`; `-q` silences all but what was asked for by name."""
    check_mode(mode)
    if mode == "json":
        return JsonProgress()
    if mode == "never" or (quiet and mode == "auto"):
        return NoProgress()
    dumb = os.environ.get("TERM", "") in ("", "dumb")
    if mode == "always" or (sys.stderr.isatty() and not dumb):
        return BarProgress(force=mode == "always")
    return PlainProgress()


@contextlib.contextmanager
def under_way(mode: str, *, quiet: bool) -> Iterator[Progress]:
    """The display of a work that a signal ends at once, by an exception that unwinds the stack."""
    with StopSwitch().installed(), make_progress(mode, quiet=quiet) as show:
        yield show


def warn(show: Progress, text: str, *, quiet: bool) -> None:
    """Tell of something that went wrong without harm, as a line of its own above any bar."""
    if speaks_events():
        event("warning", message=text)
    elif not quiet:
        line = f"warning: {text}"
        if type(show) is NoProgress:
            to_stderr(f"mdlzip: {printable(line)}")
        else:
            show(PLAN, 0, 0, line)


class NoProgress:
    """Shows nothing."""

    def __call__(self, phase: str, done: float, total: float, note: str) -> None:
        """Ignore the event."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Clock:
    """Time left in the current phase, from the speed since the phase began in this process."""

    def __init__(self) -> None:
        self._phase = ""
        self._start = (0.0, 0.0)  # seconds, units already done when the phase was first seen

    def remaining_s(self, phase: str, done: float, total: float) -> float | None:
        """Estimated seconds left, or None while nothing has been measured."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._start = phase, (now, done)
        elapsed, gained = now - self._start[0], done - self._start[1]
        if elapsed < 0.5 or gained <= 0 or total <= 0:
            return None
        return max(0.0, (total - done) * elapsed / gained)


class PlainProgress(NoProgress):
    """One line every `interval_s` seconds; for logs, pipes and dumb terminals."""

    def __init__(self, interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._next = time.monotonic() + interval_s
        self._clock = _Clock()

    def __call__(self, phase: str, done: float, total: float, note: str) -> None:
        """Print a line if the last one is old enough."""
        left = self._clock.remaining_s(phase, done, total)
        now = time.monotonic()
        if phase == PLAN:
            if note:
                self._print(note)
            return
        if now < self._next:
            return
        self._next = now + self._interval_s
        percent = f"{100 * done / total:.0f} %" if total > 0 else f"{done:g}"
        parts = [f"{phase} {percent}", f"{duration(left)} left" if left is not None else "", note]
        self._print(", ".join(p for p in parts if p))

    def _print(self, text: str) -> None:
        to_stderr(f"mdlzip: {printable(text)}")


class JsonProgress(NoProgress):
    """One JSON object a line: schema, event, phase, done, total, eta_s (or null), note."""

    def __init__(self, interval_s: float = JSON_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._last: tuple[str, float] = ("", 0.0)
        self._clock = _Clock()

    def __call__(self, phase: str, done: float, total: float, note: str) -> None:
        """Print the event if it opens or ends a phase or the last line is old enough."""
        left = self._clock.remaining_s(phase, done, total)
        now = time.monotonic()
        due = phase != self._last[0] or now - self._last[1] >= self._interval_s
        if not due and done < total:
            return
        self._last = (phase, now)
        eta = None if left is None else round(left, 1)
        event("progress", phase=phase, done=done, total=total, eta_s=eta, note=note)


class BarProgress(NoProgress):
    """A rich bar per phase with the time left; earlier phases stay above it."""

    def __init__(self, *, force: bool = False) -> None:
        self._force = force
        self._bar: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._phase = ""

    def _start(self) -> RichProgress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        bar = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True, force_terminal=True if self._force else None),
            redirect_stdout=False,  # stdout may carry the archive
            redirect_stderr=False,
        )
        bar.start()
        return bar

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.stop()

    def __call__(self, phase: str, done: float, total: float, note: str) -> None:
        """Move the bar; a new phase gets a new one. A terminal that is gone is ignored."""
        with contextlib.suppress(OSError, ValueError):
            self._show(phase, done, total, printable(note))

    def _show(self, phase: str, done: float, total: float, note: str) -> None:
        if self._bar is None:  # not before there is something to show
            self._bar = self._start()
        if phase == PLAN:
            if note:
                self._bar.console.print(note, markup=False, highlight=False)
            return
        if phase != self._phase and self._phase in self._tasks:
            self._bar.stop_task(self._tasks[self._phase])
        self._phase = phase
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(phase, total=total or None, note=note)
        self._bar.update(self._tasks[phase], completed=done, total=total or None, note=note)


def duration(seconds: float) -> str:
    """`seconds` for people: 8 s, 3m20s, 1h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
