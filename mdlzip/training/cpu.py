"""CPU settings for training: threads, no denormals, freed memory kept."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt, malloc.h


def settle_cpu(threads: int | None) -> None:
    """Settings of this process and this thread; threads: of torch, None leaves them as they are.

    Every step frees and takes back the same large tensors; handing them to the system each time
    costs a page fault for every 4 KiB, several milliseconds a tensor. Moments of weights without
    gradient fade into denormals, which processors compute far more slowly than other numbers.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)  # no private mappings
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)  # never shrink
    except (OSError, AttributeError):
        pass  # not glibc: only slower


@contextmanager
def settled_cpu(threads: int | None) -> Iterator[None]:
    """`settle_cpu`; at the end denormals and the thread count are as before."""
    before = torch.get_num_threads()
    settle_cpu(threads)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
