"""The predictor as whole-tensor int64 operations, for any device of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mdlzip.quantised import kernels_torch as kernels
from mdlzip.quantised import tables
from mdlzip.quantised.backend import Matches, Task
from mdlzip.quantised.prepared import Layer, Norm, Product
from mdlzip.quantised.products import Matrix


@dataclass
class TorchCache:
    """What a batch of chunks carries from call to call.

    history: by norm, int32 (B, w - 1, D). keys, values: by layer, int8 (B, positions seen, H, K),
    of at most the last W positions.
    """

    history: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]


class TorchBackend:
    """A `Backend` whose arrays are tensors. carrier: see `Matrix`; check: see `Predictor`.

    The flow is in `forward`, its steps are below; (B, T, width) go from one to the next. A stream
    is the residual stream, codes are operands of a product, sums its results.
    """

    def __init__(
        self, task: Task, device: torch.device, carrier: str, check: Callable[[], None]
    ) -> None:
        self._task, self._device, self._check = task, device, check
        net = task.net
        self._matrices = [Matrix(p, device, carrier) for p in net.products]
        self._biases = [self._put(p.bias) for p in net.products]
        self._norms = [tuple(map(self._put, (n.taps, n.gain, n.bias))) for n in net.norms]
        self._embedding = torch.from_numpy(net.embedding).to(device)
        self._match = self._put(net.match)
        self._sinusoids, self._rotation = self._put(task.sinusoids), self._put(task.rotation)
        self._exps, self._rsqrt = self._put(task.exps), self._put(tables.rsqrt_table())
        self._gelu = self._put(tables.gelu_table())

    def _put(self, values: np.ndarray) -> Tensor:
        whole = np.ascontiguousarray(values).astype(np.int64)
        return torch.from_numpy(whole).to(self._device)

    def new_cache(self, batch: int) -> TorchCache:
        """That of `batch` chunks at their first position."""
        c = self._task.config

        def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros((batch, *shape), dtype=dtype, device=self._device)

        pasts = [max(len(norm.taps) - 1, 0) for norm in self._task.net.norms]
        return TorchCache(
            [zeros(torch.int32, past, c.d_model) for past in pasts],
            [zeros(torch.int8, 0, c.n_heads, c.head_width) for _ in range(c.n_layers)],
            [zeros(torch.int8, 0, c.n_heads, c.head_width) for _ in range(c.n_layers)],
        )

    def narrow(self, cache: TorchCache, rows: np.ndarray) -> None:
        """One tensor after the other, so that the old ones are never all there beside the new."""
        index = torch.from_numpy(rows).to(self._device)
        for arrays in (cache.history, cache.keys, cache.values):
            for i, array in enumerate(arrays):
                arrays[i] = array[index]

    def forward(
        self, previous: np.ndarray, start: int, matches: Matches | None, cache: TorchCache
    ) -> np.ndarray:
        """See `Backend`."""
        net = self._task.net
        stream = self._embed(previous, start)
        for layer in net.layers:
            first, second = layer.attention.first, layer.attention.second
            codes = self._norm(stream, layer.attention.norm, cache)
            codes = self._attend(self._multiply(first, codes), layer, start, cache)
            stream = self._add(stream, self._multiply(second, codes), second)
            first, second = layer.mlp.first, layer.mlp.second
            codes = self._norm(stream, layer.mlp.norm, cache)
            codes = self._activate(self._multiply(first, codes), layer)
            stream = self._add(stream, self._multiply(second, codes), second)
        codes = self._norm(stream, net.final, cache)
        return self._gaps(self._multiply(net.head, codes), matches)

    def _embed(self, previous: np.ndarray, start: int) -> Tensor:
        """The stream."""
        symbols = torch.as_tensor(previous, device=self._device).long()
        stream = self._embedding[symbols].long()
        if len(self._sinusoids):
            stream = stream + self._sinusoids[start : start + symbols.shape[1]]
        return stream

    def _norm(self, stream: Tensor, norm: Norm, cache: TorchCache) -> Tensor:
        """Codes of the normed and convolved stream."""
        taps, gain, bias = self._norms[norm.place]
        codes, cache.history[norm.place] = kernels.norm_conv(
            stream,
            cache.history[norm.place],
            taps,
            gain,
            bias,
            self._task.config.norm == "layer",
            norm.exponent,
            self._rsqrt,
        )
        return codes

    def _multiply(self, product: Product, codes: Tensor) -> Tensor:
        """Sums, int64."""
        matrix = self._matrices[product.place]
        flat = codes.reshape(-1, codes.shape[-1]).to(matrix.dtype)
        out = torch.empty((len(flat), matrix.outputs), dtype=matrix.sums, device=self._device)
        matrix.multiply(flat, out, self._check)
        return out.view(*codes.shape[:-1], -1).long()

    def _attend(self, sums: Tensor, layer: Layer, start: int, cache: TorchCache) -> Tensor:
        """Codes of the attention."""
        qkv, i = layer.attention.first, layer.place
        codes, cache.keys[i], cache.values[i] = kernels.attend(
            sums,
            qkv.mantissa,
            (qkv.shift, qkv.shift_v),
            self._biases[qkv.place],
            self._rotation,
            start,
            self._task.config.n_heads,
            cache.keys[i],
            cache.values[i],
            self._task.window,
            self._exps,
            self._task.scale,
            (layer.qk, layer.v, layer.attn_out),
        )
        return codes

    def _activate(self, sums: Tensor, layer: Layer) -> Tensor:
        """Codes of the MLP's activation."""
        up = layer.mlp.first
        args = (sums, up.mantissa, up.shift, self._biases[up.place], layer.mlp_act)
        if self._task.config.activation == "relu2":
            return kernels.squared_relu(*args)
        return kernels.gelu(*args, self._gelu)

    def _add(self, stream: Tensor, sums: Tensor, product: Product) -> Tensor:
        """The new stream."""
        bias = self._biases[product.place]
        return kernels.add_residual(stream, sums, product.mantissa, product.shift, bias)

    def _gaps(self, sums: Tensor, matches: Matches | None) -> np.ndarray:
        """Logit gaps, uint16."""
        head, guess = self._task.net.head, None
        if matches is not None:
            symbols, lengths = matches
            ranks = self._task.vocabulary.ranks[np.maximum(symbols, 0)]
            ranks = np.where(symbols >= 0, ranks, -1)
            guess = self._put(ranks), self._match[self._put(lengths)]
        bias, last = self._biases[head.place], self._task.last_gap
        gaps = kernels.logit_gaps(sums, head.mantissa, head.shift, bias, last, guess)
        return gaps.to(torch.int16).cpu().numpy().view(np.uint16)  # at most `last` < 2**15
