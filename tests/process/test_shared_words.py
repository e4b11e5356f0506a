"""What kernels do beyond numba: calls by address, and words that threads hand to each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mdlzip.process.kernels import NOT_CALLED, called_at, compiled, entry
from mdlzip.process.shared_words import words

TURNS = 20_000


@compiled()
def weighed(values, weight):  # type: ignore[no-untyped-def]
    total = np.int64(-1)
    for value in values:
        total += value * weight
    return total


call = called_at(weighed)


@compiled()
def caller(where, values, weight):  # type: ignore[no-untyped-def]
    return call(where, (values, weight))


def test_a_call_by_address() -> None:
    values = np.arange(10)
    address, types = entry(weighed, values, 3)
    assert caller((address, types), values, 3) == weighed(values, 3) == 134


def test_other_types_are_not_called() -> None:
    where = entry(weighed, np.arange(10, dtype=np.int16), 3)
    assert caller(where, np.arange(10), 3) == NOT_CALLED


@compiled()
def doubled(values):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        values[i] *= 2


double = called_at(doubled)


@compiled()
def double_caller(where, values):  # type: ignore[no-untyped-def]
    return double(where, (values,))


def test_a_kernel_that_returns_nothing() -> None:
    """Whether it was called is told all the same: silence would be wrong symbols."""
    values = np.arange(4)
    assert double_caller(entry(doubled, values), values) == 0 and values.tolist() == [0, 2, 4, 6]
    where = entry(doubled, values.astype(np.int16))
    assert double_caller(where, values) == NOT_CALLED and values.tolist() == [0, 2, 4, 6]


def test_threads_take_turns() -> None:
    """Each adds what it reads; if one did not see what the other wrote, sums would differ."""
    read, write, rest = words()

    @compiled()
    def play(shared, sums, me):  # type: ignore[no-untyped-def]
        address = shared.ctypes.data
        for _ in range(TURNS):
            while read(address, 0) != me:
                rest()
            sums[0] = sums[0] * 31 + me + 1
            write(address, 0, 1 - me)

    shared, sums = np.zeros(1, np.int64), np.zeros(1, np.uint64)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(play, shared, sums, me) for me in (0, 1)]:
            done.result(timeout=60)
    expected = 0
    for turn in range(2 * TURNS):
        expected = (expected * 31 + turn % 2 + 1) % 2**64
    assert int(sums[0]) == expected
