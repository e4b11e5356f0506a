"""How a training run uses the CPU, and how it leaves the process: as it was."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mdlzip.process.cores import thread_count

_FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of the Linux kernel
_OPENMP_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def training_threads(threads: int | None) -> int:
    """The threads that were asked for, or one per usable core that torch would use.

    One in a process that was forked (`os.fork`, multiprocessing's "fork"): the threads of OpenMP
    are not forked with it, and a parallel step would wait for them for ever.
    """
    if _forked():
        return 1
    return threads or min(torch.get_num_threads(), thread_count())


def _forked() -> bool:
    """Whether this process was forked from another Python program, as far as the system tells."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    fields = stat.rpartition(")")[2].split()  # of proc(5), from the third on
    flags = fields[6] if len(fields) > 6 else ""
    return flags.isdigit() and bool(int(flags) & _FORKED_WITHOUT_EXEC)


@contextmanager
def settled_cpu(threads: int | None) -> Iterator[None]:
    """Threads as asked for and no denormals while the block runs; at its end all is as before.

    threads: None for `training_threads`. Moments of weights without gradient fade into denormals,
    which processors compute far more slowly than other numbers.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(training_threads(threads))
    flushing = _denormals_flushed_by_thread()
    on_every_thread(lambda: torch.set_flush_denormal(True))
    try:
        yield
    finally:
        # Threads that have come since then took the flag from this one.
        here = flushing[threading.get_ident()]
        on_every_thread(lambda: torch.set_flush_denormal(flushing.get(threading.get_ident(), here)))
        torch.set_num_threads(before)


def _denormals_flushed_by_thread() -> dict[int, bool]:
    """For each thread of torch: whether it takes denormal numbers for zero."""
    found: dict[int, bool] = {}

    def look() -> None:
        found[threading.get_ident()] = sys.float_info.min * 0.5 == 0.0

    on_every_thread(look)
    return found


def on_every_thread(action: Callable[[], object]) -> None:
    """Call `action` on this thread and on those that torch computes on together with it.

    The flag for denormals belongs to a thread and is inherited by those that it starts: once set
    here, it would stay set for ever on the threads of OpenMP. Without GNU's OpenMP: here only.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        action()
        return
    try:
        openmp = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)  # torch's own, or an error
        start = openmp.GOMP_parallel
    except (OSError, AttributeError):
        action()
        return

    def body(_: object) -> None:
        action()

    start(_OPENMP_BODY(body), None, ctypes.c_uint(threads), ctypes.c_uint(0))
