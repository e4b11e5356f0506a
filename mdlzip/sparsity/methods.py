"""The methods by name."""

from __future__ import annotations

import inspect
from typing import Any

from mdlzip.errors import UsageError
from mdlzip.sparsity.admm import ADMM
from mdlzip.sparsity.base import Method, NoMethod, check_alpha
from mdlzip.sparsity.drr import OriginalDRR, SmoothL0
from mdlzip.sparsity.pmmp import FPP, PMMP
from mdlzip.sparsity.rl1 import RelaxedL1

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (NoMethod, RelaxedL1, SmoothL0, OriginalDRR, PMMP, FPP, ADMM)
}
"""Name -> class, in the order in which help texts list them."""


def make_method(name: str, *, alpha: float = 0.0, **options: Any) -> Method:
    """A new, unattached method; `options` are the keyword arguments of its class.

    alpha: only checked (it is handed over at every step), so that a bad value fails early.
    Raises UsageError for an unknown name or option, listing the choices, or a bad value.
    """
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}; choose one of {', '.join(METHODS)}")
    check_alpha(alpha)
    known = [key for key in inspect.signature(METHODS[name]).parameters if key != "self"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(
            f"method {name} has no option {unknown[0]!r}; it takes {', '.join(known) or 'none'}"
        )
    return METHODS[name](**options)
