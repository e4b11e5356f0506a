"""What the predictor needs of a kind of processor: the integers between two symbols.

`backend_cpu` has one kernel for all of it, `backend_torch` whole-tensor operations for any device.
The same integers come out of both; docs/format-predictor.md is what both follow.

Shapes: B chunks, T positions, V symbols of the vocabulary.
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
    Prepared,
    attention_table,
    count_table,
    prepare,
    window_of,
)
from mdlzip.symbols.vocabulary import Vocabulary

Matches: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Symbols (int16) and lengths (uint8), both (B, T), as `Matcher.advance` gives them."""

# What is done between two looks at whether to go on: about a tenth of a second of one core.
MOMENT_MACS = 1 << 31


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


C = TypeVar("C")


class Backend(Protocol[C]):
    """Looks at positions of batches of chunks, each of which carries a cache of type C.

    Several threads may share a backend, each with caches of its own.
    """

    def new_cache(self, batch: int) -> C:
        """That of `batch` chunks at their first position."""

    def narrow(self, cache: C, rows: np.ndarray) -> None:
        """Let `cache` go on with the chunks `rows`, boolean (B,), alone."""

    def forward(
        self, previous: np.ndarray, start: int, matches: Matches | None, cache: C
    ) -> np.ndarray:
        """Logit gaps, uint16 (B, T, V), at T positions from `start` on; see `Predictor.forward`.

        previous: int16 (B, T), the symbols before them.
        """
