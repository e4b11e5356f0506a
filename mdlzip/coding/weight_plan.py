"""How a tensor is cut into bands for coding, and which rows and columns mean the same thing.

A row or column of one tensor often belongs to the same channel as a row or column of another: a
hidden unit that is dead in `up` is dead in `down`. Such a shared dimension is called an axis; what
has been seen on it is a hint for the bands that follow.
"""

from __future__ import annotations

from dataclasses import dataclass

from mdlzip.limits import MAX_MATRIX_CODE, MAX_VECTOR_CODE

LETTER_CASE = 32  # "a" stands 32 rows below "A", and the two are alike in most texts

_KINDS = ("embedding", "q", "k", "v", "out", "up", "down", "head", "conv", "gain", "bias")


@dataclass(frozen=True)
class BandPlan:
    """Rows start..stop - 1 of a tensor (a vector is one row); axes are names or empty."""

    start: int
    stop: int
    kind: str
    row_axis: str
    column_axis: str
    far: int = 0

    @property
    def kind_number(self) -> int:
        """Place of the kind in the format's list."""
        return _KINDS.index(self.kind)


def code_limit(shape: tuple[int, ...]) -> int:
    """Largest magnitude that a tensor of this shape may hold."""
    return MAX_MATRIX_CODE if len(shape) == 2 else MAX_VECTOR_CODE


def band_plans(name: str, shape: tuple[int, ...]) -> list[BandPlan]:
    """The bands of the tensor `name`, in coding order; they cover its rows."""
    *path, last = name.split(".")
    layer = path[1] if path[:1] == ["blocks"] else ""
    key, value, hidden = f"key {layer}", f"value {layer}", f"hidden {layer}"
    rows = shape[0]
    if last == "qkv":
        n = rows // 3
        thirds = zip("qkv", (key, key, value), range(0, rows, n), strict=False)
        return [BandPlan(i, i + n, kind, axis, "channel") for kind, axis, i in thirds]
    if last == "qkv_bias":
        return [BandPlan(0, 1, "bias", "", "")]
    axes = {
        "embedding": ("byte", "channel"),
        "out": ("channel", value),
        "up": (hidden, "channel"),
        "down": ("channel", hidden),
        "head": ("byte", "channel"),
        "conv": ("", "channel"),
    }
    if last in axes:
        far = LETTER_CASE if last in ("embedding", "head") else 0
        return [BandPlan(0, rows, last, *axes[last], far)]
    kind = "gain" if last == "gain" else "bias"
    axis = {"up_bias": hidden, "head_bias": "byte", "match": ""}.get(last, "channel")
    return [BandPlan(0, 1, kind, "", axis)]
