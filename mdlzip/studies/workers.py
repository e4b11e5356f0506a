"""Independent runs of a study side by side: a process each, one thread a process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from mdlzip.process.settings import keep_freed_memory

Job = TypeVar("Job")
Result = TypeVar("Result")
Report = Callable[[float], None]
"""Called by a job with its finished share, 0..1."""

_LOOK_EVERY_S = 0.5

_shares: Any = None  # of a worker: what all jobs have done, shared with the parent


def run_jobs(
    function: Callable[[Job, Report], Result],
    jobs: Sequence[Job],
    workers: int,
    on_progress: Callable[[Sequence[float]], None],
) -> Generator[tuple[Job, Result]]:
    """Yield (job, function(job, report)) for each job as it ends; they begin in their order.

    function: at module level, jobs and results picklable. Every job has one thread of torch, here
    or in a process of its own, so results do not depend on `workers` (>= 1). on_progress: called
    with the shares of all jobs, in their order. The first exception of a job stops all workers at
    once, and so does closing the generator (`contextlib.closing`).
    """
    if workers == 1 or len(jobs) < 2:
        yield from _one_by_one(function, jobs, on_progress)
        return
    context = _Spawning()
    shares = context.RawArray("d", len(jobs))
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _begin, (shares,))
    try:
        futures = {pool.submit(_work, function, i, job): job for i, job in enumerate(jobs)}
        while futures:
            done, _ = wait(futures, _LOOK_EVERY_S, FIRST_COMPLETED)
            on_progress(list(shares))
            for future in done:
                yield futures.pop(future), future.result()
    except BaseException:  # a signal as well: the work of minutes is of no use any more
        for child in context.children:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _Spawning(SpawnContext):
    """Starts processes afresh and knows those that it has started: the caller may have others."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        child = SpawnProcess(*args, **kwargs)
        self.children.append(child)
        return child


def _one_by_one(
    function: Callable[[Job, Report], Result],
    jobs: Sequence[Job],
    on_progress: Callable[[Sequence[float]], None],
) -> Generator[tuple[Job, Result]]:
    from mdlzip.training.cpu import settled_cpu

    shares = [0.0] * len(jobs)
    with settled_cpu(1):
        for i, job in enumerate(jobs):

            def report(share: float, i: int = i) -> None:
                shares[i] = share
                on_progress(shares)

            result = function(job, report)
            report(1.0)
            yield job, result


def _begin(shares: Any) -> None:
    """First thing in a worker; signals are the parent's to handle, who then ends the workers."""
    import torch

    global _shares
    _shares = shares
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(function: Callable[[Job, Report], Result], i: int, job: Job) -> Result:
    def report(share: float) -> None:
        _shares[i] = share

    result = function(job, report)
    report(1.0)
    return result
