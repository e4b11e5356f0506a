"""The device to compute on."""

from __future__ import annotations

import sys

from mdlzip.errors import UsageError
from mdlzip.resources import torch_knows_gpus


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
