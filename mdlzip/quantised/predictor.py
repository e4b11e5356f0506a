"""The only forward pass the codec may use: integers in, integers out, exact everywhere.

`forward` takes any number of positions at once and keeps what later positions need, so the encoder
asks for a whole chunk and the decoder for one position at a time: the same integers. Two twins
share this file's flow: fused CPU kernels and whole-tensor torch operations for other devices.

Matrix products are exact (`products`), so no order of summation can change a bit.

Shapes: B chunks, T positions, D width, V symbols of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from mdlzip.quantised.products import MOMENT_MACS, Products
from mdlzip.symbols.vocabulary import START_SYMBOL

_ATTENTION_COST = 8  # times as long as a matrix product's a multiply-add of attention takes

_NO_GUESS = (np.zeros((0, 0), np.int16), np.zeros((0, 0), np.uint8))


def _nothing() -> None:
    """Go on."""


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
    """Runs an `IntegerNetwork`; several threads may share it, each with states of its own.

    positions: of the longest chunk that it will see; chunk_size unless the data are shorter.
    carrier: "auto" takes the cheapest exact one; naming one that the bounds forbid raises
    ExportRefused. kernels: "cpu" (fused) or "torch"; by default fused on the CPU. check: called
    several times a second while a thread works, so that it can raise what stops it.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        chunk_size: int,
        *,
        positions: int | None = None,
        device: str = "cpu",
        carrier: str = "auto",
        kernels: str | None = None,
        check: Callable[[], None] = _nothing,
    ) -> None:
        self.net = prepare(network)
        self.config = self.net.config
        self.vocabulary = network.vocabulary
        if self.vocabulary.longest > max(chunk_size // 2, 1):
            raise ExportRefused("a merge stands for more than half a chunk")
        self.chunk_size = chunk_size
        self.positions = min(chunk_size, positions or chunk_size)
        self.check = check
        self.device = torch.device(device)
        self.fused = (kernels or ("cpu" if self.device.type == "cpu" else "torch")) == "cpu"
        self.window = window_of(self.config, chunk_size)
        self.count_table = count_table()
        self.last_gap = len(self.count_table) - 1
        c = self.config
        rotation = np.zeros((0, 1, 2), np.int32)
        self.sinusoids = np.zeros((0, c.d_model), np.int32)
        if c.positions == "rotary":
            rotation = tables.rotation_table(self.positions, c.head_width)
        else:
            self.sinusoids = tables.position_table(self.positions, c.d_model)
        self.rotation = rotation
        self.exps = attention_table(self.window)
        self.scale = _score_scale(c.head_width)
        self.products = Products(self._products(), self.device, carrier, fused=self.fused)
        if not self.fused:
            self._tensors = _to_tensors(self, self.device)

    def _products(self) -> list[Product]:
        pairs = [part for layer in self.net.layers for part in layer]
        return [p for part in pairs for p in (part.first, part.second)] + [self.net.head]

    def new_state(self, batch: int) -> State:
        """State at the beginning of `batch` chunks."""
        c = self.config
        state = State(batch)
        if c.match_min:
            state.matcher = Matcher(batch, self.chunk_size, c.match_min, self.positions)
        w = max(c.conv_width - 1, 0)
        for _ in range(c.n_layers):
            for _part in range(2):
                state.history.append(self._zeros((batch, w, c.d_model), torch.int32))
            n = min(self.window, self.positions) if self.fused else 0
            shape = (batch, n, c.d_model) if self.fused else (batch, n, c.n_heads, c.head_width)
            state.keys.append(self._zeros(shape, torch.int8))
            state.values.append(self._zeros(shape, torch.int8))
        return state

    def narrow(self, state: State, rows: np.ndarray) -> None:
        """Let `state` go on with the chunks `rows` (boolean (B,)) alone.

        One array after the other, so that the old ones are never all there beside the new.
        """
        index = rows if self.fused else torch.from_numpy(rows).to(self.device)
        for arrays in (state.history, state.keys, state.values):
            for i, array in enumerate(arrays):
                arrays[i] = array[index]
        if state.matcher:
            state.matcher.narrow(rows)

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
        if state.position + previous.shape[1] > self.positions:
            raise ValueError("more positions than the chunk has")
        gaps = self._forward_cpu(previous, state) if self.fused else self._forward(previous, state)
        state.position += previous.shape[1]
        return gaps

    def _spans(self, b: int, t: int) -> Iterator[tuple[int, int, int, int]]:
        """Chunks b..b' - 1 and positions t..t' - 1 whose attention takes a moment."""
        macs = 2 * min(self.window, self.positions) * self.config.d_model
        if t * macs <= MOMENT_MACS // _ATTENTION_COST:
            n = max(MOMENT_MACS // _ATTENTION_COST // (t * macs), 1)
            spans = [(i, min(i + n, b), 0, t) for i in range(0, b, n)]
        else:
            n = max(MOMENT_MACS // _ATTENTION_COST // macs, 1)
            spans = [(i, i + 1, j, min(j + n, t)) for i in range(b) for j in range(0, t, n)]
        for span in spans:
            self.check()
            yield span

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
            out = self.products.empty(attn.second, (b, t, c.d_model))
            f = attn.first
            for span in self._spans(b, t):
                kc.attend(
                    acc,
                    span,
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
            out = self.products.empty(mlp.second, (b, t, c.d_ff))
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

    def _apply(self, p: Product, h: Tensor) -> np.ndarray:
        out = self.products.multiply(p, h.view(-1, h.shape[-1]), self.check)
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

        out = self.products.empty(user, x.shape)
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
            flat = codes.reshape(-1, codes.shape[-1]).to(self.products.dtype(p))
            found = self.products.multiply(p, flat, self.check)
            return found.view(*codes.shape[:-1], -1).long()

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
