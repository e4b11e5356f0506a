"""The general methods as rivals of a job: how much of its budget they get, and when."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack

from mdlzip.codec.generic import compete, hopeless, use_rest
from mdlzip.codec.job import Job
from mdlzip.codec.race import Rivals
from mdlzip.process.cores import thread_count
from mdlzip.process.devices import pick_device
from mdlzip.resources import give_back_freed_memory

_RIVALS_SHARE, _RIVALS_S = 0.25, 5.0  # share of the budget, but at least these seconds
_SHARE_WITHOUT_A_NETWORK = 0.75
_FASTEST_NETWORK = 800_000  # bytes that one core codes in a second, at most
_MOST_CODING = 0.8  # of the budget; the rest is too little to train
_REACH = 0.7  # of the time that is left: planning and closing take some, too
_CLOSING_SHARE = 0.1  # of the budget, for writing and verifying what a general method made


def compete_for(job: Job, stack: ExitStack) -> Rivals:
    """What the general methods make of the input, in at most a quarter of the budget.

    Three quarters where no network could be coded with in time, however small.
    """
    options, size = job.options, job.corpus.size
    if not options.fallback and size:
        return Rivals({})
    began = time.monotonic()
    share = _SHARE_WITHOUT_A_NETWORK if _too_large(job) else _RIVALS_SHARE
    limit_s = max(share * options.seconds(size), _RIVALS_S)
    if options.steps:
        limit_s = math.inf
    rivals = compete(
        job.corpus,
        job.stored_name,
        job.progress,
        job.should_stop,
        memory=options.memory,
        limit_s=limit_s,
        threads=options.threads,
    )
    stack.callback(rivals.close)
    job.skipped = hopeless(job.layout, rivals)
    job.encode_s |= dict.fromkeys((body.label for body in rivals.sizes), time.monotonic() - began)
    return rivals


def _too_large(job: Job) -> bool:
    """Whether coding and verifying with any network would leave no time to train it."""
    options, size = job.options, job.corpus.size
    if pick_device(options.device) != "cpu":
        return False
    seconds = size / (_FASTEST_NETWORK * thread_count(options.threads))
    return seconds * (2 if options.verify else 1) > _MOST_CODING * options.seconds(size)


def least_within_reach(job: Job, rivals: Rivals) -> int | None:
    """Bytes of the smallest general archive that there is, or could be within the budget."""
    sizes = list(rivals.sizes.values())
    budget_s = job.options.seconds(job.corpus.size)
    left_s = _REACH * (budget_s - (time.monotonic() - job.began))
    for heading in rivals.cut_short.values():
        if heading.seconds <= left_s:
            sizes.append(heading.archive_bytes)
    return min(sizes, default=None)


def use_rest_of_budget(job: Job, rivals: Rivals) -> None:
    """Give the general methods that were cut short the time that no training takes.

    What they were heading for where they did not come to an end is a warning.
    """
    if job.network is None:
        _go_on(job, rivals)
    for body, heading in rivals.cut_short.items():
        job.warn(
            f"{body.label} at its hardest was stopped for lack of time; it was heading for"
            f" {heading.archive_bytes:,} bytes"
        )


def _go_on(job: Job, rivals: Rivals) -> None:
    options, size = job.options, job.corpus.size
    began = time.monotonic()
    left_s = options.seconds(size) - (began - job.began)
    best = min(job.candidates.values(), default=0)
    wanted = any(heading.archive_bytes < best for heading in rivals.cut_short.values())
    limit_s = left_s - _CLOSING_SHARE * options.seconds(size)
    if options.steps or not wanted or limit_s <= 0:
        return
    give_back_freed_memory()  # of planning, since LZMA needs a lot
    use_rest(
        rivals,
        job.corpus,
        job.stored_name,
        job.progress,
        job.should_stop,
        limit_s=limit_s,
        threads=options.threads,
    )
    job.candidates |= {body.label: size for body, size in rivals.sizes.items()}
    job.encode_s |= dict.fromkeys((body.label for body in rivals.sizes), time.monotonic() - began)
