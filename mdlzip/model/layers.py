"""The parts of the float transformer: norm, convolution, tables of positions, activation.

Shapes: B chunks, T positions, D width, K head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NORM_EPS = 2.0**-24


class _RmsNorm(torch.autograd.Function):
    """y = x / sqrt(mean(x^2) + eps) over the last axis, no gain; four passes instead of nine."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        width = x.shape[-1]
        rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = (rms.square_().div_(width).add_(NORM_EPS)).rsqrt_()
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        y, inverse = ctx.saved_tensors
        dot = torch.linalg.vecdot(grads[0].to(y.dtype), y).unsqueeze(-1).div_(-y.shape[-1])
        return torch.addcmul(grads[0].to(y.dtype), y, dot).mul_(inverse)


def rms_norm(x: Tensor) -> Tensor:
    """x (..., D) scaled to a root mean square of 1 over D; float32 out."""
    return _RmsNorm.apply(x)


class _CausalConv(torch.autograd.Function):
    """`causal_conv`, with a backward that makes no padded copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(x, taps)
        out = x * taps[0]
        for j in range(1, taps.shape[0]):
            out[:, j:].addcmul_(x[:, :-j], taps[j])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, taps = ctx.saved_tensors
        dy = grads[0]
        dx = dy * taps[0]
        dtaps = torch.empty_like(taps)
        dtaps[0] = (dy * x).sum((0, 1))
        for j in range(1, taps.shape[0]):
            dx[:, :-j].addcmul_(dy[:, j:], taps[j])
            dtaps[j] = (dy[:, j:] * x[:, :-j]).sum((0, 1))
        return dx, dtaps


def causal_conv(x: Tensor, taps: Tensor) -> Tensor:
    """Causal depthwise convolution: out[t] = sum_j taps[j] * x[t - j], zeros before the chunk.

    x: (B, T, D); taps: (width, D), tap 0 is the current position. Returns (B, T, D).
    """
    return _CausalConv.apply(x, taps)


def look_up(table: Tensor, places: Tensor) -> Tensor:
    """table[places], for a short table (N,) and int64 places of any shape.

    On a GPU as a product with ones and zeros: the gradient of an index adds up in few entries, one
    after the other and in any order.
    """
    if table.is_cpu:
        return table[places]
    with torch.autocast(table.device.type, enabled=False):
        return F.one_hot(places, len(table)).to(table.dtype) @ table


def rotary_table(length: int, head_width: int) -> Tensor:
    """cos + i sin of t / 10000^(2c / K); complex64 (length, K / 2)."""
    pair = torch.arange(head_width // 2, dtype=torch.float64)
    angle = torch.outer(
        torch.arange(length, dtype=torch.float64), 10000.0 ** (-2 * pair / head_width)
    )
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def sinusoidal_table(length: int, width: int) -> Tensor:
    """Fixed positions of the paper: sin in even columns, cos in odd; float32 (length, width)."""
    angle = torch.view_as_real(rotary_table(length, width))  # (..., 0) = cos, (..., 1) = sin
    return angle.flip(-1).flatten(-2).contiguous()


class _SquaredRelu(torch.autograd.Function):
    """relu(u)^2; keeps one tensor for the backward pass and writes in place."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        positive = u.clamp_min(0)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grads[0] * positive).mul_(2)


def squared_relu(u: Tensor) -> Tensor:
    """relu(u)^2, element-wise."""
    return _SquaredRelu.apply(u)
