"""The predictor on the CPU: one compiled kernel for all layers, buffers that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mdlzip.quantised.attention_cpu import Seen
from mdlzip.quantised.backend import MOMENT_MACS, Matches, Task
from mdlzip.quantised.forward_cpu import (
    CacheArrays,
    WorkArrays,
    forward_kernel,
    new_cache,
    new_work,
    packed_network,
)
from mdlzip.quantised.int8_products import host_kind

_ATTENTION_COST = 8  # times as long as a matrix product's a multiply-add of attention takes
_NO_MATCHES = (np.zeros((0, 0), np.int16), np.zeros((0, 0), np.uint8))


@dataclass
class CpuCache:
    """What a batch of chunks carries from call to call; gaps: of the last one, (B, T, V)."""

    arrays: CacheArrays
    work: WorkArrays
    gaps: np.ndarray


class CpuBackend:
    """A `Backend` of one compiled kernel. kind: of `int8_products`; check: see `Predictor`.

    net, kind, kernel: what the kernel takes and is; row_macs: about what a position of a chunk
    costs, in multiply-adds of matrix products.
    """

    def __init__(self, task: Task, kind: str, check: Callable[[], None]) -> None:
        self._task, self._check = task, check
        self.net = packed_network(task)
        self.kind = host_kind() if kind == "auto" else kind
        self.kernel = forward_kernel(self.kind)
        c = task.config
        scores = 2 * min(task.window, task.positions) * c.d_model * c.n_layers
        self.row_macs = sum(p.codes.size for p in task.net.products) + _ATTENTION_COST * scores

    def new_cache(self, batch: int) -> CpuCache:
        """That of `batch` chunks at their first position."""
        gaps = np.empty((batch, 0, self._task.vocabulary.n_symbols), np.uint16)
        return CpuCache(new_cache(self._task, batch), new_work(self._task), gaps)

    def narrow(self, cache: CpuCache, rows: np.ndarray) -> None:
        """One array after the other, so that the old ones are never all there beside the new."""
        cache.gaps = cache.gaps[:0]
        cache.arrays = cache.arrays._replace(rings=cache.arrays.rings.compress(rows, 1))
        for name in Seen._fields:
            seen = cache.arrays.seen
            seen = seen._replace(**{name: getattr(seen, name).compress(rows, 1)})
            cache.arrays = cache.arrays._replace(seen=seen)

    def forward(
        self, previous: np.ndarray, start: int, matches: Matches | None, cache: CpuCache
    ) -> np.ndarray:
        """See `Backend`."""
        if cache.gaps.shape[:2] != previous.shape:
            cache.gaps = np.empty((*previous.shape, cache.gaps.shape[2]), np.uint16)
        symbols, lengths = _NO_MATCHES if matches is None else matches
        b, t = previous.shape
        spans = ((0, b, 0, t),) if b * t * self.row_macs <= MOMENT_MACS else self._spans(b, t)
        for span in spans:
            self._check()
            self.kernel(
                previous,
                start,
                span,
                symbols,
                lengths,
                self.net,
                cache.arrays,
                cache.work,
                cache.gaps,
            )
        return cache.gaps

    def _spans(self, b: int, t: int) -> Iterator[tuple[int, int, int, int]]:
        """Chunks b..b' - 1 and positions t..t' - 1 that take a moment."""
        if t * self.row_macs <= MOMENT_MACS:
            n = max(MOMENT_MACS // (t * self.row_macs), 1)
            yield from ((i, min(i + n, b), 0, t) for i in range(0, b, n))
        else:
            n = max(MOMENT_MACS // self.row_macs, 1)
            yield from ((i, i + 1, j, min(j + n, t)) for i in range(b) for j in range(0, t, n))
