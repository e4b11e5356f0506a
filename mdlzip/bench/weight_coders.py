"""What the weights of an archive would take under other coders, next to our own bytes."""

from __future__ import annotations

from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mdlzip.quantised.network import IntegerNetwork

_UNARY_LENGTH = 11  # nncodec's default
_EXTENSION = "extensions/deepCABAC*.so"


def order0_bytes(network: IntegerNetwork) -> int:
    """Order-0 entropy of all codes, zeros included, tensor by tensor; whole bytes.

    That is positions and values together under each tensor's own frequencies, which are not
    counted: no coder without contexts can take less.
    """
    bits = 0.0
    for tensor in network.tensors.values():
        counts = np.unique(tensor.codes, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / tensor.codes.size)).sum())
    return int(np.ceil(bits / 8))


def nncodec_bytes(network: IntegerNetwork) -> int | None:
    """Bytes of the same codes under DeepCABAC, the coder of ISO/IEC 15938-17; None without it.

    It is called as nncodec calls it for integers (uniform quantisation, optimised parameters, one
    stream a tensor); the headers that nncodec writes as well are not counted. Only the compiled
    coder is loaded: `pip install --no-deps nncodec` is enough.
    """
    cabac = _deep_cabac()
    if cabac is None:
        return None
    total = 0
    for tensor in network.tensors.values():
        codes = np.ascontiguousarray(tensor.codes, dtype=np.int32)
        encoder = cabac.Encoder()
        encoder.initCtxModels(_UNARY_LENGTH, 1)
        no_rows, no_history = np.zeros(len(codes), np.int32), np.zeros(2, np.int8)
        off = cabac.HdspMode.AlwaysOff
        encoder.encodeLayer(codes, 0, 0, 0, 0, 0, no_rows, off, no_history, 0, 0)
        total += len(encoder.finish())
    return total


def _deep_cabac() -> Any:
    found = find_spec("nncodec")  # finds the package without running it
    folder = found.submodule_search_locations if found else None
    files = sorted(Path(folder[0]).glob(_EXTENSION)) if folder else []
    if not files:
        return None
    loader = ExtensionFileLoader("deepCABAC", str(files[0]))
    spec = spec_from_loader("deepCABAC", loader)
    if spec is None:
        return None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def yardsticks(network: IntegerNetwork, code_bytes: int) -> dict[str, int | float]:
    """Figures that judge the weight coder; code_bytes: our positions and values."""
    out: dict[str, int | float] = {}
    for name, other in (("order0", order0_bytes(network)), ("nncodec", nncodec_bytes(network))):
        if other:
            out[f"{name}_weight_bytes"] = other
            out[f"weights_over_{name}_percent"] = 100 * (code_bytes / other - 1)
    return out
