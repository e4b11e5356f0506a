"""How many threads make the fastest steps while other programs share the cores.

The threads of a step wait for each other in hundreds of places. Where another program takes part of
a core, they all wait for the one that is held up, and fewer threads are faster. Nothing that the
system tells says how many, so neighbouring counts are tried for a few steps now and then.

A sum of floating-point numbers depends on the number of threads: only for runs whose length is
given in seconds, which no seed repeats anyway.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

import torch

from mdlzip.callbacks import OnProgress

_TRIAL_STEPS = 4  # the first, in which threads start, does not count
_KNOWN_STEPS = 8  # so many of the last steps tell the time of one
_LEAST_STEPS = 12  # between trials
_FIRST_WAIT_S, _LONGEST_WAIT_S = 4.0, 60.0
_BETTER = 0.93  # of the time of a step: less of a gain may be chance
_CHANGED = 1.3  # times slower or faster than at the last trial: try again soon
_HOPELESS = 3.0  # times slower: the trial ends at once


class ThreadChoice:
    """The number of threads, changed when a neighbour (half, double) makes faster steps.

    most: the largest number to use; it is the first. set_threads: called with every new number.
    """

    def __init__(self, most: int, set_threads: Callable[[int], object]) -> None:
        self.count = self._most = most
        self._set = set_threads
        self._known: deque[float] = deque(maxlen=_KNOWN_STEPS)
        self._trial: list[float] | None = None
        self._tried = most  # the number that the trial under way or the last one is about
        self._steps, self._waited_s, self._wait_s = 0, 0.0, _FIRST_WAIT_S
        self._at_last_trial = 0.0

    def step_took(self, seconds: float) -> None:
        """To be called after every step."""
        if self._trial is not None:
            self._trial.append(seconds)
            usual = statistics.median(self._known)
            if len(self._trial) == _TRIAL_STEPS or seconds > _HOPELESS * usual:
                self._decide(usual)
            return
        self._known.append(seconds)
        self._steps += 1
        self._waited_s += seconds
        if len(self._known) == _KNOWN_STEPS and self._is_time():
            self._tried = self._neighbour()
            if self._tried != self.count:
                self._trial = []
                self._set(self._tried)

    def _is_time(self) -> bool:
        usual = statistics.median(self._known)
        if self._at_last_trial and not 1 / _CHANGED < usual / self._at_last_trial < _CHANGED:
            self._wait_s = _FIRST_WAIT_S
        return self._steps >= _LEAST_STEPS and self._waited_s >= self._wait_s

    def _neighbour(self) -> int:
        """Half or double, in turn where both are possible."""
        half, double = max(1, self.count // 2), min(self._most, 2 * self.count)
        if half == self.count or (self._tried < self.count != double):
            return double
        return half

    def _decide(self, usual: float) -> None:
        assert self._trial
        counted = self._trial[1:] or self._trial
        found = statistics.median(counted)
        self._trial = None
        self._steps, self._waited_s = 0, 0.0
        if len(counted) == _TRIAL_STEPS - 1 and found < _BETTER * usual:
            self.count = self._tried
            self._known.clear()
            self._wait_s, self._at_last_trial = _FIRST_WAIT_S, found
        else:
            self._set(self.count)
            self._wait_s, self._at_last_trial = min(2 * self._wait_s, _LONGEST_WAIT_S), usual


def choosing_threads(on_progress: OnProgress) -> OnProgress:
    """`on_progress`, which also looks at the time between its calls of the phase "train".

    The calling thread's number of threads is the most that are used.
    """
    choice = ThreadChoice(torch.get_num_threads(), torch.set_num_threads)
    last: float | None = None

    def watch(phase: str, done: float, total: float, note: str) -> None:
        nonlocal last
        on_progress(phase, done, total, note)
        if phase == "train":
            now = time.perf_counter()
            if last is not None:
                choice.step_took(now - last)
            last = now
        else:
            last = None  # what comes next is no step alone

    return watch
