"""An `IntegerNetwork` made ready to run: fixed-point vectors, shifts, checked bounds.

Everything a hostile archive could use to overflow is refused here, before the first product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from mdlzip.config import ModelConfig
from mdlzip.errors import ExportRefused
from mdlzip.networks.registry import site_specs
from mdlzip.quantised import tables
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.symbols.vocabulary import START_SYMBOL

RESIDUAL_BITS = 12
QK_EXTRA_BITS = 8
HIDDEN_BITS = {"relu2": 10, "gelu": 6}
LOGIT_BITS = 6
COUNT_BITS = 22
MAX_LEFT_SHIFT = 16
MAX_RIGHT_SHIFT = 62  # of 64-bit integers: rounding adds half of 2**shift before
MAX_FIXED_LEFT_SHIFT = 30
MAX_FIXED = 1 << 30
MAX_GAIN = 1 << 22  # exclusive, as the next three
MAX_TAP = MAX_NORM_BIAS = 1 << 24
MAX_CONVOLUTION = 1 << 52  # sums of a convolution are carried in float64
MAX_PRODUCT = 1 << 51
ATTENTION_SHIFT = 40
_NORMED_PER_GAIN = 1 << (19 - 12)  # |normed value| before the gain is below 2**19
_ROWS_AT_ONCE = 64
_EMPTY = np.zeros(0)


def fixed(tensor: QuantTensor, bits: int) -> np.ndarray:
    """The tensor in units of 2**-bits, whole float64 numbers, at most 2**30, rounded half up."""
    return _fixed(tensor, tensor.codes, bits).astype(np.float64)


def _fixed(tensor: QuantTensor, codes: np.ndarray, bits: int) -> np.ndarray:
    value = codes.astype(np.int64)
    value *= tensor.mantissa
    s = tensor.exponent - bits
    if s > 0:
        value += 1 << (s - 1)
        value >>= s
    elif s < -MAX_FIXED_LEFT_SHIFT:
        raise ExportRefused("a step is too large")
    else:
        value <<= -s
    return np.clip(value, -MAX_FIXED, MAX_FIXED, out=value)


def _embedding(tensor: QuantTensor) -> np.ndarray:
    """The embedding as int32 in units of 2**-12; a few rows at a time, since int64 takes eight."""
    out = np.empty(tensor.codes.shape, np.int32)
    for start in range(0, len(out), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        value = _fixed(tensor, tensor.codes[rows], RESIDUAL_BITS)
        out[rows] = np.clip(value, -(1 << 24), 1 << 24)
    return out


@dataclass(frozen=True)
class Product:
    """A matrix of codes and how its sums become the next unit.

    place: from 0, among all products of the network. codes: int8 (out, in). bound: largest |sum|
    that any int8 input can give. bias: whole float64 numbers (out,), in the output unit. shift: of
    acc * mantissa; for qkv that of q and k, and `shift_v` that of v.
    """

    place: int
    codes: np.ndarray
    bound: int
    mantissa: int
    shift: int
    bias: np.ndarray
    shift_v: int = 0

    @property
    def factor(self) -> float:
        """mantissa * 2**-shift, exact in float64."""
        return self.mantissa * 2.0**-self.shift

    @property
    def factor_v(self) -> float:
        """mantissa * 2**-shift_v, exact in float64."""
        return self.mantissa * 2.0**-self.shift_v


@dataclass(frozen=True)
class Norm:
    """Norm and causal convolution, and the exponent of the site that their codes are for.

    place: from 0, among all norms of the network. taps: (w, D), w = 0 for no convolution. gain,
    bias: (D,), empty with RMS norms. All whole float64 numbers of unit 2**-12.
    """

    place: int
    taps: np.ndarray
    gain: np.ndarray
    bias: np.ndarray
    exponent: int


@dataclass(frozen=True)
class Part:
    """One sublayer: what is added to the stream is second(f(first(norm(stream))))."""

    norm: Norm
    first: Product
    second: Product


@dataclass(frozen=True)
class Layer:
    """One layer. place: from 0. Exponents of the sites inside: of q and k, v, attn_out, mlp_act."""

    place: int
    attention: Part
    mlp: Part
    qk: int
    v: int
    attn_out: int
    mlp_act: int


@dataclass(frozen=True)
class Prepared:
    """All integers of a network in the order in which the predictor uses them.

    embedding: int32 (symbols, D), unit 2**-12. head: has a row for each symbol that can be
    predicted and no others, then, if the configuration has matches, the row of the trust in a
    match. match: whole float64 numbers by match length, in the logits' unit; empty without matches.
    """

    config: ModelConfig
    embedding: np.ndarray
    layers: tuple[Layer, ...]
    final: Norm
    head: Product
    match: np.ndarray

    @property
    def products(self) -> list[Product]:
        """All of them, by place."""
        parts = [part for layer in self.layers for part in (layer.attention, layer.mlp)]
        return [p for part in parts for p in (part.first, part.second)] + [self.head]

    @property
    def norms(self) -> list[Norm]:
        """All of them, by place."""
        parts = [part for layer in self.layers for part in (layer.attention, layer.mlp)]
        return [part.norm for part in parts] + [self.final]


def window_of(config: ModelConfig, chunk_size: int) -> int:
    """Positions that attention sees: the window, or the whole chunk."""
    return config.window if 0 < config.window < chunk_size else chunk_size


def attention_table(window: int) -> np.ndarray:
    """round(2**P exp(-d / 128)), P the largest that keeps window * 2**P * 127 below 2**31."""
    return tables.exp_table(min(15, 24 - (window - 1).bit_length()), 128)


@cache
def count_table() -> np.ndarray:
    """float64, shared: symbol count for every logit gap; the last entry is the floor of 1."""
    counts = tables.exp_table(COUNT_BITS, 1 << LOGIT_BITS) + 1
    return np.append(counts, 1).astype(np.float64)


def _product(
    net: IntegerNetwork,
    place: int,
    name: str,
    e_in: int,
    bits: int,
    *,
    bits_v: int | None = None,
    rows: np.ndarray | None = None,
) -> Product:
    tensor = net.tensors[name]
    codes = tensor.codes if rows is None else tensor.codes[rows]
    bound = int(np.abs(codes).sum(axis=1, dtype=np.int64).max(initial=0)) * 127
    shift = tensor.exponent + e_in - bits
    shift_v = tensor.exponent + e_in - (bits if bits_v is None else bits_v)
    low, high = min(shift, shift_v), max(shift, shift_v)
    largest = (bound * tensor.mantissa) << max(0, -low)
    if not -MAX_LEFT_SHIFT <= low <= high <= MAX_RIGHT_SHIFT or largest >= MAX_PRODUCT:
        raise ExportRefused(f"{name}: step or sum is outside what the predictor can carry")
    bias = np.zeros(codes.shape[0])
    if name + "_bias" in net.tensors:
        bias = fixed(net.tensors[name + "_bias"], bits)
        bias = bias if rows is None else bias[rows]
        if bits_v is not None:
            third = bias.size // 3
            bias[2 * third :] = fixed(net.tensors[name + "_bias"], bits_v)[2 * third :]
    return Product(place, codes, bound, tensor.mantissa, shift, bias, shift_v)


def prepare(net: IntegerNetwork) -> Prepared:
    """Check every bound of `net` and bring it into the form the kernels take.

    Raises ExportRefused if an exponent, a step or a sum is outside what the predictor can carry.
    """
    c, e = net.shape, net.exponents
    for site, spec in site_specs(c).items():
        if not spec.allows(e[site]):
            raise ExportRefused(f"activation exponent {e[site]} at {site} is out of range")
    for i in range(c.n_layers):
        p = f"blocks.{i}."
        if ATTENTION_SHIFT + e[p + "v"] - e[p + "attn_out"] > MAX_RIGHT_SHIFT:
            raise ExportRefused(f"{p}attn: exponents of v and attn_out lie too far apart")
    layers = tuple(_layer(net, i) for i in range(c.n_layers))
    gain, bias = _norm_vectors(net, "final_norm")
    rows = net.vocabulary.symbols
    if c.match_min:
        rows = np.append(rows, START_SYMBOL)
    return Prepared(
        config=c,
        embedding=_embedding(net.tensors["embedding"]),
        layers=layers,
        final=Norm(2 * c.n_layers, np.zeros((0, c.d_model)), gain, bias, e["head_in"]),
        head=_product(net, 4 * c.n_layers, "head", e["head_in"], LOGIT_BITS, rows=rows),
        match=fixed(net.tensors["match"], LOGIT_BITS) if c.match_min else _EMPTY,
    )


def _layer(net: IntegerNetwork, i: int) -> Layer:
    c, e, p, first = net.shape, net.exponents, f"blocks.{i}.", 4 * i
    qk_bits = e[p + "qk"] + QK_EXTRA_BITS
    attention = Part(
        _norm(net, 2 * i, p + "attn", "attn_norm"),
        _product(net, first, p + "attn.qkv", e[p + "attn_in"], qk_bits, bits_v=e[p + "v"]),
        _product(net, first + 1, p + "attn.out", e[p + "attn_out"], RESIDUAL_BITS),
    )
    mlp = Part(
        _norm(net, 2 * i + 1, p + "mlp", "mlp_norm"),
        _product(net, first + 2, p + "mlp.up", e[p + "mlp_in"], HIDDEN_BITS[c.activation]),
        _product(net, first + 3, p + "mlp.down", e[p + "mlp_act"], RESIDUAL_BITS),
    )
    inside = (e[p + site] for site in ("qk", "v", "attn_out", "mlp_act"))
    return Layer(i, attention, mlp, *inside)


def _norm_vectors(net: IntegerNetwork, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Gain and bias, float64 of unit 2**-12; empty with RMS norms."""
    if net.shape.norm == "rms":
        return _EMPTY, _EMPTY
    gain = fixed(net.tensors[name + ".gain"], RESIDUAL_BITS)
    bias = fixed(net.tensors[name + ".bias"], RESIDUAL_BITS)
    _check_size(name + ".gain", gain, MAX_GAIN)
    _check_size(name + ".bias", bias, MAX_NORM_BIAS)
    return gain, bias


def _norm(net: IntegerNetwork, place: int, part: str, own: str) -> Norm:
    """The norm before sublayer `part`; `own`: its name where the sublayers share none."""
    block = part.rpartition(".")[0]
    gain, bias = _norm_vectors(net, f"{block}.{'norm' if net.shape.shared_norm else own}")
    taps = np.zeros((0, net.shape.d_model))
    if net.shape.conv_width:
        taps = fixed(net.tensors[part + ".conv"], RESIDUAL_BITS)
        _check_size(part + ".conv", taps, MAX_TAP)
        normed = np.full(net.shape.d_model, float(_NORMED_PER_GAIN << RESIDUAL_BITS))
        if gain.size:
            normed = _NORMED_PER_GAIN * np.abs(gain) + np.abs(bias)
        sums = normed * np.abs(taps).sum(axis=0)
        _check_size(part + ".conv with its norm", sums, MAX_CONVOLUTION)
    return Norm(place, taps, gain, bias, net.exponents[part + "_in"])


def _check_size(what: str, values: np.ndarray, limit: int) -> None:
    """ExportRefused if a value reaches `limit`: the kernels' 32 and 64 bits would not hold it."""
    if values.size and float(np.abs(values).max()) >= limit:
        raise ExportRefused(f"{what} is too large")
