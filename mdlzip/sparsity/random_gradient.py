"""Random gradient pruning: delete weights on which the output does not depend (section 3.6)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError
from mdlzip.sparsity.masks import Masks, apply_masks_


def _chosen(model: nn.Module, exclude: Collection[str]) -> dict[str, nn.Parameter]:
    """Trainable parameters of `model` whose name fits no pattern of `exclude`."""
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in params):
            raise UsageError(f"no parameter fits the excluded name {pattern!r}")
    return {
        name: param
        for name, param in params.items()
        if not any(fnmatchcase(name, pattern) for pattern in exclude)
    }


def _depends(
    params: dict[str, nn.Parameter],
    forward: Callable[[], Tensor],
    samples: int,
    generator: torch.Generator | None,
) -> Masks:
    """Masks of the entries whose gradient was not exactly 0 for at least one sample."""
    seen = {name: torch.zeros_like(param, dtype=torch.bool) for name, param in params.items()}
    for _ in range(samples):
        output = forward()
        y = torch.randn(output.shape, generator=generator, dtype=torch.float32)
        loss = (y.to(output.device) - output.float()).square().sum()
        if not loss.requires_grad:
            raise UsageError("the forward function gives an output without a gradient")
        grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        for mask, grad in zip(seen.values(), grads, strict=True):
            if grad is not None:
                mask |= grad != 0  # NaN != 0: what cannot be judged is kept
    return seen


def random_gradient_prune(
    model: nn.Module,
    forward: Callable[[], Tensor],
    *,
    samples: int = 4,
    exclude: Collection[str] = (),
    generator: torch.Generator | None = None,
) -> Masks:
    """Zero the non-zero weights on which the output does not depend; give the masks of all tensors.

    For each sample, z is drawn by `forward`, y is standard normal, and one backward pass gives
    the gradient of ||y - f(z)||^2; a weight whose gradient is *exactly* 0 for all samples is
    spurious: it leads to a neuron without outgoing weights, or away from one without incoming
    weights and bias. Neurons of any depth are found in the same pass. `.grad` is not
    touched; the model is in evaluation mode meanwhile.

    forward: runs `model` on a fresh random input and returns its output (any shape, real, with
        gradient). Compute in float32, outside autocast: gradients must not underflow to 0.
    samples: how many (z, y). A ReLU unit may be off for one whole z by chance and its weights be
        removed wrongly, hence more than one; what is not 0 once is kept. Give z many rows
        too: a batch of 32 with 4 samples needs 128 zeros in a row for a mistake.
    exclude: names or patterns (`embedding.*`) of parameters that are neither changed nor named in
        the result. **Embeddings**: a row whose symbol does not occur in z has gradient 0 without
        being spurious. Either z contains every symbol that may occur (for bytes: a random
        permutation of 0..255, repeated), or the embedding is excluded. Position tables alike.
    generator: source of y, on the CPU.

    Returns name -> bool mask of the weights that are not zero afterwards, for trainable
    parameters that are not excluded. Raises UsageError for a pattern that fits nothing.
    """
    if samples < 1:
        raise UsageError(f"samples = {samples} must be at least 1")
    params = _chosen(model, exclude)
    if not params:
        return {}
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            seen = _depends(params, forward, samples, generator)
    finally:
        model.train(training)
    masks = {name: mask & (params[name].detach() != 0) for name, mask in seen.items()}
    apply_masks_(params, masks)
    return masks
