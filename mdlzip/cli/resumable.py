"""Long work with checkpoints under the signals of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mdlzip.callbacks import OnProgress
from mdlzip.cli.options import Display
from mdlzip.cli.progress import make_progress, warn
from mdlzip.cli.signals import StopSwitch
from mdlzip.errors import Interrupted

# Phases in which a stop is answered by a checkpoint; in all others there is nothing to keep.
CHECKPOINTED_PHASES = frozenset({"train", "prune", "fine-tune", "quantise"})
_HINT = "; run the same command with --resume to go on"


@contextmanager
def resumable(display: Display) -> Iterator[tuple[OnProgress, Callable[[], bool]]]:
    """(on_progress, should_stop) for work that leaves a checkpoint when it is told to stop.

    The error that ends it then says how to go on, and has the exit code of the signal.
    """
    from mdlzip.codec.options import WARNING

    switch = StopSwitch()
    with make_progress(display.progress, quiet=display.quiet) as show:

        def on_progress(phase: str, done: float, total: float, note: str) -> None:
            if phase == WARNING:
                warn(show, note, quiet=display.quiet)
                return
            switch.enter_phase(graceful=phase in CHECKPOINTED_PHASES)
            show(phase, done, total, note)

        with switch.installed():
            try:
                yield on_progress, switch.should_stop
            except Interrupted as stop:
                raise _with_hint(stop, switch) from stop


def _with_hint(stop: Interrupted, switch: StopSwitch) -> Interrupted:
    """The same error with the way to go on, if there is one, and the exit code of the signal."""
    hint = "" if "--resume" in str(stop) or not switch.has_checkpoint else _HINT
    hinted = Interrupted(f"{stop}{hint}")
    if switch.received is not None:
        hinted.exit_code = 128 + switch.received
    return hinted
