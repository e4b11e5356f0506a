"""The l0 method of a training run: its options and its strength, in the optimiser's units."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from typing import Any, NamedTuple

from mdlzip.config import TrainConfig
from mdlzip.errors import UsageError
from mdlzip.sparsity.base import Method
from mdlzip.sparsity.methods import make_method


class _InMuonUnits(NamedTuple):
    """alpha as a multiple of that of R-L1, and options whose defaults are meant for a loss."""

    share: float
    options: dict[str, Any]


# A step of Muon moves weights by about the learning rate, whatever the gradient: the pull of a
# method is measured against 1. PMMP gives a weight up where u w^2 < alpha, ADMM where
# rho w^2 < 2 alpha; DRR's force at 0 is beta alpha. docs/experiments.md has the runs.
_MUON = {
    "drr": _InMuonUnits(0.3, {}),
    "drr-o": _InMuonUnits(0.3, {}),
    "pmmp": _InMuonUnits(0.02, {"u": 1.0}),
    "fpp": _InMuonUnits(0.02, {"u": 1.0}),
    "admm": _InMuonUnits(0.01, {"rho": 1.0}),
}
_RL1 = _InMuonUnits(1.0, {})


def make_penalty(config: TrainConfig) -> Method:
    """The method that `config` names, unattached; raises UsageError for a bad name or option.

    config.method_options: "key=value,key=value", the values as in TOML or plain words.
    """
    options = dict(_MUON.get(config.method, _RL1).options) if config.optimiser == "muon" else {}
    for part in filter(None, config.method_options.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"train.method_options: {part!r} is not of the form key=value")
        try:
            options[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[key.strip()] = value.strip()
    try:
        return make_method(config.method, alpha=config.alpha, **options)
    except TypeError:
        raise UsageError(
            f"train.method_options = {config.method_options!r}: a value has the wrong type"
        ) from None


def price_weights(
    config: TrainConfig, weights_per_byte: float, bytes_per_symbol: float = 1.0
) -> TrainConfig:
    """Fill in an alpha of 0 from the number of weights for each byte of the file.

    The factor is fitted to 10 MB and 1 MB of prose, the root to logs and tables as well, the shares
    of the other methods to 1 MB of prose (docs/experiments.md). For AdamW, whose
    alpha has the units of the loss, 0 stays 0.
    """
    alpha = config.alpha
    if not alpha and config.optimiser == "muon":
        alpha = min(0.28 * weights_per_byte * math.sqrt(bytes_per_symbol), 0.1)
        alpha *= _MUON.get(config.method, _RL1).share
    return replace(config, alpha=alpha)
