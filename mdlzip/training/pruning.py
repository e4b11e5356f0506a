"""Which weights go: the method's own mask, TAMADE, random gradient pruning."""

from __future__ import annotations

import torch
from torch import Tensor

from mdlzip.model.transformer import Transformer
from mdlzip.sparsity.base import Method
from mdlzip.sparsity.masks import apply_masks_
from mdlzip.sparsity.random_gradient import random_gradient_prune
from mdlzip.sparsity.tamade import find_threshold
from mdlzip.training.data import PIECE_BYTES, Batch, Batches
from mdlzip.training.figures import float_nats

_PROBES = 8
_HIGHEST_RMS = 2.0
_SYMBOLS_AT_A_TIME = 1024


def prune(
    model: Transformer,
    method: Method,
    batches: Batches,
    sample: list[Batch],
    tolerance: float,
    seed: int,
) -> None:
    """Zero the weights that the method, the threshold or their lack of influence condemn.

    sample: by whose code length TAMADE judges; tolerance: relative, what it may rise by. seed: of
    the random inputs.
    """
    params = dict(model.named_parameters())
    prunable = {n: params[n] for n in method.names}
    apply_masks_(prunable, method.final_masks())
    find_threshold(
        prunable,
        lambda: float_nats(model, batches, sample),
        tolerance,
        steps=_PROBES,
        high=_HIGHEST_RMS,
        scale="rms",
    )
    generator = torch.Generator().manual_seed(seed)

    def forward() -> Tensor:
        length = min(batches.chunk_size, PIECE_BYTES)
        shape = (max(2, _SYMBOLS_AT_A_TIME // length), length)
        symbols = model.get_buffer("symbols")
        places = torch.randint(0, len(symbols), shape, generator=generator)
        return model(symbols[places.to(symbols.device)])

    # Absent symbols have dead rows already; the head's output is the function itself.
    keep = [n for n in params if n not in prunable or model.specs[n].by_symbol]
    random_gradient_prune(model, forward, samples=4, exclude=keep, generator=generator)
