"""An `IntegerNetwork` made ready to run: fixed-point vectors, shifts, checked bounds.

Everything a hostile archive could use to overflow is refused here, before the first product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlzip import limits
from mdlzip.config import ModelConfig
from mdlzip.errors import ExportRefused
from mdlzip.quantised import tables
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.vocabulary import START_SYMBOL

RESIDUAL_BITS = 12
QK_EXTRA_BITS = 8
HIDDEN_BITS = {"relu2": 10, "gelu": 6}
LOGIT_BITS = 6
COUNT_BITS = 22
MAX_LEFT_SHIFT = 16
MAX_GAIN_BITS = 22  # gains of norms stay below 2**22 in units of 2**-12
MAX_TAP_BITS = 24  # convolution taps and biases of norms likewise
_EMPTY = np.zeros(0)


def fixed(tensor: QuantTensor, bits: int) -> np.ndarray:
    """The tensor in units of 2**-bits, whole float64 numbers, at most 2**30, rounded half up."""
    value = tensor.codes.astype(np.int64) * tensor.mantissa
    s = tensor.exponent - bits
    if s > 0:
        value = (value + (1 << (s - 1))) >> s
    elif s < -30:
        raise ExportRefused("a step is too large")
    else:
        value <<= -s
    return np.clip(value, -(1 << 30), 1 << 30).astype(np.float64)


@dataclass(frozen=True)
class Product:
    """A matrix of codes and how its sums become the next unit.

    codes: int8 (out, in). bound: largest |sum| that any int8 input can give. bias: whole float64
    numbers (out,), in the output unit. shift: of acc * mantissa; for qkv that of q and k, and
    `shift_v` that of v.
    """

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
class Part:
    """One sublayer: norm, convolution and its two products."""

    taps: np.ndarray
    gain: np.ndarray
    norm_bias: np.ndarray
    first: Product
    second: Product


@dataclass(frozen=True)
class Prepared:
    """All integers of a network in the order in which the predictor uses them.

    head: has a row for each symbol that can be predicted and no others, then, if the configuration
    has matches, the row of the trust in a match. match: whole float64 numbers by match length, in
    the logits' unit; empty without matches.
    """

    config: ModelConfig
    exponents: dict[str, int]
    embedding: np.ndarray
    layers: tuple[tuple[Part, Part], ...]
    final_gain: np.ndarray
    final_bias: np.ndarray
    head: Product
    match: np.ndarray


def window_of(config: ModelConfig, chunk_size: int) -> int:
    """Positions that attention sees: the window, or the whole chunk."""
    return config.window if 0 < config.window < chunk_size else chunk_size


def attention_table(window: int) -> np.ndarray:
    """round(2**P exp(-d / 128)), P the largest that keeps window * 2**P * 127 below 2**31."""
    return tables.exp_table(min(15, 24 - (window - 1).bit_length()), 128)


def count_table() -> np.ndarray:
    """float64: symbol count for every logit gap; the last entry is the floor of 1."""
    counts = tables.exp_table(COUNT_BITS, 1 << LOGIT_BITS) + 1
    return np.append(counts, 1).astype(np.float64)


def _product(
    net: IntegerNetwork,
    name: str,
    e_in: int,
    bits: int,
    *,
    bits_v: int | None = None,
    rows: np.ndarray | None = None,
) -> Product:
    tensor = net.tensors[name]
    codes = tensor.codes if rows is None else tensor.codes[rows]
    bound = int(np.abs(codes.astype(np.int64)).sum(axis=1).max(initial=0)) * 127
    shift = tensor.exponent + e_in - bits
    shift_v = tensor.exponent + e_in - (bits if bits_v is None else bits_v)
    low, high = min(shift, shift_v), max(shift, shift_v)
    largest = (bound * tensor.mantissa) << max(0, -low)
    if not -MAX_LEFT_SHIFT <= low <= high <= 62 or largest >= 1 << 51:
        raise ExportRefused(f"{name}: step or sum is outside what the predictor can carry")
    bias = np.zeros(codes.shape[0])
    if name + "_bias" in net.tensors:
        bias = fixed(net.tensors[name + "_bias"], bits)
        bias = bias if rows is None else bias[rows]
        if bits_v is not None:
            third = bias.size // 3
            bias[2 * third :] = fixed(net.tensors[name + "_bias"], bits_v)[2 * third :]
    return Product(codes, bound, tensor.mantissa, shift, bias, shift_v)


def prepare(net: IntegerNetwork) -> Prepared:
    """Check every bound of `net` and bring it into the form the kernels take.

    Raises ExportRefused if an exponent, a step or a sum is outside what the predictor can carry.
    """
    c, e = net.config, net.exponents
    for site, value in e.items():
        low = limits.MIN_ACTIVATION_EXPONENT if not site.endswith("qk") else -4
        if not low <= value <= limits.MAX_ACTIVATION_EXPONENT:
            raise ExportRefused(f"activation exponent {value} at {site} is out of range")
    layers = []
    for i in range(c.n_layers):
        p = f"blocks.{i}."
        qk_bits = e[p + "qk"] + QK_EXTRA_BITS
        attn = _part(
            net,
            p + "attn",
            "norm" if c.shared_norm else "attn_norm",
            _product(net, p + "attn.qkv", e[p + "attn_in"], qk_bits, bits_v=e[p + "v"]),
            _product(net, p + "attn.out", e[p + "attn_out"], RESIDUAL_BITS),
        )
        mlp = _part(
            net,
            p + "mlp",
            "norm" if c.shared_norm else "mlp_norm",
            _product(net, p + "mlp.up", e[p + "mlp_in"], HIDDEN_BITS[c.activation]),
            _product(net, p + "mlp.down", e[p + "mlp_act"], RESIDUAL_BITS),
        )
        layers.append((attn, mlp))
    gain, bias = _norm_vectors(net, "final_norm")
    rows = net.vocabulary.symbols
    if c.match_min:
        rows = np.append(rows, START_SYMBOL)
    return Prepared(
        config=c,
        exponents=dict(e),
        embedding=np.clip(
            fixed(net.tensors["embedding"], RESIDUAL_BITS), -(1 << 24), 1 << 24
        ).astype(np.int32),
        layers=tuple(layers),
        final_gain=gain,
        final_bias=bias,
        head=_product(net, "head", e["head_in"], LOGIT_BITS, rows=rows),
        match=fixed(net.tensors["match"], LOGIT_BITS) if c.match_min else _EMPTY,
    )


def _norm_vectors(net: IntegerNetwork, name: str) -> tuple[np.ndarray, np.ndarray]:
    if net.config.norm == "rms":
        return _EMPTY, _EMPTY
    gain = fixed(net.tensors[name + ".gain"], RESIDUAL_BITS)
    bias = fixed(net.tensors[name + ".bias"], RESIDUAL_BITS)
    _check_size(f"{name}.gain", gain, MAX_GAIN_BITS)
    _check_size(f"{name}.bias", bias, MAX_TAP_BITS)
    return gain, bias


def _check_size(name: str, values: np.ndarray, bits: int) -> None:
    """The kernels keep normed values and convolution sums in 32 and 64 bits."""
    if values.size and int(np.abs(values).max()) >= 1 << bits:
        raise ExportRefused(f"{name} is too large")


def _part(net: IntegerNetwork, p: str, norm: str, first: Product, second: Product) -> Part:
    gain, bias = _norm_vectors(net, p.rsplit(".", 1)[0] + "." + norm)
    taps = np.zeros((0, net.config.d_model))
    if net.config.conv_width:
        taps = fixed(net.tensors[p + ".conv"], RESIDUAL_BITS)
        _check_size(f"{p}.conv", taps, MAX_TAP_BITS)
    return Part(taps, gain, bias, first, second)
