"""`python -m mdlzip` and the console script: Ctrl-C is answered from the first moment on."""

from __future__ import annotations

# The part of `signal` that is in Python itself: the rest takes a while to load.
import _signal  # type: ignore[import-not-found]
import os


def _leave(signum: int, _frame: object) -> None:
    os._exit(128 + signum)  # nothing has been begun: no message, no traceback


def main() -> None:
    """Run the command line; the modules that it needs are loaded with Ctrl-C answered quietly."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _leave)
    from mdlzip.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
