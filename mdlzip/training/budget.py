"""How much of a run is done: by the clock, or by counting steps."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """The fraction of a run that is done, which never falls, and the seconds that it took.

    At 1 the run is over; the last step may go a little beyond.

    seconds: that a run may take; not looked at if `steps` fixes its length (then the same seed
    gives the same archive). elapsed_s, fraction: where the run stands already. The clock (seconds,
    any origin) runs from construction on.
    """

    def __init__(
        self,
        seconds: float,
        steps: int | None = None,
        *,
        elapsed_s: float = 0.0,
        fraction: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.elapsed_s, self.fraction = elapsed_s, fraction
        self._seconds, self._steps = seconds, steps
        self._clock, self._last = clock, clock()

    def tick(self, steps_done: int) -> None:
        """Take the time and count: to be called after every step."""
        now = self._clock()
        self.elapsed_s += now - self._last
        self._last = now
        if self._steps is not None:
            self.fraction = steps_done / self._steps
        else:
            self.fraction = max(self.fraction, self.elapsed_s / max(self._seconds, 1e-3))
