"""The predictor's steps by fused kernels on the CPU, in buffers that are kept between calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mdlzip.quantised import kernels_cpu as kernels
from mdlzip.quantised import tables
from mdlzip.quantised.backend import Matches, Task
from mdlzip.quantised.prepared import Layer, Norm, Product
from mdlzip.quantised.products import MOMENT_MACS, Matrix

_ATTENTION_COST = 8  # times as long as a matrix product's a multiply-add of attention takes
_NO_MATCHES = (np.zeros((0, 0), np.int16), np.zeros((0, 0), np.uint8))


class Buffer(NamedTuple):
    """One piece of memory. rows: (B T, width), for products; array: (B, T, width), for kernels."""

    rows: Tensor
    array: np.ndarray


class Buffers:
    """Where the steps write for B x T positions.

    codes, sums: by place of the product. All codes lie in the same memory, and so do all sums:
    whatever a step overwrites has been read.
    """

    def __init__(self, matrices: list[Matrix], batch: int, length: int, n_symbols: int) -> None:
        self.shape = batch, length
        self.stream = self._carve([(matrices[0].inputs, torch.int32)])[0]
        self.codes = self._carve([(m.inputs, m.dtype) for m in matrices])
        self.sums = self._carve([(m.outputs, m.sums) for m in matrices])
        self.gaps = np.empty((batch, length, n_symbols), np.uint16)

    def _carve(self, kinds: list[tuple[int, torch.dtype]]) -> list[Buffer]:
        """Buffers of these widths and types, one over the other."""
        n = self.shape[0] * self.shape[1]
        memory = torch.empty(n * max(w * d.itemsize for w, d in kinds), dtype=torch.uint8)
        out = []
        for width, dtype in kinds:
            rows = memory[: n * width * dtype.itemsize].view(dtype).view(n, width)
            out.append(Buffer(rows, rows.numpy().reshape(*self.shape, width)))
        return out


@dataclass
class CpuCache:
    """What a batch of chunks carries from call to call.

    history: by norm, int32 (B, w - 1, D), normed values of the positions before. keys, values: by
    layer, int8 (B, W, D), rings of the last W positions.
    """

    history: list[np.ndarray]
    keys: list[np.ndarray]
    values: list[np.ndarray]
    buffers: Buffers


class CpuBackend:
    """A `Backend` of compiled kernels. carrier: see `Matrix`; check: see `Predictor`."""

    def __init__(self, task: Task, carrier: str, check: Callable[[], None]) -> None:
        self._task, self._check = task, check
        pays = torch.cpu._is_vnni_supported()
        here = torch.device("cpu")
        self._matrices = [Matrix(p, here, carrier, bytes_pay=pays) for p in task.net.products]
        self._layer_norm = task.config.norm == "layer"
        self._rsqrt, self._gelu = tables.rsqrt_table(), tables.gelu_table()

    def new_cache(self, batch: int) -> CpuCache:
        """That of `batch` chunks at their first position."""
        task, width = self._task, self._task.config.d_model
        ring = (batch, min(task.window, task.positions), width)
        pasts = [max(len(norm.taps) - 1, 0) for norm in task.net.norms]
        return CpuCache(
            [np.zeros((batch, past, width), np.int32) for past in pasts],
            [np.zeros(ring, np.int8) for _ in task.net.layers],
            [np.zeros(ring, np.int8) for _ in task.net.layers],
            self._buffers(batch, 0),
        )

    def _buffers(self, batch: int, length: int) -> Buffers:
        return Buffers(self._matrices, batch, length, self._task.vocabulary.n_symbols)

    def narrow(self, cache: CpuCache, rows: np.ndarray) -> None:
        """One array after the other, so that the old ones are never all there beside the new."""
        cache.buffers = self._buffers(int(np.count_nonzero(rows)), 0)
        for arrays in (cache.history, cache.keys, cache.values):
            for i, array in enumerate(arrays):
                arrays[i] = array[rows]

    def embed(self, previous: np.ndarray, start: int, cache: CpuCache) -> Buffer:
        """The stream; buffers are made anew where the call has another length than the last."""
        batch, length = previous.shape
        if cache.buffers.shape != previous.shape:
            cache.buffers = self._buffers(batch, 0)  # the old ones go before the new ones come
            cache.buffers = self._buffers(batch, length)
        stream = cache.buffers.stream
        # Every symbol has a row; "clip" spares a copy that "raise" would make.
        np.take(self._task.net.embedding, previous, axis=0, out=stream.array, mode="clip")
        if len(self._task.sinusoids):
            np.add(stream.array, self._task.sinusoids[start : start + length], out=stream.array)
        return stream

    def norm(self, stream: Buffer, norm: Norm, user: Product, cache: CpuCache) -> Buffer:
        """Codes of the normed and convolved stream."""
        out = cache.buffers.codes[user.place]
        kernels.norm_conv(
            stream.array,
            cache.history[norm.place],
            norm.taps,
            norm.gain,
            norm.bias,
            self._layer_norm,
            norm.exponent,
            self._rsqrt,
            out.array,
        )
        return out

    def multiply(self, product: Product, codes: Buffer, cache: CpuCache) -> Buffer:
        """Sums."""
        out = cache.buffers.sums[product.place]
        self._matrices[product.place].multiply(codes.rows, out.rows, self._check)
        return out

    def attend(self, sums: Buffer, layer: Layer, start: int, cache: CpuCache) -> Buffer:
        """Codes of the attention."""
        qkv, task = layer.attention.first, self._task
        out = cache.buffers.codes[layer.attention.second.place]
        for span in self._spans(*cache.buffers.shape):
            kernels.attend(
                sums.array,
                span,
                (qkv.factor, qkv.factor_v),
                qkv.bias,
                task.rotation,
                start,
                task.config.n_heads,
                cache.keys[layer.place],
                cache.values[layer.place],
                task.exps,
                task.scale,
                (layer.qk, layer.v, layer.attn_out),
                out.array,
            )
        return out

    def _spans(self, b: int, t: int) -> Iterator[tuple[int, int, int, int]]:
        """Chunks b..b' - 1 and positions t..t' - 1 whose attention takes a moment."""
        moment = MOMENT_MACS // _ATTENTION_COST
        macs = 2 * min(self._task.window, self._task.positions) * self._task.config.d_model
        if t * macs <= moment:
            n = max(moment // (t * macs), 1)
            spans = [(i, min(i + n, b), 0, t) for i in range(0, b, n)]
        else:
            n = max(moment // macs, 1)
            spans = [(i, i + 1, j, min(j + n, t)) for i in range(b) for j in range(0, t, n)]
        for span in spans:
            self._check()
            yield span

    def activate(self, sums: Buffer, layer: Layer, cache: CpuCache) -> Buffer:
        """Codes of the MLP's activation."""
        up, out = layer.mlp.first, cache.buffers.codes[layer.mlp.second.place]
        if self._task.config.activation == "relu2":
            kernels.squared_relu(sums.array, up.factor, up.bias, layer.mlp_act, out.array)
        else:
            kernels.gelu(sums.array, up.factor, up.bias, layer.mlp_act, self._gelu, out.array)
        return out

    def add(self, stream: Buffer, sums: Buffer, product: Product) -> Buffer:
        """The stream, in place."""
        kernels.add_residual(stream.array, sums.array, product.factor, product.bias)
        return stream

    def gaps(self, sums: Buffer, matches: Matches | None, cache: CpuCache) -> np.ndarray:
        """Logit gaps, uint16; a later call with this cache may overwrite them."""
        head = self._task.net.head
        symbols, lengths = _NO_MATCHES if matches is None else matches
        kernels.logit_gaps(
            sums.array,
            head.factor,
            head.bias,
            self._task.last_gap,
            self._task.vocabulary.ranks,
            symbols,
            lengths,
            self._task.net.match,
            cache.buffers.gaps,
        )
        return cache.buffers.gaps
