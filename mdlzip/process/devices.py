"""The device to compute on."""

from __future__ import annotations

from mdlzip.errors import UsageError


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
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(name)
    return name
