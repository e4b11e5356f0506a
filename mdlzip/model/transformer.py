"""The float twin: a decoder-only byte transformer, used for training only.

Parameter names are the archive's tensor names (`quantised.network.tensor_shapes`). One class serves
the paper's family and ours; what differs is `ModelConfig`.

Shapes: B chunks, T positions, D width, F feed-forward width, H heads, K head width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdlzip.config import ModelConfig
from mdlzip.matches import N_LENGTHS, Matcher
from mdlzip.model import attention, layers
from mdlzip.symbols.vocabulary import FIRST_MERGE, N_BYTES, START_SYMBOL


class Rounding:
    """What the network does to weights and activations on their way into a product: nothing.

    Training with quantisation replaces it by one that rounds (`training.qat`); the model itself
    knows only the names of the places.
    """

    def weight(self, name: str, w: Tensor) -> Tensor:
        """The tensor called `name`, as the product shall see it."""
        return w

    def activation(self, site: str, x: Tensor) -> Tensor:
        """The activation at `site`, as the product shall see it."""
        return x

    def stream(self, x: Tensor) -> Tensor:
        """The residual stream after an addition."""
        return x


class _Attention(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        d = c.d_model
        if c.conv_width:
            self.conv = nn.Parameter(torch.zeros(c.conv_width, d))
        self.qkv = nn.Parameter(torch.empty(3 * d, d))
        self.out = nn.Parameter(torch.empty(d, d))
        if c.biases:
            self.qkv_bias = nn.Parameter(torch.zeros(3 * d))
            self.out_bias = nn.Parameter(torch.zeros(d))


class _Mlp(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        if c.conv_width:
            self.conv = nn.Parameter(torch.zeros(c.conv_width, c.d_model))
        self.up = nn.Parameter(torch.empty(c.d_ff, c.d_model))
        self.down = nn.Parameter(torch.empty(c.d_model, c.d_ff))
        if c.biases:
            self.up_bias = nn.Parameter(torch.zeros(c.d_ff))
            self.down_bias = nn.Parameter(torch.zeros(c.d_model))


class _Block(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        if c.norm == "layer":
            if c.shared_norm:
                self.norm = layers.LayerNorm(c.d_model)
            else:
                self.attn_norm = layers.LayerNorm(c.d_model)
                self.mlp_norm = layers.LayerNorm(c.d_model)
        self.attn = _Attention(c)
        self.mlp = _Mlp(c)


class Transformer(nn.Module):
    """Byte transformer over chunks of `chunk_size`; predicts every byte, the first included."""

    def __init__(self, config: ModelConfig, chunk_size: int = 512) -> None:
        super().__init__()
        self.config = config
        self.chunk_size = chunk_size
        self.embedding = nn.Parameter(torch.empty(FIRST_MERGE + config.n_merges, config.d_model))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.n_layers))
        if config.norm == "layer":
            self.final_norm = layers.LayerNorm(config.d_model)
        # Row 256, which is no symbol's: trust in a match.
        wide = config.match_min or config.n_merges
        rows = FIRST_MERGE + config.n_merges if wide else N_BYTES
        self.head = nn.Parameter(torch.empty(rows, config.d_model))
        self.head_bias = nn.Parameter(torch.zeros(rows))
        if config.match_min:
            self.match = nn.Parameter(torch.zeros(N_LENGTHS))
        self.rounding = Rounding()
        symbols = torch.arange(FIRST_MERGE + config.n_merges)
        self.register_buffer("symbols", symbols[symbols != START_SYMBOL], persistent=False)
        self.register_buffer("places", symbols - (symbols > START_SYMBOL).long(), persistent=False)
        # A window that holds the whole chunk is full attention.
        self.window = config.window if 0 < config.window < chunk_size else 0
        if config.positions == "rotary":
            table = layers.rotary_table(chunk_size, config.head_width)
        else:
            table = layers.sinusoidal_table(chunk_size, config.d_model)
        self.register_buffer("positions", table, persistent=False)
        mask = attention.band_mask(chunk_size, self.window) if self.window else torch.zeros(0)
        self.register_buffer("mask", mask, persistent=False)

    def initialise(self, seed: int) -> None:
        """Draw the starting weights from `seed`, the same on every device.

        Paper family: N(0, 0.02), residual projections scaled by 1 / sqrt(2 L) (FACTS.md). Ours:
        matrices as N(0, 1 / sqrt(fan in)), residual projections zero, so that every block starts
        as the identity.
        """
        generator = torch.Generator().manual_seed(seed)
        ours = self.config.norm == "rms"
        for name, p in self.named_parameters():
            last = name.rsplit(".", 1)[-1]
            if last == "conv":
                p.data.zero_()
                p.data[0] = 1.0
            elif p.ndim == 2:
                std = 0.02
                if ours:
                    std = 1.0 if last == "embedding" else 0.5 / math.sqrt(p.shape[1])
                if last in ("out", "down"):
                    std = 0.0 if ours else 0.02 / math.sqrt(2 * self.config.n_layers)
                if ours and last == "head":
                    std = 0.0
                p.data.copy_(torch.randn(p.shape, generator=generator) * std)

    def restrict(self, symbols: Tensor) -> None:
        """From now on predict only the V symbols of `symbols` (int64, ascending)."""
        device = self.head.device
        self.symbols = symbols.to(device)
        self.places = torch.full((FIRST_MERGE + self.config.n_merges,), -1, device=device)
        self.places[self.symbols] = torch.arange(len(symbols), device=device)

    def forward(self, symbols_BT: Tensor, matches: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Logits (B, T, V) for every position of `symbols_BT` (any integers, B x T).

        V: all symbols unless `restrict` was called. Position t is predicted from symbols
        0 .. t - 1 of the same chunk. matches: guesses and lengths (B, T) as `Matcher.advance`
        gives them; by default they are looked for in the symbols, as whole chunks.
        """
        shifted = F.pad(symbols_BT[:, :-1].long(), (1, 0), value=START_SYMBOL)
        r = self.rounding
        x = F.embedding(shifted, r.weight("embedding", self.embedding))
        if self.config.positions == "sinusoidal":
            x = x + self._table("positions")[: x.shape[1]]
        for i, block in enumerate(self.blocks):
            x = self._block(x, block, f"blocks.{i}.")
        h = self._norm(x, self, "final_norm", "final_norm")
        h = r.activation("head_in", h)
        head, bias = r.weight("head", self.head), r.weight("head_bias", self.head_bias)
        logits = F.linear(h, head[self.symbols], bias[self.symbols])
        if self.config.match_min:
            trust = F.linear(h, head[START_SYMBOL:FIRST_MERGE], bias[START_SYMBOL:FIRST_MERGE])
            logits = self._believe(matches or self._find_matches(symbols_BT), logits, trust)
        return logits

    def _find_matches(self, symbols: Tensor) -> tuple[Tensor, Tensor]:
        previous = np.zeros(symbols.shape, np.int16)
        previous[:, 1:] = symbols[:, :-1].cpu().numpy()
        matcher = Matcher(len(previous), self.chunk_size, self.config.match_min)
        found, lengths = (torch.from_numpy(a) for a in matcher.advance(previous))
        return found.to(symbols.device), lengths.to(symbols.device)

    def _believe(self, matches: tuple[Tensor, Tensor], logits: Tensor, trust: Tensor) -> Tensor:
        """Add to the logit of each matched symbol: trust (B, T, 1) and the bonus of its length."""
        found, lengths = matches
        bonus = trust + self.rounding.weight("match", self.match)[lengths.long()][..., None]
        place = self._table("places")[found.clamp_min(0).long()]
        bonus = bonus * ((found >= 0) & (place >= 0))[..., None]
        place = place.clamp_min(0)[..., None]
        return logits.scatter_add_(-1, place, bonus.to(logits.dtype))

    def _table(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def _norm(self, x: Tensor, owner: nn.Module, attribute: str, name: str) -> Tensor:
        if self.config.norm == "rms":
            return layers.rms_norm(x)
        norm = getattr(owner, attribute)
        gain = self.rounding.weight(name + ".gain", norm.gain)
        bias = self.rounding.weight(name + ".bias", norm.bias)
        return F.layer_norm(x.float(), (x.shape[-1],), gain, bias, layers.NORM_EPS)

    def _block(self, x: Tensor, block: Any, p: str) -> Tensor:
        c, r = self.config, self.rounding
        shared = c.shared_norm
        for part, net in (("attn", block.attn), ("mlp", block.mlp)):
            norm = "norm" if shared else part + "_norm"
            h = self._norm(x, block, norm, p + norm)
            if c.conv_width:
                h = layers.fast_causal_conv(h, r.weight(f"{p}{part}.conv", net.conv))
            h = r.activation(f"{p}{part}_in", h)
            h = self._attend(h, net, p) if part == "attn" else self._feed_forward(h, net, p)
            x = r.stream(x + h)
        return x

    def _linear(self, h: Tensor, net: nn.Module, p: str, name: str) -> Tensor:
        bias = None
        if self.config.biases:
            bias = self.rounding.weight(f"{p}{name}_bias", getattr(net, name + "_bias"))
        return F.linear(h, self.rounding.weight(p + name, getattr(net, name)), bias)

    def _attend(self, h: Tensor, net: nn.Module, p: str) -> Tensor:
        c, r = self.config, self.rounding
        t = h.shape[1]
        qkv = self._linear(h, net, p + "attn.", "qkv")
        table = self._table("positions") if c.positions == "rotary" else None
        qk, v = attention.split_heads(qkv, c.n_heads, self.window, table)
        qk = r.activation(p + "qk", qk)
        v = r.activation(p + "v", v)
        if self.window:
            blocks = -(-t // self.window) + 1
            out = attention.banded_attention(qk, v, t, self._table("mask")[:blocks])
        else:
            out = attention.full_attention(qk, v)
        out = r.activation(p + "attn_out", out)
        return self._linear(out, net, p + "attn.", "out")

    def _feed_forward(self, h: Tensor, net: nn.Module, p: str) -> Tensor:
        u = self._linear(h, net, p + "mlp.", "up")
        u = layers.squared_relu(u) if self.config.activation == "relu2" else F.gelu(u)
        return self._linear(self.rounding.activation(p + "mlp_act", u), net, p + "mlp.", "down")
