"""Code lengths on a sample of chunks: of the float model and of the integer predictor."""

from __future__ import annotations

import numpy as np
import torch

from mdlzip.errors import ExportRefused
from mdlzip.model.transformer import Transformer
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.predictor import Predictor, shifted
from mdlzip.training.data import IGNORE, Batch, Batches
from mdlzip.training.loss import code_nats


@torch.no_grad()
def float_nats(
    model: Transformer, batches: Batches, sample: list[Batch], *, beside_experts: bool = True
) -> float:
    """Mean nats per byte of the float model, in float32, with whatever rounding it has now.

    beside_experts: see `code_nats`.
    """
    total, n = 0.0, 0
    for batch in (batch.to(model.head.device) for batch in sample):
        logits = model(batch.symbols, batch.matches)
        total += float(code_nats(logits, batch, beside_experts=beside_experts))
        n += batches.bytes_of(batch.targets)
    return total / max(n, 1)


def integer_nats(network: IntegerNetwork, batches: Batches, n_chunks: int) -> float:
    """Mean nats per byte under the integer predictor's counts, on the same chunks.

    Raises ExportRefused if they hold a byte outside the network's alphabet.
    """
    predictor = Predictor(network, batches.chunk_size)
    chunks = batches.sample(n_chunks)
    total, n = 0.0, 0
    for i in range(0, len(chunks), 8):
        x, y, *_ = batches.gather(chunks[i : i + 8])
        n += batches.bytes_of(y)
        symbols, used = x.numpy(), (y != IGNORE).numpy()
        gaps = predictor.forward(shifted(symbols), predictor.new_state(len(symbols)))
        counts = predictor.count_table[gaps]
        ranks = network.vocabulary.ranks[symbols]
        if (ranks[used] < 0).any():
            raise ExportRefused("a byte of the sample is not in the alphabet of the network")
        hit = np.take_along_axis(counts, np.maximum(ranks, 0)[..., None], axis=-1)[..., 0]
        nats = np.log(counts.sum(-1)) - np.log(hit)
        total += float(nats[used].sum())
    return total / max(n, 1)
