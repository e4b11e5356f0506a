"""What is said of a network's tensors and activation sites, once, for every part that asks.

A family (`Family`) says it for each of its configurations. From its specifications follow shapes
and order in the archive, the largest codes, the bands and axes of the weight coder, what is pruned,
which optimiser moves it, what has to be scaled with the residual stream, and which units may change
places. docs/format-model.md repeats the normative part; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any, Literal

from mdlzip import limits

TensorKind = Literal["matrix", "taps", "vector"]
Optimiser = Literal["muon", "adam"]

NO_AXIS = ""
SYMBOL_AXIS = "byte"  # one place for each symbol, in the order of their numbers
CHANNEL_AXIS = "channel"  # of the residual stream
LETTER_CASE = 32  # "a" stands 32 rows below "A", and the two are alike in most texts


class BandKind(IntEnum):
    """Kinds of bands by their numbers in the format; the weight coder has statistics for each."""

    EMBEDDING = 0
    Q = 1
    K = 2
    V = 3
    OUT = 4
    UP = 5
    DOWN = 6
    HEAD = 7
    CONV = 8
    GAIN = 9
    BIAS = 10


@dataclass(frozen=True)
class BandSpec:
    """Rows start..stop - 1 of a tensor (a vector is one row), coded with statistics of one kind.

    A row or column of one tensor often belongs to the same channel as a row or column of another: a
    hidden unit that is dead in `up` is dead in `down`. Such a shared dimension is called an axis;
    what the weight coder has seen on it is a hint for the bands that follow. row_axis, column_axis:
    names of axes, or NO_AXIS. far: distance in rows to one more row
    above that is a hint; 0 for none.
    """

    start: int
    stop: int
    kind: BandKind
    row_axis: str
    column_axis: str
    far: int = 0


def code_limit(shape: tuple[int, ...]) -> int:
    """Largest magnitude of a code in a tensor of this shape, in every family."""
    return limits.MAX_MATRIX_CODE if len(shape) == 2 else limits.MAX_VECTOR_CODE


@dataclass(frozen=True)
class TensorSpec:
    """All that is known of a tensor before it has values.

    kind: "matrix" for (out, in) of a product or a look-up; "taps" for a convolution's (distance,
    channel); "vector" for one dimension. bands: in coding order; they cover the rows. optimiser:
    which one moves it where a run has both. prunable: the l0 method and pruning may zero its cells.
    adds_to_stream: what it computes is added to the residual stream. bias_of: the matrix whose rows
    its cells are added to, or "".
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorKind
    bands: tuple[BandSpec, ...]
    optimiser: Optimiser = "adam"
    prunable: bool = False
    adds_to_stream: bool = False
    bias_of: str = ""

    @property
    def is_matrix(self) -> bool:
        """Whether it takes part in matrix products, or is the embedding's table."""
        return self.kind == "matrix"

    @property
    def limit(self) -> int:
        """Largest magnitude of a code."""
        return code_limit(self.shape)

    @property
    def n_cells(self) -> int:
        """Number of weights, zero or not."""
        return prod(self.shape)

    @property
    def by_symbol(self) -> bool:
        """Whether its rows (the cells of a vector) belong to one symbol each."""
        band = self.bands[0]
        return SYMBOL_AXIS == (band.column_axis if self.kind == "vector" else band.row_axis)


@dataclass(frozen=True)
class SiteSpec:
    """A place where activations are rounded to int8 codes; their value is code * 2**-exponent.

    least, greatest: exponents that an archive may have.
    """

    name: str
    least: int = limits.MIN_ACTIVATION_EXPONENT
    greatest: int = limits.MAX_ACTIVATION_EXPONENT

    def allows(self, exponent: int) -> bool:
        """Whether an archive may have this exponent here."""
        return self.least <= exponent <= self.greatest


@dataclass(frozen=True)
class FieldSpec:
    """A field of the configuration section: an unsigned little-endian number of `size` bytes.

    It holds the attribute `name` of the configuration; with `choices` that attribute's place among
    them; with `flags` the boolean attributes named there, from bit 0 on.
    """

    name: str
    size: int
    choices: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def number(self, config: Any) -> int:
        """What stands in the section for `config`."""
        if self.flags:
            return sum(getattr(config, flag) << bit for bit, flag in enumerate(self.flags))
        value = getattr(config, self.name)
        return self.choices.index(value) if self.choices else int(value)

    def problem(self, number: int) -> str:
        """Why no configuration has this number, to follow the field's name; "" if one may."""
        if self.choices and number >= len(self.choices):
            return f"is {number}, known are 0..{len(self.choices) - 1}"
        if self.flags and number >> len(self.flags):
            return f"have reserved bits set ({number:#04x})"
        return ""

    def attributes(self, number: int) -> dict[str, Any]:
        """The attributes that a number without a `problem` stands for."""
        if self.flags:
            return {flag: bool(number >> bit & 1) for bit, flag in enumerate(self.flags)}
        return {self.name: self.choices[number] if self.choices else number}


@dataclass(frozen=True)
class Family:
    """Networks of one construction.

    byte: the family's number in archives. config: class of the configurations, a frozen dataclass
    that raises UsageError for values that no network can have; it has `n_merges`, the number of
    merges in its vocabulary. fields: what the configuration section holds of one, in order.
    tensors, sites: configuration -> specifications in stored order. free_axes: configuration -> the
    axes whose places may be exchanged without a change of the function, and in how many runs of
    equal length: places may change within a run only.
    """

    name: str
    byte: int
    config: type
    fields: tuple[FieldSpec, ...]
    tensors: Callable[[Any], tuple[TensorSpec, ...]]
    sites: Callable[[Any], tuple[SiteSpec, ...]]
    free_axes: Callable[[Any], Mapping[str, int]] = lambda config: {}
