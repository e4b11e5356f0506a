"""The integer network as plain numpy data: what the archive stores and the predictor runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mdlzip.config import ModelConfig
from mdlzip.errors import ExportRefused
from mdlzip.limits import MAX_STEP_EXPONENT, MAX_STEP_MANTISSA
from mdlzip.networks.registry import NetworkConfig, activation_sites, tensor_shapes
from mdlzip.networks.spec import code_limit
from mdlzip.symbols.vocabulary import Vocabulary


@dataclass(frozen=True)
class QuantTensor:
    """A tensor of small integers and its step: value = codes * mantissa * 2**-exponent.

    codes: int8, any shape; |code| <= 63 for two-dimensional tensors (so that int8 kernels that add
    pairs of products in 16 saturating bits stay exact), |code| <= 127 for vectors.
    mantissa: 1..65535; exponent: -40..40.
    """

    codes: np.ndarray
    mantissa: int
    exponent: int

    def __post_init__(self) -> None:
        if self.codes.dtype != np.int8:
            raise ExportRefused(f"codes must be int8, not {self.codes.dtype}")
        limit = code_limit(self.codes.shape)
        if max(int(self.codes.max(initial=0)), -int(self.codes.min(initial=0))) > limit:
            raise ExportRefused(f"a code exceeds {limit}")
        if not 1 <= self.mantissa <= MAX_STEP_MANTISSA:
            raise ExportRefused(f"step mantissa {self.mantissa} is outside 1..{MAX_STEP_MANTISSA}")
        if not -MAX_STEP_EXPONENT <= self.exponent <= MAX_STEP_EXPONENT:
            raise ExportRefused(f"step exponent {self.exponent} is out of range")

    @property
    def step(self) -> float:
        """The step as a float, for reports and export only; the predictor uses the integers."""
        return self.mantissa * 2.0**-self.exponent

    @property
    def nnz(self) -> int:
        """Number of non-zero codes."""
        return int(np.count_nonzero(self.codes))


@dataclass(frozen=True)
class IntegerNetwork:
    """Everything a decoder needs to predict: configuration, tensors, exponents, vocabulary.

    tensors: name -> QuantTensor, exactly the names and shapes of `tensor_shapes(config)`, in order;
    none where the experts are alone.
    exponents: activation site -> e, value = code * 2**-e, exactly the sites of
    `activation_sites(config)`, in order; -12..12.
    vocabulary: what it predicts. The rows of other bytes in embedding, head and head_bias are not
    used, nor is anything coded that holds such a byte.
    text: what the experts read before anything else; model_id: SHA-256 of the model file that the
    network is from. Both empty for a network that is in the archive itself.
    """

    config: NetworkConfig
    tensors: dict[str, QuantTensor]
    exponents: dict[str, int]
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    text: bytes = b""
    model_id: bytes = b""

    def __post_init__(self) -> None:
        shapes = tensor_shapes(self.config)
        if {k: t.codes.shape for k, t in self.tensors.items()} != shapes:
            raise ExportRefused("tensor names or shapes do not fit the model configuration")
        if list(self.exponents) != activation_sites(self.config):
            raise ExportRefused("activation sites do not fit the model configuration")
        if len(self.vocabulary.merges) != self.config.n_merges:
            raise ExportRefused("the merges are not as many as the model configuration says")

    @property
    def shape(self) -> ModelConfig:
        """The configuration of a transformer; ExportRefused if there is no network."""
        if not isinstance(self.config, ModelConfig):
            raise ExportRefused("there is no network: the experts are alone")
        return self.config

    @property
    def alphabet(self) -> np.ndarray:
        """uint8, the byte values that the network can predict."""
        return self.vocabulary.alphabet

    @property
    def nnz(self) -> int:
        """Number of non-zero codes over all tensors."""
        return sum(t.nnz for t in self.tensors.values())

    @property
    def n_weights(self) -> int:
        """Number of stored cells, zero or not."""
        return sum(t.codes.size for t in self.tensors.values())
