"""Tensors, sites and configuration fields of the transformer.

Matrices are (out, in). `conv` tensors are (width, d_model), tap 0 is the current position.
"""

from __future__ import annotations

from mdlzip.config import ACTIVATIONS, NORMS, POSITIONS, ModelConfig
from mdlzip.matches import N_LENGTHS
from mdlzip.networks.spec import (
    CHANNEL_AXIS,
    LETTER_CASE,
    NO_AXIS,
    SYMBOL_AXIS,
    BandKind,
    BandSpec,
    Family,
    FieldSpec,
    SiteSpec,
    TensorSpec,
)
from mdlzip.symbols.vocabulary import FIRST_MERGE, N_BYTES

MIN_QK_EXPONENT = -4  # sums of products of two such codes must fit the attention's integers

FIELDS = (
    FieldSpec("d_model", 2),
    FieldSpec("n_layers", 1),
    FieldSpec("n_heads", 2),
    FieldSpec("d_ff", 2),
    FieldSpec("window", 2),
    FieldSpec("conv_width", 1),
    FieldSpec("match_min", 1),
    FieldSpec("n_merges", 2),
    FieldSpec("norm", 1, choices=NORMS),
    FieldSpec("activation", 1, choices=ACTIVATIONS),
    FieldSpec("positions", 1, choices=POSITIONS),
    FieldSpec("flags", 1, flags=("biases", "shared_norm")),
)


def tensors(c: ModelConfig) -> tuple[TensorSpec, ...]:
    """Every tensor of a transformer, in stored order."""
    symbols = FIRST_MERGE + c.n_merges
    # Row 256, which is no symbol's, says how far a match is to be trusted.
    predicted = symbols if c.match_min or c.n_merges else N_BYTES
    specs = [_by_symbol(c, "embedding", symbols, BandKind.EMBEDDING, adds_to_stream=True)]
    for i in range(c.n_layers):
        specs += _block(c, i)
    specs += _norm(c, "final_norm")
    head = _by_symbol(c, "head", predicted, BandKind.HEAD)
    specs += [head, _bias(head)]
    if c.match_min:
        specs.append(_vector("match", N_LENGTHS, BandKind.BIAS, NO_AXIS))
    return tuple(specs)


def _block(c: ModelConfig, i: int) -> list[TensorSpec]:
    """Layer i: norms, then attention, then the MLP, each with its convolution before it."""
    d, f, p = c.d_model, c.d_ff, f"blocks.{i}."
    key, value, hidden = _key(i), _value(i), _hidden(i)
    specs: list[TensorSpec] = []
    for norm in ("norm",) if c.shared_norm else ("attn_norm", "mlp_norm"):
        specs += _norm(c, p + norm)
    specs += _taps(c, p + "attn.conv")
    thirds = (
        BandSpec(0, d, BandKind.Q, key, CHANNEL_AXIS),
        BandSpec(d, 2 * d, BandKind.K, key, CHANNEL_AXIS),
        BandSpec(2 * d, 3 * d, BandKind.V, value, CHANNEL_AXIS),
    )
    specs += _hidden_matrix(c, p + "attn.qkv", d, *thirds)
    out = BandSpec(0, d, BandKind.OUT, CHANNEL_AXIS, value)
    specs += _hidden_matrix(c, p + "attn.out", d, out, adds_to_stream=True)
    specs += _taps(c, p + "mlp.conv")
    specs += _hidden_matrix(c, p + "mlp.up", d, BandSpec(0, f, BandKind.UP, hidden, CHANNEL_AXIS))
    down = BandSpec(0, d, BandKind.DOWN, CHANNEL_AXIS, hidden)
    specs += _hidden_matrix(c, p + "mlp.down", f, down, adds_to_stream=True)
    return specs


def _key(i: int) -> str:
    return f"key {i}"


def _value(i: int) -> str:
    return f"value {i}"


def _hidden(i: int) -> str:
    return f"hidden {i}"


def _by_symbol(
    c: ModelConfig, name: str, rows: int, kind: BandKind, *, adds_to_stream: bool = False
) -> TensorSpec:
    """A matrix with a row for each symbol."""
    band = BandSpec(0, rows, kind, SYMBOL_AXIS, CHANNEL_AXIS, far=LETTER_CASE)
    return TensorSpec(
        name, (rows, c.d_model), "matrix", (band,), prunable=True, adds_to_stream=adds_to_stream
    )


def _hidden_matrix(
    c: ModelConfig, name: str, inputs: int, *bands: BandSpec, adds_to_stream: bool = False
) -> list[TensorSpec]:
    """A matrix of a block, and its bias if there are biases."""
    shape = (bands[-1].stop, inputs)
    matrix = TensorSpec(
        name, shape, "matrix", bands, "muon", prunable=True, adds_to_stream=adds_to_stream
    )
    return [matrix, _bias(matrix)] if c.biases else [matrix]


def _bias(matrix: TensorSpec) -> TensorSpec:
    """The bias of a matrix; on the axis of its rows, if all are on one."""
    axes = {band.row_axis for band in matrix.bands}
    axis = axes.pop() if len(axes) == 1 else NO_AXIS
    name, rows = matrix.name + "_bias", matrix.shape[0]
    return _vector(name, rows, BandKind.BIAS, axis, bias_of=matrix.name)


def _vector(name: str, cells: int, kind: BandKind, axis: str, bias_of: str = "") -> TensorSpec:
    bands = (BandSpec(0, 1, kind, NO_AXIS, axis),)
    return TensorSpec(name, (cells,), "vector", bands, bias_of=bias_of)


def _norm(c: ModelConfig, name: str) -> list[TensorSpec]:
    """Gain and bias of a LayerNorm; an RMS norm has neither."""
    if c.norm == "rms":
        return []
    return [
        _vector(name + ".gain", c.d_model, BandKind.GAIN, CHANNEL_AXIS),
        _vector(name + ".bias", c.d_model, BandKind.BIAS, CHANNEL_AXIS),
    ]


def _taps(c: ModelConfig, name: str) -> list[TensorSpec]:
    if not c.conv_width:
        return []
    bands = (BandSpec(0, c.conv_width, BandKind.CONV, NO_AXIS, CHANNEL_AXIS),)
    return [TensorSpec(name, (c.conv_width, c.d_model), "taps", bands)]


def sites(c: ModelConfig) -> tuple[SiteSpec, ...]:
    """Every place where a transformer rounds activations, in stored order."""
    specs: list[SiteSpec] = []
    for i in range(c.n_layers):
        p = f"blocks.{i}."
        specs += [
            SiteSpec(p + "attn_in"),
            SiteSpec(p + "qk", least=MIN_QK_EXPONENT),
            SiteSpec(p + "v"),
            SiteSpec(p + "attn_out"),
            SiteSpec(p + "mlp_in"),
            SiteSpec(p + "mlp_act"),
        ]
    return (*specs, SiteSpec("head_in"))


def free_axes(c: ModelConfig) -> dict[str, int]:
    """Hidden units in any order; values in any order within their head."""
    axes: dict[str, int] = {}
    for i in range(c.n_layers):
        axes |= {_hidden(i): 1, _value(i): c.n_heads}
    return axes


FAMILY = Family("transformer", 0, ModelConfig, FIELDS, tensors, sites, free_axes)
