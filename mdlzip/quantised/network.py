"""The integer network as plain numpy data: what the archive stores and the predictor runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mdlzip.config import ModelConfig
from mdlzip.errors import ExportRefused
from mdlzip.limits import (
    MAX_MATRIX_CODE,
    MAX_STEP_EXPONENT,
    MAX_STEP_MANTISSA,
    MAX_VECTOR_CODE,
)
from mdlzip.matches import N_LENGTHS
from mdlzip.symbols.vocabulary import FIRST_MERGE, N_BYTES, Vocabulary


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
        limit = MAX_MATRIX_CODE if self.codes.ndim == 2 else MAX_VECTOR_CODE
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

    tensors: name -> QuantTensor, exactly the names and shapes of `tensor_shapes(config)`, in order.
    exponents: activation site -> e, value = code * 2**-e, exactly the sites of
    `activation_sites(config)`, in order; -12..12.
    vocabulary: what it predicts. The rows of other bytes in embedding, head and head_bias are not
    used, nor is anything coded that holds such a byte.
    """

    config: ModelConfig
    tensors: dict[str, QuantTensor]
    exponents: dict[str, int]
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def __post_init__(self) -> None:
        shapes = tensor_shapes(self.config)
        if {k: t.codes.shape for k, t in self.tensors.items()} != shapes:
            raise ExportRefused("tensor names or shapes do not fit the model configuration")
        if list(self.exponents) != activation_sites(self.config):
            raise ExportRefused("activation sites do not fit the model configuration")
        if len(self.vocabulary.merges) != self.config.n_merges:
            raise ExportRefused("the merges are not as many as the model configuration says")

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


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every stored tensor, in the order in which the archive stores them.

    Matrices are (out, in). `conv` tensors are (width, d_model), tap 0 is the current position;
    they and all one-dimensional tensors are 'vectors' (not used in matrix products).
    """
    d, f, w = config.d_model, config.d_ff, config.conv_width
    shapes: dict[str, tuple[int, ...]] = {"embedding": (FIRST_MERGE + config.n_merges, d)}
    for i in range(config.n_layers):
        p = f"blocks.{i}."
        norms = ("norm",) if config.shared_norm else ("attn_norm", "mlp_norm")
        if config.norm == "layer":
            for n in norms:
                shapes[p + n + ".gain"] = (d,)
                shapes[p + n + ".bias"] = (d,)
        for part, matrices in (
            ("attn", (("qkv", 3 * d, d), ("out", d, d))),
            ("mlp", (("up", f, d), ("down", d, f))),
        ):
            if w:
                shapes[p + part + ".conv"] = (w, d)
            for name, rows, cols in matrices:
                shapes[f"{p}{part}.{name}"] = (rows, cols)
                if config.biases:
                    shapes[f"{p}{part}.{name}_bias"] = (rows,)
    if config.norm == "layer":
        shapes["final_norm.gain"] = (d,)
        shapes["final_norm.bias"] = (d,)
    # Row 256, which is no symbol's, says how far a match is to be trusted.
    rows = FIRST_MERGE + config.n_merges if config.match_min or config.n_merges else N_BYTES
    shapes["head"] = (rows, d)
    shapes["head_bias"] = (rows,)
    if config.match_min:
        shapes["match"] = (N_LENGTHS,)
    return shapes


def is_matrix(name: str) -> bool:
    """True for tensors that take part in matrix products (or the embedding look-up)."""
    last = name.rsplit(".", 1)[-1]
    return last in ("embedding", "qkv", "out", "up", "down", "head")


def activation_sites(config: ModelConfig) -> list[str]:
    """Names of all places where activations are rounded to int8, in stored order."""
    sites = []
    for i in range(config.n_layers):
        for site in ("attn_in", "qk", "v", "attn_out", "mlp_in", "mlp_act"):
            sites.append(f"blocks.{i}.{site}")
    return [*sites, "head_in"]
