"""The only forward pass the codec may use: integers in, integers out, exact everywhere.

`forward` takes any number of positions at once and keeps what later positions need, so the encoder
asks for a whole chunk and the decoder for one position at a time: the same integers. A `Backend`
computes them. Matrix products are exact, so no order of summation can change a bit.

Shapes: B chunks, T positions, V symbols of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdlzip.errors import ExportRefused
from mdlzip.matches import Matcher
from mdlzip.quantised.backend import Backend, Task
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.vocabulary import START_SYMBOL


def _nothing() -> None:
    """Go on."""


@dataclass
class State:
    """What a batch of chunks carries from one call to the next. cache: the backend's."""

    cache: Any
    matcher: Matcher | None
    position: int = 0


class Predictor:
    """Runs an `IntegerNetwork`; several threads may share it, each with states of its own.

    positions: of the longest chunk that it will see; chunk_size unless the data are shorter.
    kernels: "cpu" (compiled) or "torch"; by default compiled on the CPU. products: a kind of
    `int8_products` for the compiled ones, a carrier of `products` for torch; "auto" takes the
    fastest, naming a carrier that the bounds forbid raises ExportRefused. check: called several
    times a second while a thread works, so that it can raise what stops it.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        chunk_size: int,
        *,
        positions: int | None = None,
        device: str = "cpu",
        products: str = "auto",
        kernels: str | None = None,
        check: Callable[[], None] = _nothing,
    ) -> None:
        self.vocabulary = network.vocabulary
        if self.vocabulary.longest > max(chunk_size // 2, 1):
            raise ExportRefused("a merge stands for more than half a chunk")
        self.chunk_size, self.positions = chunk_size, min(chunk_size, positions or chunk_size)
        self.check, self.device = check, device
        self.task = Task.of(network, chunk_size, self.positions)
        self.backend = _backend(self.task, device, products, kernels, check)

    @property
    def count_table(self) -> np.ndarray:
        """float64: a symbol's count for every logit gap."""
        return self.task.counts

    @property
    def last_gap(self) -> int:
        """The largest logit gap, and the last place of the table of counts."""
        return self.task.last_gap

    def new_state(self, batch: int) -> State:
        """State at the beginning of `batch` chunks."""
        least, matcher = self.task.config.match_min, None
        if least:
            matcher = Matcher(batch, self.chunk_size, least, self.positions)
        return State(self.backend.new_cache(batch), matcher)

    def narrow(self, state: State, rows: np.ndarray) -> None:
        """Let `state` go on with the chunks `rows` (boolean (B,)) alone."""
        self.backend.narrow(state.cache, rows)
        if state.matcher:
            state.matcher.narrow(rows)

    def forward(self, previous: np.ndarray, state: State) -> np.ndarray:
        """Logit gaps for the next T positions of every chunk.

        previous: (B, T) integers, the symbol before each position (START_SYMBOL before the first).
        Returns uint16 (B, T, V), units of 1/64 nat below the most probable symbol, at most
        `last_gap`; the next call with `state` may overwrite them. Place v is that of
        `vocabulary.symbols[v]`. Raises ValueError if the chunks have no such positions.
        """
        start = state.position
        if start + previous.shape[1] > self.positions:
            raise ValueError("more positions than the chunk has")
        matches = state.matcher.advance(previous) if state.matcher else None
        gaps = self.backend.forward(previous, start, matches, state.cache)
        state.position += previous.shape[1]
        return gaps


def _backend(
    task: Task, device: str, products: str, kernels: str | None, check: Callable[[], None]
) -> Backend[Any]:
    if (kernels or ("cpu" if device == "cpu" else "torch")) == "cpu":
        from mdlzip.quantised.backend_cpu import CpuBackend

        return CpuBackend(task, products, check)
    import torch

    from mdlzip.quantised.backend_torch import TorchBackend

    return TorchBackend(task, torch.device(device), products, check)


def shifted(symbols: np.ndarray) -> np.ndarray:
    """Symbols (B, T) -> the symbol before each position, START_SYMBOL before the first; int16."""
    previous = np.empty(symbols.shape, np.int16)
    previous[:, 0] = START_SYMBOL
    previous[:, 1:] = symbols[:, :-1]
    return previous
