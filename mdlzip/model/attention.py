"""Attention of the float transformer, with gradients written out by hand.

torch's own gradients of slices, pads and overlapping windows fill and copy a full tensor each; this
saves the memory, though hardly any time (docs/experiments/speed.md).

Shapes: B chunks, T positions, D width, H heads, K head width, W window, N = ceil(T / W) blocks.
Heads stand in rows of S = W + N W positions: the first W are zero, so that every block has one
before it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def row_positions(length: int, window: int) -> int:
    """S, the positions of a row: `length` itself without a window."""
    return window + -(-length // window) * window if window else length


def band_mask(length: int, window: int) -> Tensor:
    """Additive float32 (N + 1, W, 2 W): 0 where query i of block n may see key j of n - 1 and n.

    Block 0 is the zeros before the chunk; what it computes is never used.
    """
    i = torch.arange(window)[:, None]
    j = torch.arange(2 * window)[None, :]
    seen = ((j > i) & (j <= i + window)).repeat(-(-length // window) + 1, 1, 1)
    seen[1] &= j >= window  # nothing before the chunk
    return torch.zeros(seen.shape).masked_fill_(~seen, -math.inf)


def _heads_view(qkv: Tensor, heads: int) -> Tensor:
    """(B, T, 3 D) seen as (3, B, H, T, K)."""
    b, t, _ = qkv.shape
    return qkv.view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4)


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, heads: int, window: int, table: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.heads, ctx.window, ctx.table, ctx.shape = heads, window, table, qkv.shape
        parts = _heads_view(qkv.float(), heads)
        _, b, h, t, k = parts.shape
        rows = parts.new_empty(3, b, h, row_positions(t, window), k)
        rows[..., :window, :] = 0
        rows[..., window + t :, :] = 0
        inside = rows[..., window : window + t, :]
        if table is None:
            inside.copy_(parts)
        else:
            torch.mul(_complex(parts[:2]), table[:t], out=_complex(inside[:2]))
            inside[2] = parts[2]
        rows = rows.to(qkv.dtype)
        return rows[:2].detach(), rows[2].detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        dqk, dv = (g.float() for g in grads)
        dqkv = dqk.new_empty(ctx.shape)
        parts = _heads_view(dqkv, ctx.heads)
        t, w = parts.shape[3], ctx.window
        if ctx.table is None:
            parts[:2] = dqk[..., w : w + t, :]
        else:
            turned = ctx.table[:t].conj().resolve_conj()
            torch.mul(_complex(dqk[..., w : w + t, :]), turned, out=_complex(parts[:2]))
        parts[2] = dv[..., w : w + t, :]
        return dqkv.to(grads[0].dtype), None, None, None


def split_heads(
    qkv: Tensor, heads: int, window: int, table: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(B, T, 3 D) -> q and k (2, B, H, S, K), v (B, H, S, K), zeros around the chunk.

    table: complex64 (at least T, K / 2) that turns interleaved pairs of q and k, or None.
    """
    return _SplitHeads.apply(qkv, heads, window, table)


def _windows(x: Tensor, window: int) -> Tensor:
    """(B, H, S, K) contiguous -> overlapping views (blocks - 1, 2 W, K): a block and the next."""
    blocks, k = x.numel() // (window * x.shape[-1]), x.shape[-1]
    return x.as_strided((blocks - 1, 2 * window, k), (window * k, k, 1))


def _add_windows(windows: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of `_windows`: both places of every block added; (B, H, S, K)."""
    w = windows.shape[1] // 2
    out = windows.new_empty(windows.shape[0] + 1, w, windows.shape[2])
    out[1:] = windows[:, w:]
    out[0] = 0
    out[:-1] += windows[:, :w]
    return out.view(shape)


class _BandedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qk: Tensor, v: Tensor, length: int, mask: Tensor) -> Tensor:
        qk, v = qk.contiguous(), v.contiguous()
        b, h, s, k = v.shape
        w = mask.shape[1]
        queries = qk[0].view(-1, w, k)
        scores = qk.new_empty(len(queries), w, 2 * w)
        scores[0] = 0
        torch.bmm(queries[1:], _windows(qk[1], w).mT, out=scores[1:])
        scores = scores.view(b * h, -1, w, 2 * w)
        scores = torch.add(mask, scores, alpha=1 / math.sqrt(k))
        p = scores.softmax(-1).to(v.dtype).view(-1, w, 2 * w)
        ctx.save_for_backward(qk, v, p)
        ctx.length = length
        out = v.new_empty(len(queries), w, k)
        torch.bmm(p[1:], _windows(v, w), out=out[1:])
        out = out.view(b, h, s, k)[:, :, w : w + length]
        return out.transpose(1, 2).reshape(b, length, h * k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        qk, v, p = ctx.saved_tensors
        b, h, s, k = v.shape
        w, length = p.shape[1], ctx.length
        dout = v.new_zeros(b, h, s, k)
        inside = dout[:, :, w : w + length]
        inside.copy_(grads[0].view(b, length, h, k).transpose(1, 2))
        dout = dout.view(-1, w, k)[1:]
        p = p[1:]
        dv = _add_windows(torch.bmm(p.mT, dout), v.shape)
        dp = torch.bmm(dout, _windows(v, w).mT)
        ds = torch._softmax_backward_data(dp, p, -1, p.dtype).mul_(1 / math.sqrt(k))
        dqk = torch.empty_like(qk)
        dq = dqk[0].view(-1, w, k)
        dq[0] = 0
        torch.bmm(ds, _windows(qk[1], w), out=dq[1:])
        dqk[1] = _add_windows(torch.bmm(ds.mT, qk[0].view(-1, w, k)[1:]), v.shape)
        return dqk, dv, None, None


def banded_attention(qk: Tensor, v: Tensor, length: int, mask: Tensor) -> Tensor:
    """Softmax attention in which position t sees t - W + 1 .. t; returns (B, T, D).

    qk (2, B, H, S, K), v (B, H, S, K) from `split_heads`; mask: `band_mask`. Work is T * 2 W * K a
    head, not T * T * K.
    """
    return _BandedAttention.apply(qk, v, length, mask)


def full_attention(qk: Tensor, v: Tensor) -> Tensor:
    """Causal attention over the whole chunk; (2, B, H, T, K) and (B, H, T, K) in, (B, T, D) out."""
    q, k = qk.to(v.dtype).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).flatten(2)
