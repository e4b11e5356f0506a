"""Exact products of small integers: the carrier is chosen by the largest possible sum.

A sum of whole numbers below the carrier's bound is exact, so no order of summation can change a
bit, and slices of a product are its parts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mdlzip.errors import ExportRefused
from mdlzip.quantised.backend import MOMENT_MACS
from mdlzip.quantised.prepared import Product

# Exclusive bound on a sum of products for which each carrier is exact.
CARRIER_BOUND = {"int8": 1 << 31, "float32": 1 << 24, "float64": 1 << 53, "int64": 1 << 62}
_DTYPE = {
    "int8": torch.int8,
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
}
_LEAST_SLICE_ROWS = 32


class Matrix:
    """The matrix of a product on a device, in its carrier; threads may share it.

    carrier: "auto" takes the cheapest exact one; naming one that the bounds forbid raises
    ExportRefused. dtype: of the operands. sums: dtype of the results.
    """

    def __init__(self, product: Product, device: torch.device, carrier: str) -> None:
        if carrier == "auto":
            carrier = "float32" if product.bound < CARRIER_BOUND["float32"] else "float64"
        if product.bound >= CARRIER_BOUND[carrier]:
            raise ExportRefused(f"a sum of {product.bound} is not exact in {carrier}")
        self.dtype = _DTYPE[carrier]
        self.sums = torch.int32 if carrier == "int8" else self.dtype
        codes = torch.from_numpy(np.ascontiguousarray(product.codes))
        self._weight = codes.to(device, self.dtype).t()
        self._multiply = torch._int_mm if carrier == "int8" else torch.mm
        self._slice = max(MOMENT_MACS // max(self._weight.numel(), 1), _LEAST_SLICE_ROWS)

    @property
    def inputs(self) -> int:
        """Columns of an operand."""
        return self._weight.shape[0]

    @property
    def outputs(self) -> int:
        """Columns of the sums."""
        return self._weight.shape[1]

    def multiply(self, x: Tensor, out: Tensor, check: Callable[[], None]) -> None:
        """out (n, out) = x (n, in) times the matrix; `check` is called once every moment."""
        check()
        if len(x) <= self._slice:
            self._multiply(x, self._weight, out=out)
            return
        for i in range(0, len(x), self._slice):
            rows = slice(i, i + self._slice)
            self._multiply(x[rows], self._weight, out=out[rows])
            check()
