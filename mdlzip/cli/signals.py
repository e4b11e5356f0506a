"""Ctrl-C, TERM and HUP: checkpoint first where there is something to keep, stop at once else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mdlzip.cli.console import call_out

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Cancelled(BaseException):
    """A signal ends the command; a BaseException so that clean-up runs and nothing swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class StopSwitch:
    """Remembers the first signal while `graceful` is set; otherwise raises `Cancelled` at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.graceful = False
        self.has_checkpoint = False  # training has begun, so that --resume may find something
        self._raised = False

    def should_stop(self) -> bool:
        """True once a signal has asked for a checkpoint; the training loop polls this."""
        return self.received is not None

    def enter_phase(self, *, graceful: bool) -> None:
        """State whether the work now under way ends in a checkpoint when it is asked to stop."""
        self.graceful = graceful
        self.has_checkpoint = self.has_checkpoint or graceful
        if self.received is not None and not graceful:
            # the signal came too late for the last checkpoint of training: nothing more to keep
            self._cancel(self.received)

    def handle(self, signum: int, _frame: FrameType | None = None) -> None:
        """Signal handler."""
        if self._raised:
            os._exit(128 + signum)  # clean-up itself hangs or is too slow for the user
        if self.graceful and self.received is None:
            self.received = signum
            call_out("stopping", "stopping after a checkpoint; once more stops at once")
            return
        self._cancel(signum)

    def _cancel(self, signum: int) -> None:
        self._raised = True
        raise Cancelled(signum)

    @contextmanager
    def installed(self) -> Iterator[StopSwitch]:
        """Handlers in place; a signal that the parent process set to ignored stays ignored."""
        before = {s: signal.getsignal(s) for s in _SIGNALS}
        mine = [s for s in _SIGNALS if before[s] is not signal.SIG_IGN]
        for s in mine:
            signal.signal(s, self.handle)
        try:
            yield self
        finally:
            for s in mine:
                signal.signal(s, before[s])
