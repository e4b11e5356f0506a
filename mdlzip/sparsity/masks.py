"""Boolean masks over named parameters: True where the weight is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError

Masks = dict[str, Tensor]
"""Parameter name -> bool tensor of the parameter's shape, True where the weight survives.

Parameters that a mask dictionary does not name are left alone by every function here.
"""


def from_nonzero(params: Mapping[str, Tensor]) -> Masks:
    """The masks of all weights that are not exactly zero."""
    return {name: param.detach() != 0 for name, param in params.items()}


def nnz(tensors: Mapping[str, Tensor]) -> int:
    """Number of surviving entries of masks, or of non-zero weights of parameters."""
    return sum(int(torch.count_nonzero(tensor)) for tensor in tensors.values())


def density(tensors: Mapping[str, Tensor]) -> float:
    """Fraction of entries that survive (masks) or are not zero (parameters); 1.0 if empty."""
    cells = sum(tensor.numel() for tensor in tensors.values())
    return nnz(tensors) / cells if cells else 1.0


def check_masks(params: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Raise UsageError unless every mask is a bool tensor of a known parameter's shape."""
    for name, mask in masks.items():
        if name not in params:
            raise UsageError(f"mask for the unknown parameter {name!r}")
        if mask.dtype != torch.bool or mask.shape != params[name].shape:
            raise UsageError(f"mask of {name!r} does not fit: {mask.dtype} {tuple(mask.shape)}")


@torch.no_grad()
def apply_masks_(
    params: Mapping[str, nn.Parameter],
    masks: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer | None = None,
) -> None:
    """Zero the weights and gradients outside the masks, in place.

    With `optimiser`, every state tensor of a parameter's own shape (momentum, second moment) is
    zeroed there too, so that no old momentum moves a pruned weight.
    """
    check_masks(params, masks)
    for name, mask in masks.items():
        dead, param = ~mask, params[name]
        param.masked_fill_(dead, 0.0)
        if param.grad is not None:
            param.grad.masked_fill_(dead, 0.0)
        for value in optimiser.state.get(param, {}).values() if optimiser else ():
            if torch.is_tensor(value) and value.shape == param.shape:
                value.masked_fill_(dead.to(value.device), 0.0)


class _Hooks:
    """For the masked parameters of one optimiser, all in one call: on a GPU each costs a launch."""

    def __init__(self, pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
        self._pairs = pairs

    @torch.no_grad()
    def before(self, *_: Any) -> None:
        pairs = [(p.grad, keep) for p, keep in self._pairs if p.grad is not None]
        if pairs:
            torch._foreach_mul_([grad for grad, _ in pairs], [keep for _, keep in pairs])

    @torch.no_grad()
    def after(self, *_: Any) -> None:
        if self._pairs:
            torch._foreach_mul_([p for p, _ in self._pairs], [keep for _, keep in self._pairs])


class MaskHold:
    """Keeps weights under fixed masks while an optimiser trains: for pruned fine-tuning.

    Before each step the gradients outside the masks are zeroed, after it the weights are, so that
    neither weight decay nor an optimiser that mixes entries (Muon) revives anyone. The state of
    the optimiser is cleaned once, at the start. `release()` ends it; also a context manager.
    """

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        masks: Mapping[str, Tensor],
        *optimisers: torch.optim.Optimizer,
    ) -> None:
        check_masks(params, masks)
        apply_masks_(params, masks)
        self._handles = []
        for optimiser in optimisers:
            apply_masks_(params, masks, optimiser)
            mine = {p for group in optimiser.param_groups for p in group["params"]}
            held = [(params[name], mask) for name, mask in masks.items() if params[name] in mine]
            hooks = _Hooks([(p, mask.to(p.dtype)) for p, mask in held])
            self._handles.append(optimiser.register_step_pre_hook(hooks.before))
            self._handles.append(optimiser.register_step_post_hook(hooks.after))

    def release(self) -> None:
        """Let the weights move freely again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> MaskHold:
        """Return itself; the masks hold since construction."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the masks."""
        self.release()
