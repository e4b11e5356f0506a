"""Frozen settings with validation, and the TOML presets that fill them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from mdlzip import limits
from mdlzip.errors import UsageError

T = TypeVar("T")


def _check(name: str, value: int | float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UsageError(f"{name} = {value!r} is outside {low}..{high}")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the transformer; everything here affects decoding and is stored in the archive.

    window: how many positions (itself included) attention sees; 0 means the whole chunk.
    conv_width: taps of the causal depthwise convolution before attention and MLP; 0 means none.
    shared_norm: one norm per block serves attention and MLP (the paper's code).
    """

    d_model: int = 128
    n_layers: int = 3
    n_heads: int = 1
    d_ff: int = 512
    window: int = 32
    conv_width: int = 3
    norm: str = "rms"
    activation: str = "relu2"
    positions: str = "rotary"
    biases: bool = False
    shared_norm: bool = False

    def __post_init__(self) -> None:
        _check("d_model", self.d_model, 8, limits.MAX_D_MODEL)
        _check("n_layers", self.n_layers, 1, limits.MAX_LAYERS)
        _check("n_heads", self.n_heads, 1, limits.MAX_HEADS)
        _check("d_ff", self.d_ff, 8, limits.MAX_D_FF)
        _check("window", self.window, 0, limits.MAX_CHUNK_SIZE)
        _check("conv_width", self.conv_width, 0, limits.MAX_CONV_WIDTH)
        if self.d_model % self.n_heads or (self.d_model // self.n_heads) % 2:
            raise UsageError(
                f"d_model {self.d_model} must be n_heads {self.n_heads} times an even number"
            )
        for name, allowed in (
            ("norm", ("rms", "layer")),
            ("activation", ("relu2", "gelu")),
            ("positions", ("rotary", "sinusoidal")),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}")
        if self.shared_norm and self.norm != "layer":
            raise UsageError("shared_norm needs norm = 'layer'")

    @property
    def head_width(self) -> int:
        """K, the width of one attention head."""
        return self.d_model // self.n_heads
