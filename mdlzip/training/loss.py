"""What a network is trained for: the code length, beside the experts where they read the file.

An archive with a context mixes the network with the experts (`mdlzip.experts`), decision by
decision, in the log-odds. Training knows how likely the experts alone hold each symbol, and takes
the final odds for the mean of both: so the network is pulled towards what the experts do not know,
and what it would cost to store what they know anyway is saved.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mdlzip.training.data import IGNORE, Batch

NETWORK_SHARE = EXPERTS_SHARE = 0.5
"""Weights of the two log-odds; the mixer of the archive learns its own."""
_SUREST = 1e-6  # 1 - probability, at the least: odds stay finite


def code_nats(logits: Tensor, batch: Batch, *, beside_experts: bool = True) -> Tensor:
    """Nats of all targets of a batch together, 0-dim, float32.

    logits: (B, T, V). beside_experts: with what the experts know, where the batch says that; else
    what the network needs by itself.
    """
    flat = logits.float().flatten(0, 1)
    nats = F.cross_entropy(flat, batch.targets.flatten(), ignore_index=IGNORE, reduction="none")
    if batch.expert_bits is None or not beside_experts:
        return nats.sum()
    known = -batch.expert_bits.flatten() * _NATS_PER_BIT
    odds = NETWORK_SHARE * _log_odds(-nats) + EXPERTS_SHARE * _log_odds(known)
    return F.softplus(-odds)[batch.targets.flatten() != IGNORE].sum()


_NATS_PER_BIT = 0.6931471805599453


def _log_odds(log_probability: Tensor) -> Tensor:
    other = -torch.expm1(log_probability)
    return log_probability - torch.log(other.clamp(min=_SUREST))
