"""Another order of hidden units and values: the same predictions, fewer bytes of weights.

Nothing outside a block sees in which order its hidden units stand. Put like next to like, the
context coder of the weights knows more of each row from the one above it. Sums of integers do not
depend on the order of their terms, so every symbol count stays the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mdlzip.networks.registry import family_of, tensor_specs
from mdlzip.networks.spec import TensorSpec
from mdlzip.quantised.network import IntegerNetwork

_RUN = 4096  # rows chained at once; their distances take 64 MiB
_SIZES = 2  # magnitudes from here on count as one: what matters most is which cells are zero


def like_next_to_like(network: IntegerNetwork) -> IntegerNetwork:
    """The same function with the units of every free axis in a chain of neighbours.

    The first band that has the axis as its rows leads (`up`, and the values in `qkv`): every next
    row is the one most like the row before among those left in its run. What else lies on the axis
    follows: rows and their biases, columns of matrices.
    """
    config = network.config
    specs = list(tensor_specs(config).values())
    codes = {name: tensor.codes.copy() for name, tensor in network.tensors.items()}
    for axis, runs in family_of(config).free_axes(config).items():
        name, band = next((s.name, b) for s in specs for b in s.bands if b.row_axis == axis)
        order = _within_runs(codes[name][band.start : band.stop], runs)
        for spec in specs:
            if not spec.bias_of:  # those move with their matrices
                biases = [codes[other.name] for other in specs if other.bias_of == spec.name]
                _follow(spec, axis, order, codes[spec.name], biases)
    tensors = {name: replace(t, codes=codes[name]) for name, t in network.tensors.items()}
    return replace(network, tensors=tensors)


def _follow(
    spec: TensorSpec, axis: str, order: np.ndarray, codes: np.ndarray, biases: list[np.ndarray]
) -> None:
    """Put what a tensor and its biases have on `axis` into `order` (int64, a permutation)."""
    for band in spec.bands:
        rows = slice(band.start, band.stop)
        if band.row_axis == axis:
            for array in (codes, *biases):
                array[rows] = array[rows][order]
        if band.column_axis == axis and spec.is_matrix:
            codes[rows] = codes[rows][:, order]


def chain(rows: np.ndarray) -> np.ndarray:
    """An order (int64, a permutation) of `rows` (int8, n x m) in which neighbours are alike.

    Starts with the lightest row. The distance of two rows is the sum of |a - b| over their cells,
    a and b magnitudes cut off at 2. More than 4,096 rows are chained in several runs.
    """
    runs = [start + _chain(rows[start : start + _RUN]) for start in range(0, rows.shape[0], _RUN)]
    return np.concatenate(runs)


def _chain(rows: np.ndarray) -> np.ndarray:
    magnitudes = np.abs(rows.astype(np.int16))
    # |a - b| of numbers 0..2 is the number of thresholds that only one of them reaches, so all
    # distances are one product of 0s and 1s, exact in float32.
    reached = [magnitudes >= size for size in range(1, _SIZES + 1)]
    marks = np.concatenate(reached, axis=1).astype(np.float32)
    weight = marks.sum(axis=1)
    distance = weight[:, None] + weight - 2 * marks @ marks.T
    order = np.empty(len(rows), np.int64)
    place = int(weight.argmin())
    for i in range(len(rows)):
        order[i] = place
        distance[:, place] = np.inf  # taken
        place = int(distance[place].argmin())
    return order


def _within_runs(rows: np.ndarray, runs: int) -> np.ndarray:
    """An order of `rows` (int8, n x m) by chains, with every row in its run of n / runs."""
    length = len(rows) // runs
    starts = range(0, len(rows), length)
    return np.concatenate([start + chain(rows[start : start + length]) for start in starts])
