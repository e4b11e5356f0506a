"""The device to compute on."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mdlzip.errors import UsageError

_GPU_LIBRARIES = ("libtorch_cuda.so", "libtorch_hip.so")


def check_device(name: str) -> None:
    """UsageError unless `name` is auto, cpu, or a device that torch finds on this machine."""
    if name in ("auto", "cpu"):
        return
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = (str(error).splitlines() or ["not available"])[0]
        raise UsageError(f"device {name!r}: {reason}") from None


def pick_device(name: str) -> str:
    """The device of that name: "auto" is the GPU if there is one; UsageError for an unknown one."""
    if name == "auto":
        return "cuda" if has_gpu() else "cpu"
    check_device(name)
    return name


def has_gpu() -> bool:
    """Whether torch finds a GPU; torch is loaded only if it could."""
    if "torch" not in sys.modules and not torch_knows_gpus():
        return False
    import torch

    return torch.cuda.is_available()


@cache
def torch_knows_gpus() -> bool:
    """Whether the torch that is installed was built for GPUs; it is not loaded for this."""
    spec = find_spec("torch")  # finds the package without running it
    folder = Path(spec.origin).parent / "lib" if spec and spec.origin else None
    return folder is not None and any((folder / name).exists() for name in _GPU_LIBRARIES)
