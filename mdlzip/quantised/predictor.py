"""The only forward pass the codec may use: integers in, integers out, exact everywhere.

`forward` takes any number of positions at once and keeps what later positions need, so the encoder
asks for a whole chunk and the decoder for one position at a time: the same integers. Two twins
share this file's flow: fused CPU kernels and whole-tensor torch operations for other devices.

Matrix products multiply small integers; the carrier (int8, float32, float64, int64) is chosen by
the largest possible sum, so every product is exact and no order of summation can change a bit.

Shapes: B chunks, T positions, D width, V symbols of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdlzip.errors import ExportRefused
from mdlzip.matches import Matcher
from mdlzip.quantised import kernels_torch as kt
from mdlzip.quantised import tables
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.prepared import (
    Part,
    Product,
    attention_table,
    count_table,
    prepare,
    window_of,
)
from mdlzip.symbols.vocabulary import START_SYMBOL

# Exclusive bound on a sum of products for which each carrier is exact.
CARRIER_BOUND = {"int8": 1 << 31, "float32": 1 << 24, "float64": 1 << 53, "int64": 1 << 62}
_DTYPE = {
    "int8": torch.int8,
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
}


_NO_GUESS = (np.zeros((0, 0), np.int16), np.zeros((0, 0), np.uint8))


@dataclass
class State:
    """What a batch of chunks carries from one call to the next."""

    batch: int
    position: int = 0
    history: list[Any] = field(default_factory=list)  # per sublayer: (B, w - 1, D)
    keys: list[Any] = field(default_factory=list)  # per layer
    values: list[Any] = field(default_factory=list)
    matcher: Matcher | None = None


class Predictor:
    """Runs an `IntegerNetwork`; one instance per thread (it keeps scratch buffers).

    carrier: "auto" takes the cheapest exact one; naming one that the bounds forbid raises
    ExportRefused. kernels: "cpu" (fused) or "torch"; by default fused on the CPU.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        chunk_size: int,
        *,
        device: str = "cpu",
        carrier: str = "auto",
        kernels: str | None = None,
    ) -> None:
        self.net = prepare(network)
        self.config = network.config
        self.vocabulary = network.vocabulary
        if self.vocabulary.longest > max(chunk_size // 2, 1):
            raise ExportRefused("a merge stands for more than half a chunk")
        self.chunk_size = chunk_size
        self.device = torch.device(device)
        self.fused = (kernels or ("cpu" if self.device.type == "cpu" else "torch")) == "cpu"
        self.window = window_of(self.config, chunk_size)
        self.count_table = count_table()
        self.last_gap = len(self.count_table) - 1
        c = self.config
        rotation = np.zeros((0, 1, 2), np.int32)
        self.sinusoids = np.zeros((0, c.d_model), np.int32)
        if c.positions == "rotary":
            rotation = tables.rotation_table(chunk_size, c.head_width)
        else:
            self.sinusoids = tables.position_table(chunk_size, c.d_model)
        self.rotation = rotation
        self.exps = attention_table(self.window)
        self.scale = _score_scale(c.head_width)
        self.carrier = carrier
        self._weights: dict[int, tuple[str, Tensor]] = {}
        for p in self._products():
            self._weights[id(p)] = self._load(p)
        if not self.fused:
            self._tensors = _to_tensors(self, self.device)

    def _products(self) -> list[Product]:
        pairs = [part for layer in self.net.layers for part in layer]
        return [p for part in pairs for p in (part.first, part.second)] + [self.net.head]

    def _load(self, p: Product) -> tuple[str, Tensor]:
        carrier = self.carrier
        if carrier == "auto":
            carrier = "float32" if p.bound < CARRIER_BOUND["float32"] else "float64"
            if self.fused and torch.cpu._is_vnni_supported():
                carrier = "int8"  # several times faster where the CPU has dot products of int8
        if p.bound >= CARRIER_BOUND[carrier]:
            raise ExportRefused(f"a sum of {p.bound} is not exact in {carrier}")
        codes = torch.from_numpy(np.ascontiguousarray(p.codes))
        return carrier, codes.to(self.device, _DTYPE[carrier]).t()

    def new_state(self, batch: int) -> State:
        """State at the beginning of `batch` chunks."""
        c = self.config
        state = State(batch)
        if c.match_min:
            state.matcher = Matcher(batch, self.chunk_size, c.match_min)
        w = max(c.conv_width - 1, 0)
        for _ in range(c.n_layers):
            for _part in range(2):
                state.history.append(self._zeros((batch, w, c.d_model), torch.int32))
            n = self.window if self.fused else 0
            shape = (batch, n, c.d_model) if self.fused else (batch, n, c.n_heads, c.head_width)
            state.keys.append(self._zeros(shape, torch.int8))
            state.values.append(self._zeros(shape, torch.int8))
        return state

    def keep(self, state: State, rows: np.ndarray) -> State:
        """State of the chunks `rows` (boolean (B,)) alone."""
        index = rows if self.fused else torch.from_numpy(rows).to(self.device)
        matcher = state.matcher.keep(rows) if state.matcher else None
        groups = (state.history, state.keys, state.values)
        history, keys, values = ([a[index] for a in group] for group in groups)
        return State(int(rows.sum()), state.position, history, keys, values, matcher)

    def _zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        if self.fused:
            return np.zeros(shape, {torch.int8: np.int8, torch.int32: np.int32}[dtype])
        return torch.zeros(shape, dtype=torch.int64, device=self.device)

    def forward(self, previous: np.ndarray, state: State) -> Any:
        """Logit gaps for the next T positions of every chunk.

        previous: (B, T) integers, the symbol before each position (START_SYMBOL before the first).
        Returns (B, T, V), units of 1/64 nat below the most probable symbol, at most `last_gap`:
        uint16 numpy from the fused kernels, an int64 tensor otherwise. Place v is that of
        `vocabulary.symbols[v]`.
        """
        if state.position + previous.shape[1] > self.chunk_size:
            raise ValueError("more positions than the chunk has")
        gaps = self._forward_cpu(previous, state) if self.fused else self._forward(previous, state)
        state.position += previous.shape[1]
        return gaps

    def _matmul(self, p: Product, x: Tensor) -> Tensor:
        carrier, weight = self._weights[id(p)]
        if carrier == "int8":
            return torch._int_mm(x, weight)
        return torch.mm(x, weight)

    # --- fused CPU kernels -------------------------------------------------------------------

    def _forward_cpu(self, previous: np.ndarray, state: State) -> np.ndarray:
        from mdlzip.quantised import kernels_cpu as kc

        n, e, c = self.net, self.net.exponents, self.config
        b, t = previous.shape
        start = state.position
        x = n.embedding[previous]
        if c.positions == "sinusoidal":
            x += self.sinusoids[start : start + t]
        for i, (attn, mlp) in enumerate(n.layers):
            p = f"blocks.{i}."
            h = self._normed(x, attn, state.history[2 * i], e[p + "attn_in"], attn.first)
            acc = self._apply(attn.first, h)
            out = self._empty(attn.second, (b, t, c.d_model))
            f = attn.first
            kc.attend(
                acc,
                (f.factor, f.factor_v),
                f.bias,
                self.rotation,
                start,
                c.n_heads,
                state.keys[i],
                state.values[i],
                self.exps,
                self.scale,
                (e[p + "qk"], e[p + "v"], e[p + "attn_out"]),
                out.numpy(),
            )
            s = attn.second
            kc.add_residual(x, self._apply(s, out), s.factor, s.bias)
            h = self._normed(x, mlp, state.history[2 * i + 1], e[p + "mlp_in"], mlp.first)
            acc = self._apply(mlp.first, h)
            out = self._empty(mlp.second, (b, t, c.d_ff))
            f = mlp.first
            if c.activation == "relu2":
                kc.squared_relu(acc, f.factor, f.bias, e[p + "mlp_act"], out.numpy())
            else:
                table = tables.gelu_table()
                kc.gelu(acc, f.factor, f.bias, e[p + "mlp_act"], table, out.numpy())
            s = mlp.second
            kc.add_residual(x, self._apply(s, out), s.factor, s.bias)
        h = self._normed_with(
            x,
            np.zeros((b, 0, c.d_model), np.int32),
            np.zeros((0, c.d_model)),
            n.final_gain,
            n.final_bias,
            e["head_in"],
            n.head,
        )
        gaps = np.empty((b, t, self.vocabulary.n_symbols), np.uint16)
        f = n.head
        symbols, lengths = _NO_GUESS if state.matcher is None else state.matcher.advance(previous)
        kc.logit_gaps(
            self._apply(f, h),
            f.factor,
            f.bias,
            self.last_gap,
            self.vocabulary.ranks,
            symbols,
            lengths,
            n.match,
            gaps,
        )
        return gaps

    def _empty(self, p: Product, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=_DTYPE[self._weights[id(p)][0]])

    def _apply(self, p: Product, h: Tensor) -> np.ndarray:
        out = self._matmul(p, h.view(-1, h.shape[-1]))
        return out.view(*h.shape[:-1], -1).numpy()

    def _normed(
        self, x: np.ndarray, part: Part, history: np.ndarray, exponent: int, user: Product
    ) -> Tensor:
        return self._normed_with(x, history, part.taps, part.gain, part.norm_bias, exponent, user)

    def _normed_with(
        self,
        x: np.ndarray,
        history: np.ndarray,
        taps: np.ndarray,
        gain: np.ndarray,
        bias: np.ndarray,
        exponent: int,
        user: Product,
    ) -> Tensor:
        from mdlzip.quantised import kernels_cpu as kc

        out = self._empty(user, x.shape)
        layer = self.config.norm == "layer"
        kc.norm_conv(
            x, history, taps, gain, bias, layer, exponent, tables.rsqrt_table(), out.numpy()
        )
        return out

    # --- whole-tensor operations -------------------------------------------------------------

    def _forward(self, previous: np.ndarray, state: State) -> Tensor:
        n, e, c, z = self.net, self.net.exponents, self.config, self._tensors
        start = state.position
        symbols = torch.as_tensor(previous, device=self.device).long()
        x = z["embedding"][symbols]
        if c.positions == "sinusoidal":
            x = x + z["sinusoids"][start : start + symbols.shape[1]]

        def normed(x: Tensor, part: Part, k: int, exponent: int) -> Tensor:
            taps, gain, bias = z[id(part.first)]
            codes, state.history[k] = kt.norm_conv(
                x, state.history[k], taps, gain, bias, c.norm == "layer", exponent, z["rsqrt"]
            )
            return codes

        def product(p: Product, codes: Tensor) -> Tensor:
            carrier, _ = self._weights[id(p)]
            flat = codes.reshape(-1, codes.shape[-1]).to(_DTYPE[carrier])
            return self._matmul(p, flat).view(*codes.shape[:-1], -1).long()

        for i, (attn, mlp) in enumerate(n.layers):
            p = f"blocks.{i}."
            f, s = attn.first, attn.second
            acc = product(f, normed(x, attn, 2 * i, e[p + "attn_in"]))
            codes, state.keys[i], state.values[i] = kt.attend(
                acc,
                f.mantissa,
                (f.shift, f.shift_v),
                z["bias", id(f)],
                z["rotation"],
                start,
                c.n_heads,
                state.keys[i],
                state.values[i],
                self.window,
                z["exps"],
                self.scale,
                (e[p + "qk"], e[p + "v"], e[p + "attn_out"]),
            )
            x = kt.add_residual(x, product(s, codes), s.mantissa, s.shift, z["bias", id(s)])
            f, s = mlp.first, mlp.second
            acc = product(f, normed(x, mlp, 2 * i + 1, e[p + "mlp_in"]))
            args = (acc, f.mantissa, f.shift, z["bias", id(f)], e[p + "mlp_act"])
            codes = kt.squared_relu(*args) if c.activation == "relu2" else kt.gelu(*args, z["gelu"])
            x = kt.add_residual(x, product(s, codes), s.mantissa, s.shift, z["bias", id(s)])
        none = x.new_zeros((0, c.d_model))
        codes, _ = kt.norm_conv(
            x,
            none,
            none,
            z["final_gain"],
            z["final_bias"],
            c.norm == "layer",
            e["head_in"],
            z["rsqrt"],
        )
        f = n.head
        guess = None
        if state.matcher is not None:
            symbols_, lengths = state.matcher.advance(previous)
            ranks = np.where(symbols_ >= 0, self.vocabulary.ranks[np.maximum(symbols_, 0)], -1)
            bonus = z["match"][torch.from_numpy(lengths.astype(np.int64)).to(self.device)]
            guess = (torch.from_numpy(ranks.astype(np.int64)).to(self.device), bonus)
        return kt.logit_gaps(
            product(f, codes), f.mantissa, f.shift, z["bias", id(f)], self.last_gap, guess
        )


def _score_scale(head_width: int) -> int:
    """round(2**16 / sqrt(K)) by integer square root."""
    from math import isqrt

    return (isqrt((1 << 34) // head_width) + 1) >> 1


def _to_tensors(predictor: Predictor, device: torch.device) -> dict[Any, Any]:
    def put(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a).astype(np.int64)).to(device)

    n = predictor.net
    out: dict[Any, Any] = {
        "embedding": put(n.embedding),
        "sinusoids": put(predictor.sinusoids),
        "rotation": put(predictor.rotation),
        "exps": put(predictor.exps),
        "rsqrt": put(tables.rsqrt_table()),
        "gelu": put(tables.gelu_table()),
        "final_gain": put(n.final_gain),
        "final_bias": put(n.final_bias),
        "match": put(n.match),
    }
    for layer in n.layers:
        for part in layer:
            out[id(part.first)] = (put(part.taps), put(part.gain), put(part.norm_bias))
    for p in predictor._products():
        out["bias", id(p)] = put(p.bias)
    return out


def shifted(symbols: np.ndarray) -> np.ndarray:
    """Symbols (B, T) -> the symbol before each position, START_SYMBOL before the first; int16."""
    previous = np.empty(symbols.shape, np.int16)
    previous[:, 0] = START_SYMBOL
    previous[:, 1:] = symbols[:, :-1]
    return previous
