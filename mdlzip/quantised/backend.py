"""What the predictor needs of a kind of processor: the integer steps between two symbols.

`backend_cpu` has fused kernels that write into buffers kept between calls, `backend_torch`
whole-tensor operations for any device. The same integers come out of both; the flow is in
`predictor`, docs/format-predictor.md is what both follow.

Shapes: B chunks, T positions, D width, F feed-forward width, V symbols of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from mdlzip.config import ModelConfig
from mdlzip.quantised import tables
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.prepared import (
    Layer,
    Norm,
    Prepared,
    Product,
    attention_table,
    count_table,
    prepare,
    window_of,
)
from mdlzip.symbols.vocabulary import Vocabulary

Matches: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Symbols (int16) and lengths (uint8), both (B, T), as `Matcher.advance` gives them."""


@dataclass(frozen=True)
class Task:
    """A network and the chunks that it will see, with the tables that follow from them.

    positions: of the longest chunk. window: how many attention sees. rotation: int32 (positions,
    K / 2, 2), or sinusoids: int32 (positions, D); the other one is empty. exps: of the attention,
    by score gap. scale: of scores, round(2**16 / sqrt(K)). counts: float64, by logit gap.
    """

    net: Prepared
    vocabulary: Vocabulary
    positions: int
    window: int
    rotation: np.ndarray
    sinusoids: np.ndarray
    exps: np.ndarray
    scale: int
    counts: np.ndarray

    @classmethod
    def of(cls, network: IntegerNetwork, chunk_size: int, positions: int) -> Task:
        """Raises ExportRefused if the network breaks a bound of the predictor."""
        c, net = network.shape, prepare(network)
        rotation = np.zeros((0, 1, 2), np.int32)
        sinusoids = np.zeros((0, c.d_model), np.int32)
        if c.positions == "rotary":
            rotation = tables.rotation_table(positions, c.head_width)
        else:
            sinusoids = tables.position_table(positions, c.d_model)
        window = window_of(c, chunk_size)
        return cls(
            net,
            network.vocabulary,
            positions,
            window,
            rotation,
            sinusoids,
            attention_table(window),
            (isqrt((1 << 34) // c.head_width) + 1) >> 1,
            count_table(),
        )

    @property
    def config(self) -> ModelConfig:
        """Of the network."""
        return self.net.config

    @property
    def last_gap(self) -> int:
        """The largest logit gap that is told from larger ones."""
        return len(self.counts) - 1


A = TypeVar("A")
C = TypeVar("C")


class Backend(Protocol[A, C]):
    """The steps, on arrays of type A, for batches of chunks that each carry a cache of type C.

    A stream is the residual stream, codes are operands of a product (small integers in its
    carrier), sums its results; all (B, T, width). Each step may overwrite what the steps before
    returned for the same cache, except the stream. Several threads may share a backend, each with
    caches of its own.
    """

    def new_cache(self, batch: int) -> C:
        """That of `batch` chunks at their first position."""

    def narrow(self, cache: C, rows: np.ndarray) -> None:
        """Let `cache` go on with the chunks `rows`, boolean (B,), alone."""

    def embed(self, previous: np.ndarray, start: int, cache: C) -> A:
        """The stream at positions from `start` on. previous: (B, T), the symbols before them."""

    def norm(self, stream: A, norm: Norm, user: Product, cache: C) -> A:
        """Codes of the normed and convolved stream, for the product `user`."""

    def multiply(self, product: Product, codes: A, cache: C) -> A:
        """Sums of the codes times a matrix."""

    def attend(self, sums: A, layer: Layer, start: int, cache: C) -> A:
        """Codes of the attention, from the sums (B, T, 3 D) for q, k and v."""

    def activate(self, sums: A, layer: Layer, cache: C) -> A:
        """Codes of the MLP's activation, from the sums (B, T, F) of its first product."""

    def add(self, stream: A, sums: A, product: Product) -> A:
        """The stream with the sums of `product` added."""

    def gaps(self, sums: A, matches: Matches | None, cache: C) -> np.ndarray:
        """Logit gaps, uint16 (B, T, V), from the sums of the head; see `Predictor.forward`."""
