"""Runs of a study side by side: order, progress, errors, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import pytest
import torch

from mdlzip.errors import UsageError
from mdlzip.studies.workers import run_jobs

PATIENCE_S = 60.0


def threads_and_process(job: int, report: Callable[[float], None]) -> tuple[int, int, int]:
    """What the job is, how many threads it has and where it runs."""
    report(0.5)
    return job, torch.get_num_threads(), os.getpid()


def fail_at_two(job: int, report: Callable[[float], None]) -> int:
    """The job itself, unless it is 2; the others take long once 2 is there."""
    if job == 2:
        raise UsageError("two is not for me")
    return busy(job, report) if job > 2 else job


def busy(job: int, report: Callable[[float], None]) -> int:
    """Work that nobody waits for."""
    report(0.25)
    end = time.monotonic() + 10 * PATIENCE_S
    while time.monotonic() < end:
        torch.rand(100).sum()
    return job


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once_on_one_thread(workers: int) -> None:
    seen: list[list[float]] = []

    def record(shares: Sequence[float]) -> None:
        seen.append(list(shares))

    before = torch.get_num_threads()
    found = list(run_jobs(threads_and_process, [3, 1, 2], workers, record))
    assert sorted(job for job, _ in found) == [1, 2, 3]
    assert all(result[:2] == (job, 1) for job, result in found)
    places = {result[2] for _, result in found}
    assert (places == {os.getpid()}) == (workers == 1)
    assert torch.get_num_threads() == before
    assert seen[-1] == [1.0] * 3
    assert all(0 <= share <= 1 for shares in seen for share in shares)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_job_ends_them_all(workers: int) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match="two is not for me"):
        list(run_jobs(fail_at_two, [1, 2, 3, 4], workers, lambda _: None))
    assert time.monotonic() - began < PATIENCE_S
    assert not multiprocessing.active_children()


def test_a_signal_in_between_ends_the_workers() -> None:
    """What the command's handler raises while the parent waits."""

    class Stopped(BaseException):
        pass

    def look(shares: Sequence[float]) -> None:
        if any(shares):
            raise Stopped

    with (
        closing(run_jobs(busy, [1, 2, 3], 2, look)) as going,
        pytest.raises(Stopped),
    ):
        next(going)
    assert not multiprocessing.active_children()


def test_workers_do_not_outlive_a_killed_parent() -> None:
    program = (
        "import sys\n"
        "from tests.studies.test_workers import busy\n"
        "from mdlzip.studies.workers import run_jobs\n"
        "import multiprocessing\n"
        "def look(shares):\n"
        "    if all(shares):\n"
        "        print(*(c.pid for c in multiprocessing.active_children()), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    list(run_jobs(busy, [1, 2], 2, look))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what Python says of semaphores that nobody could free
        text=True,
    ) as parent:
        assert parent.stdout is not None
        timer = threading.Timer(PATIENCE_S, parent.kill)
        timer.start()
        children = [int(pid) for pid in parent.stdout.readline().split()]
        timer.cancel()
        parent.send_signal(signal.SIGKILL)
    assert len(children) == 2
    end = time.monotonic() + PATIENCE_S
    while any(map(is_alive, children)) and time.monotonic() < end:
        pass
    assert not any(map(is_alive, children))


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
