"""Exact products of small integers: the carrier is chosen by the largest possible sum.

A sum of whole numbers below the carrier's bound is exact, so no order of summation can change a
bit, and slices of a product are its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from mdlzip.errors import ExportRefused
from mdlzip.quantised.prepared import Product

# Exclusive bound on a sum of products for which each carrier is exact.
CARRIER_BOUND = {"int8": 1 << 31, "float32": 1 << 24, "float64": 1 << 53, "int64": 1 << 62}
_DTYPE = {
    "int8": torch.int8,
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
}
# What is done between two looks at whether to go on: about a tenth of a second of one core.
MOMENT_MACS = 1 << 31
_LEAST_SLICE_ROWS = 32


class Products:
    """The matrices of a network on a device, each in its carrier; threads may share it.

    carrier: "auto" takes the cheapest exact one; naming one that the bounds forbid raises
    ExportRefused. fused: the CPU kernels fill the operands, so int8 is possible.
    """

    def __init__(
        self, products: Iterable[Product], device: torch.device, carrier: str, *, fused: bool
    ) -> None:
        small = fused and torch.cpu._is_vnni_supported()
        self._weights: dict[int, tuple[str, Tensor]] = {}
        for p in products:
            chosen = carrier
            if carrier == "auto":
                chosen = "float32" if p.bound < CARRIER_BOUND["float32"] else "float64"
                if small:
                    chosen = "int8"  # several times faster where the CPU has dot products of int8
            if p.bound >= CARRIER_BOUND[chosen]:
                raise ExportRefused(f"a sum of {p.bound} is not exact in {chosen}")
            codes = torch.from_numpy(np.ascontiguousarray(p.codes))
            self._weights[id(p)] = chosen, codes.to(device, _DTYPE[chosen]).t()

    @property
    def nbytes(self) -> int:
        """Memory of all matrices."""
        return sum(w.numel() * w.element_size() for _, w in self._weights.values())

    def empty(self, p: Product, shape: tuple[int, ...]) -> Tensor:
        """An operand for `p`, to be filled."""
        return torch.empty(shape, dtype=self.dtype(p))

    def dtype(self, p: Product) -> torch.dtype:
        """Of the operands of `p`."""
        return _DTYPE[self._weights[id(p)][0]]

    def multiply(self, p: Product, x: Tensor, check: Callable[[], None]) -> Tensor:
        """x (n, in) times the matrix, (n, out); `check` is called once every moment."""
        carrier, weight = self._weights[id(p)]
        small = carrier == "int8"
        product = torch._int_mm if small else torch.mm
        n = max(MOMENT_MACS // weight.numel(), _LEAST_SLICE_ROWS)
        check()
        if len(x) <= n:
            return product(x, weight)
        dtype = torch.int32 if small else x.dtype
        out = torch.empty((len(x), weight.shape[1]), dtype=dtype, device=x.device)
        for i in range(0, len(x), n):
            product(x[i : i + n], weight, out=out[i : i + n])
            check()
        return out
