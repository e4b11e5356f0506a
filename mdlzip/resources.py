"""What the program itself takes of the machine's memory, and the limit in plain words.

A limit of memory means the whole process, and most of a small process are its libraries. They are
not loaded when a limit is looked at (`list` never loads them), so what they take is known by kind
of build, as measured; `check_process` compares it with the truth once they are there.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from mdlzip.errors import LimitExceeded
from mdlzip.process.devices import torch_knows_gpus

# Resident sizes of decoding processes less what the archive makes them take; Linux, x86-64, Python
# 3.11. The first process of a machine compiles its kernels, which takes some 70 MiB more.
GENERAL_PROGRAM_BYTES = 36 << 20  # numpy, zstandard, liblzma
WEIGHTS_PROGRAM_BYTES = 160 << 20  # numba: weights are decoded, nothing is predicted
_KERNELS_PROGRAM_BYTES = 172 << 20
_TORCH_PROGRAM_BYTES = 392 << 20
_GPU_LIBRARIES_BYTES = 435 << 20  # resident parts of the CUDA or ROCm libraries


@cache
def learned_program_bytes() -> int:
    """Bytes of a process that predicts: Python, numpy, numba; torch where it may be asked."""
    if not torch_knows_gpus():
        return _KERNELS_PROGRAM_BYTES
    return _TORCH_PROGRAM_BYTES + _GPU_LIBRARIES_BYTES


def resident_bytes() -> int | None:
    """Bytes of this process that are in memory now; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def torch_is_loaded() -> bool:
    """Whether this process has paid for torch already."""
    return "torch" in sys.modules


def check_process(need: int, memory: int | None, before: int, now: int) -> None:
    """LimitExceeded if the libraries turn out larger than `learned_program_bytes` says.

    need: predicted peak; before, now: resident bytes of the process before and after torch was
    loaded.
    """
    excess = now - before + WEIGHTS_PROGRAM_BYTES - learned_program_bytes()
    if excess > 0:
        check_memory(need + excess, memory)


def check_memory(need: int, memory: int | None) -> None:
    """LimitExceeded naming the need and the remedy if `need` bytes are more than allowed."""
    if memory is not None and need > memory:
        raise LimitExceeded(
            f"decoding needs about {mebibytes(need)} of memory, allowed are {mebibytes(memory)};"
            f" pass --memory {mebibytes(need)} to allow it"
        )


def mebibytes(n: int) -> str:
    """`n` bytes, rounded up, in the unit `--memory` understands."""
    return f"{-(-n // (1 << 20))}MiB"


def give_back_freed_memory() -> None:
    """Hand pages that malloc holds but nobody uses back to the system; for after a large peak."""
    import ctypes

    with suppress(OSError, AttributeError):  # not glibc: nothing to hand back
        ctypes.CDLL(None).malloc_trim(0)
