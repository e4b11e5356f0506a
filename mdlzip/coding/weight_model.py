"""Adaptive entropy coding of a network's tensors of small integers, one after another.

`WeightEncoder.encode` and `WeightDecoder.decode` take the tensors in the same order; the statistics
go on from one to the next, so that small tensors profit from large ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlzip.coding.binary_coder import (
    COST_BITS,
    PENDING,
    POSITION,
    finish,
    new_decoder,
    new_encoder,
)
from mdlzip.coding.weight_kernel import code_rows
from mdlzip.coding.weight_tables import COARSE, LEVEL_VALUES, PAD, Band, new_state, tables
from mdlzip.networks.spec import BandKind, BandSpec, code_limit

AVERAGE = 64  # a row or column of average weight on its axis
BLOCK_CELLS = 1 << 15
BYTES_PER_CELL = 32  # at most 15 decisions of at most 2 bytes


class Axes:
    """The weight of every row and column seen so far, by axis; int64, AVERAGE is the mean."""

    def __init__(self) -> None:
        self._sums: dict[str, np.ndarray] = {}
        self._counts: dict[str, int] = {}

    def levels(self, axis: str, size: int) -> np.ndarray:
        """Levels 0..31 of the first `size` places of `axis`; zeros where nothing is known."""
        levels = np.zeros(size, dtype=np.int64)
        if axis in self._sums:
            mean = self._sums[axis][:size] // self._counts[axis]
            levels[: mean.size] = tables()[COARSE + np.minimum(mean, LEVEL_VALUES - 1)]
        return levels

    def add(self, axis: str, sums: np.ndarray) -> None:
        """Take in the magnitude sums (int64) of a band along `axis`."""
        if not axis:
            return
        relative = AVERAGE * sums * sums.size // max(int(sums.sum()), 1)
        if axis in self._sums:
            n = min(sums.size, self._sums[axis].size)
            self._sums[axis][:n] += relative[:n]
            self._counts[axis] += 1
        else:
            self._sums[axis] = relative
            self._counts[axis] = 1


class _WeightCoder:
    """What encoder and decoder share: state, axes, and the like band of the layer before."""

    def __init__(self) -> None:
        self._tables = tables()
        self._state = new_state()
        self._axes = Axes()
        self._previous: dict[tuple[BandKind, tuple[int, ...]], np.ndarray] = {}

    def _band(self, plan: BandSpec, codes: np.ndarray, limit: int) -> Band:
        rows, columns = plan.stop - plan.start, codes.shape[1] - PAD - 1
        previous = self._previous.get((plan.kind, codes.shape))
        return Band(
            codes=codes,
            previous=np.zeros_like(codes) if previous is None else previous,
            row_levels=self._axes.levels(plan.row_axis, rows),
            column_levels=self._axes.levels(plan.column_axis, columns),
            columns=np.zeros((columns, 3), dtype=np.int64),
            totals=np.zeros(2, dtype=np.int64),
            known=int(previous is not None),
            kind=int(plan.kind),
            limit=limit,
            far=plan.far,
        )

    def _learn(self, plan: BandSpec, codes: np.ndarray) -> None:
        self._previous[plan.kind, codes.shape] = codes
        magnitudes = np.abs(codes[PAD:-1, PAD:-1].astype(np.int16))
        self._axes.add(plan.column_axis, magnitudes.sum(axis=0, dtype=np.int64))
        self._axes.add(plan.row_axis, magnitudes.sum(axis=1, dtype=np.int64))

    def _code(self, bands: Sequence[BandSpec], codes: np.ndarray) -> None:
        """Code a whole tensor; `codes`: int8, C-contiguous, one or two dimensions."""
        grid = codes.reshape(-1, codes.shape[-1])
        for plan in bands:
            part = grid[plan.start : plan.stop]
            padded = np.pad(part, (PAD, 1))
            band = self._band(plan, padded, code_limit(codes.shape))
            step = max(BLOCK_CELLS // part.shape[1], 1)
            for start in range(0, part.shape[0], step):
                self._rows(band, start, min(start + step, part.shape[0]))
            part[:] = padded[PAD:-1, PAD:-1]
            self._learn(plan, padded)

    def _rows(self, band: Band, start: int, stop: int) -> None:
        raise NotImplementedError

    @property
    def spent_bits(self) -> tuple[float, float]:
        """Cost so far in bits: of the zero flags, and of magnitudes and signs."""
        zero, magnitude, sign = (int(v) / (1 << COST_BITS) for v in self._state.spent)
        return zero, magnitude + sign


class WeightEncoder(_WeightCoder):
    """Codes tensors into one stream."""

    def __init__(self) -> None:
        super().__init__()
        self._coder = new_encoder()
        self._out = np.zeros(1 << 16, dtype=np.uint8)

    def encode(self, bands: Sequence[BandSpec], codes: np.ndarray) -> None:
        """Append a tensor, int8 with one or two dimensions and magnitudes within `code_limit`.

        bands: in coding order; they cover the rows.
        """
        self._code(bands, np.array(codes, dtype=np.int8, order="C"))

    def finish(self) -> bytes:
        """The stream; the encoder must not be used afterwards."""
        self._reserve(16)
        return self._out[: finish(self._coder, self._out)].tobytes()

    def _reserve(self, n: int) -> None:
        need = int(self._coder[POSITION] + self._coder[PENDING]) + n
        if need > self._out.size:
            grown = np.zeros(need + need // 2, dtype=np.uint8)
            grown[: self._out.size] = self._out
            self._out = grown

    def _rows(self, band: Band, start: int, stop: int) -> None:
        self._reserve((stop - start) * band.columns.shape[0] * BYTES_PER_CELL + 16)
        code_rows(self._tables, self._state, self._coder, self._out, False, band, start, stop)


class WeightDecoder(_WeightCoder):
    """Gives the tensors back from an untrusted stream: any bytes decode to some tensors."""

    def __init__(self, stream: bytes | bytearray | memoryview) -> None:
        super().__init__()
        # The kernel is compiled once, for arrays that may be written.
        data = np.frombuffer(stream, dtype=np.uint8)
        self._stream = data if data.flags.writeable else data.copy()
        self._coder = new_decoder(self._stream)

    def decode(self, bands: Sequence[BandSpec], shape: tuple[int, ...]) -> np.ndarray:
        """The next tensor, int8; magnitudes are within `code_limit` whatever the stream holds."""
        codes = np.zeros(shape, dtype=np.int8)
        self._code(bands, codes)
        return codes

    @property
    def unread_bytes(self) -> int:
        """Bytes of the stream that no cell has needed."""
        return max(self._stream.size - int(self._coder[POSITION]), 0)

    def _rows(self, band: Band, start: int, stop: int) -> None:
        code_rows(self._tables, self._state, self._coder, self._stream, True, band, start, stop)
