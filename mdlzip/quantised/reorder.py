"""Another order of hidden units and values: the same predictions, fewer bytes of weights.

Nothing outside a block sees in which order its hidden units stand. Put like next to like, the
context coder of the weights knows more of each row from the one above it. Sums of integers do not
depend on the order of their terms, so every symbol count stays the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mdlzip.quantised.network import IntegerNetwork

_RUN = 4096  # rows chained at once; their distances take 64 MiB
_SIZES = 2  # magnitudes from here on count as one: what matters most is which cells are zero


def like_next_to_like(network: IntegerNetwork) -> IntegerNetwork:
    """The same function with hidden units, and the values of each head, in a chain of neighbours.

    Every next row of `up` (and of the values in `qkv`) is the one most like the row before among
    those left; `down` and `out` follow in their columns, biases in their cells.
    """
    codes = {name: tensor.codes for name, tensor in network.tensors.items()}
    config = network.config
    for i in range(config.n_layers):
        attn, mlp = f"blocks.{i}.attn.", f"blocks.{i}.mlp."
        hidden = chain(codes[mlp + "up"])
        codes[mlp + "up"] = codes[mlp + "up"][hidden]
        codes[mlp + "down"] = codes[mlp + "down"][:, hidden]
        values = _within_heads(codes[attn + "qkv"][2 * config.d_model :], config.n_heads)
        rows = np.concatenate([np.arange(2 * config.d_model), 2 * config.d_model + values])
        codes[attn + "qkv"] = codes[attn + "qkv"][rows]
        codes[attn + "out"] = codes[attn + "out"][:, values]
        if config.biases:
            codes[mlp + "up_bias"] = codes[mlp + "up_bias"][hidden]
            codes[attn + "qkv_bias"] = codes[attn + "qkv_bias"][rows]
    tensors = {
        name: replace(tensor, codes=np.ascontiguousarray(codes[name]))
        for name, tensor in network.tensors.items()
    }
    return replace(network, tensors=tensors)


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


def _within_heads(values: np.ndarray, n_heads: int) -> np.ndarray:
    """The order of the rows of `values` (int8, n x m) with every row in its own head."""
    width = len(values) // n_heads
    heads = range(0, len(values), width)
    return np.concatenate([start + chain(values[start : start + width]) for start in heads])
