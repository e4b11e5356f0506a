"""Settings for a process that is mdlzip's alone: the command line and its workers, never a library.

They last as long as the process, so a program that imports mdlzip must not get them.
"""

from __future__ import annotations

import os

# Whoever sets one of these has decided. GOMP_: GNU's OpenMP, which torch for Linux brings; KMP_:
# that of LLVM and Intel.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
_BRIEFLY = {"GOMP_SPINCOUNT": "2000"}  # some 20 microseconds
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt, malloc.h
_NEVER_TRIM = (1 << 31) - 1


def wait_passively() -> None:
    """Let threads sleep at once where they wait for each other; call it before torch is loaded.

    By default they spin. A training step has hundreds of such places, and as soon as another
    process takes part of a core, the others spin for all the time that one thread is held up.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ.update(_PASSIVE)


def prepare_training(*, fixed_steps: bool) -> None:
    """What a process that trains needs, before torch is loaded.

    fixed_steps: whether the number of steps is given, so that the number of threads stays as it is
    (`training.threads`) and must bear busy cores.
    """
    keep_freed_memory()
    if not fixed_steps:
        spin_briefly()


def spin_briefly() -> None:
    """Let threads spin a little before they sleep, unless the user has decided otherwise.

    On idle cores that saves what sleeping costs; on busy ones it is for runs that then take fewer
    threads.
    """
    passive = all(os.environ.get(name) == value for name, value in _PASSIVE.items())
    if passive and "GOMP_SPINCOUNT" not in os.environ:
        os.environ.update(_BRIEFLY)


def keep_freed_memory() -> None:
    """Let malloc keep all memory that is freed, for good.

    Every training step frees and takes back the same large tensors; handing them to the system each
    time costs a page fault for every 4 KiB, about a tenth of the time of a step.
    """
    import ctypes

    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)  # no private mappings
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    except (OSError, AttributeError):
        pass  # not glibc: only slower
