"""The float twin: a decoder-only byte transformer, used for training only.

Parameter names are the archive's tensor names (`networks.registry.tensor_specs`). One class serves
the paper's family and ours; what differs is `ModelConfig`.

Shapes: B chunks, T positions, D width, F feed-forward width, H heads, K head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdlzip.config import ModelConfig
from mdlzip.matches import Matcher
from mdlzip.model import attention, layers
from mdlzip.networks.registry import tensor_specs
from mdlzip.networks.spec import BandKind, TensorSpec
from mdlzip.symbols.vocabulary import FIRST_MERGE, START_SYMBOL


class Rounding:
    """What the network does to weights and activations on their way into a product: nothing.

    Training with quantisation replaces it by one that rounds (`training.qat`); the model itself
    knows only the names of the places.
    """

    def weight(self, name: str, w: Tensor) -> Tensor:
        """The tensor called `name`, as the product shall see it."""
        return w

    def linear(self, name: str, h: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        """h (..., in) times some rows of the matrix called `name`, w (out, in), plus bias (out,).

        h and bias are given as the product shall see them.
        """
        return F.linear(h, self.weight(name, w), bias)

    def activation(self, site: str, x: Tensor) -> Tensor:
        """The activation at `site`, as the product shall see it."""
        return x

    def stream(self, x: Tensor) -> Tensor:
        """The residual stream after an addition."""
        return x


def _grow(module: nn.Module, specs: Mapping[str, TensorSpec], prefix: str) -> None:
    """Give `module` the parameters whose names begin with `prefix`, in modules below it by dots.

    Matrices are left as memory was; gains are one, all else is zero. Biases come last.
    """
    inside = {name[len(prefix) :]: spec for name, spec in specs.items() if name.startswith(prefix)}
    own = {name: spec for name, spec in inside.items() if "." not in name}
    for name, spec in sorted(own.items(), key=lambda item: bool(item[1].bias_of)):
        fill = torch.empty if spec.is_matrix else torch.zeros
        value = fill(spec.shape)
        if spec.bands[0].kind is BandKind.GAIN:
            value.fill_(1.0)
        module.register_parameter(name, nn.Parameter(value))
    for part in dict.fromkeys(name.partition(".")[0] for name in inside if name not in own):
        module.add_module(part, nn.Module())
        _grow(module.get_submodule(part), inside, part + ".")


class Transformer(nn.Module):
    """Byte transformer over chunks of `chunk_size`; predicts every byte, the first included."""

    embedding: nn.Parameter
    head: nn.Parameter
    head_bias: nn.Parameter
    match: nn.Parameter
    blocks: nn.Module

    def __init__(self, config: ModelConfig, chunk_size: int = 512) -> None:
        super().__init__()
        self.config = config
        self.chunk_size = chunk_size
        self.specs = tensor_specs(config)
        _grow(self, self.specs, "")
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
            spec = self.specs[name]
            if spec.kind == "taps":
                p.data.zero_()
                p.data[0] = 1.0
            elif spec.is_matrix:
                embeds = spec.by_symbol and spec.adds_to_stream
                std = 0.02
                if ours:
                    std = 1.0 if embeds else 0.5 / math.sqrt(p.shape[1])
                if spec.adds_to_stream and not embeds:  # a residual projection
                    std = 0.0 if ours else 0.02 / math.sqrt(2 * self.config.n_layers)
                if ours and spec.by_symbol and not embeds:  # the head
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
        for i, block in enumerate(self.blocks.children()):
            x = self._block(x, block, f"blocks.{i}.")
        h = self._norm(x, self, "final_norm", "final_norm")
        h = r.activation("head_in", h)
        head, bias = self.head, r.weight("head_bias", self.head_bias)
        logits = r.linear("head", h, head[self.symbols], bias[self.symbols])
        if self.config.match_min:
            row = slice(START_SYMBOL, FIRST_MERGE)
            trust = r.linear("head", h, head[row], bias[row])
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
        by_length = self.rounding.weight("match", self.match)
        bonus = trust + layers.look_up(by_length, lengths.long())[..., None]
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
                h = layers.causal_conv(h, r.weight(f"{p}{part}.conv", net.conv))
            h = r.activation(f"{p}{part}_in", h)
            h = self._attend(h, net, p) if part == "attn" else self._feed_forward(h, net, p)
            x = r.stream(x + h)
        return x

    def _linear(self, h: Tensor, net: nn.Module, p: str, name: str) -> Tensor:
        bias = None
        if self.config.biases:
            bias = self.rounding.weight(f"{p}{name}_bias", getattr(net, name + "_bias"))
        return self.rounding.linear(p + name, h, getattr(net, name), bias)

    def _attend(self, h: Tensor, net: nn.Module, p: str) -> Tensor:
        c, r = self.config, self.rounding
        t = h.shape[1]
        qkv = self._linear(h, net, p + "attn.", "qkv")
        table = self._table("positions") if c.positions == "rotary" else None
        qk, v = attention.split_heads(qkv, c.n_heads, self.window, table)
        qk = r.activation(p + "qk", qk)
        v = r.activation(p + "v", v)
        kind = qk.device.type
        if not qk.is_cpu and torch.is_autocast_enabled(kind):
            # Products that write into a given tensor are beyond autocast; codes are exact there.
            qk, v = (x.to(torch.get_autocast_dtype(kind)) for x in (qk, v))
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
