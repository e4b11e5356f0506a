"""The same integer steps as `kernels_cpu`, in whole-tensor int64 operations for any device.

Slower on a CPU, right on a GPU, and the independent twin that the tests compare with. Arguments and
meaning are those of `kernels_cpu`; arrays are tensors and results are returned.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORES_AT_ONCE = 1 << 23
"""Of attention, int64 and float64: 64 MiB for each of the arrays."""


def shift_round(x: Tensor, s: int) -> Tensor:
    """x / 2**s rounded half up; x * 2**-s for s <= 0. int64."""
    return (x + (1 << (s - 1))) >> s if s > 0 else x << -s


def requantise(acc: Tensor, mantissa: int, shift: int, bias: Tensor) -> Tensor:
    """acc * mantissa / 2**shift, rounded half up, plus bias; int64."""
    return shift_round(acc.long() * mantissa, shift) + bias


def rsqrt(v: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """(r, s) with r / 2**s close to 1 / sqrt(v); int64, 1 <= v < 2**62."""
    n = torch.zeros_like(v)
    rest = v.clone()
    for step in (32, 16, 8, 4, 2, 1):
        big = rest >> step > 0
        n += big * step
        rest = torch.where(big, rest >> step, rest)
    n += 1  # bit length
    e = n + (n & 1)
    m = torch.where(e <= 30, v << (30 - e).clamp(min=0), v >> (e - 30).clamp(min=0))
    r = table[m >> 22]
    for _ in range(2):
        t = (m * ((r * r) >> 30)) >> 28
        r = (r * ((3 << 30) - t)) >> 31
    return r >> 4, 25 + (e >> 1)


def add_residual(x: Tensor, acc: Tensor, mantissa: int, shift: int, bias: Tensor) -> Tensor:
    """New residual stream, int64 (B, T, D) unit 2**-12."""
    return (x + requantise(acc, mantissa, shift, bias)).clamp(-33554432, 33554431)


def norm_conv(
    x: Tensor,
    history: Tensor,
    taps: Tensor,
    gain: Tensor,
    bias: Tensor,
    layer: bool,
    exponent: int,
    table: Tensor,
) -> tuple[Tensor, Tensor]:
    """(codes (B, T, D), new history); see `kernels_cpu.norm_conv`."""
    width = x.shape[-1]
    if layer:
        x = x - x.sum(-1, keepdim=True).div(width, rounding_mode="floor")
        x = x.clamp(-33554432, 33554431)
    mean_square = (x * x).sum(-1, keepdim=True).div(width, rounding_mode="floor") + 1
    r, s = rsqrt(mean_square, table)
    s = s - 12
    y = (x * r + (torch.ones_like(s) << (s - 1))) >> s
    if layer:
        y = shift_round(y * gain, 12) + bias
    w = taps.shape[0]
    if not w:
        return shift_round(y, 12 - exponent).clamp(-127, 127), history
    t = y.shape[1]
    y = torch.cat((history, y), dim=1)
    acc = y[:, w - 1 :] * taps[0]
    for j in range(1, w):
        acc += y[:, w - 1 - j : w - 1 - j + t] * taps[j]
    past = y[:, t:].to(history.dtype)
    return shift_round(acc, 24 - exponent).clamp(-127, 127), past


def attend(
    acc: Tensor,
    mantissa: int,
    shift: tuple[int, int],
    bias: Tensor,
    rotation: Tensor,
    start: int,
    heads: int,
    past_keys: Tensor,
    past_values: Tensor,
    window: int,
    exps: Tensor,
    scale: int,
    exponents: tuple[int, int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """(codes (B, T, D), keys, values): the last two hold the last `window` positions, in order.

    Keys and values are int8. Where the window is short, most scores are never computed.
    """
    b, t, d3 = acc.shape
    d = d3 // 3
    e_qk, e_v, e_out = exponents
    qk = requantise(acc[..., : 2 * d], mantissa, shift[0], bias[: 2 * d])
    qk = qk.clamp(-1048576, 1048575)
    if rotation.numel():
        pairs = qk.view(b, t, 2 * heads, -1, 2)
        c, s = rotation[start : start + t, None].unbind(-1)
        x0 = pairs[..., 0] * c - pairs[..., 1] * s
        x1 = pairs[..., 0] * s + pairs[..., 1] * c
        qk = shift_round(torch.stack((x0, x1), dim=-1), 22)
    else:
        qk = shift_round(qk, 8)
    q, k = qk.clamp(-127, 127).view(b, t, 2, heads, -1).unbind(2)
    v = requantise(acc[..., 2 * d :], mantissa, shift[1], bias[2 * d :]).clamp(-127, 127)
    keys = torch.cat((past_keys, k.to(torch.int8)), dim=1)
    values = torch.cat((past_values, v.view(b, t, heads, -1).to(torch.int8)), dim=1)
    scaling = scale, 9 + 2 * e_qk
    past, width = keys.shape[1] - t, queries_at_once(b * heads, t, window)
    parts = []
    for first in range(0, t, width):
        last = min(first + width, t)
        seen = slice(max(past + first - window + 1, 0), past + last)
        parts.append(
            _attend_part(q[:, first:last], keys[:, seen], values[:, seen], window, exps, scaling)
        )
    out = shift_round(torch.cat(parts, dim=1), 40 + e_v - e_out)
    return out.clamp(-127, 127).reshape(b, t, d), keys[:, -window:], values[:, -window:]


def queries_at_once(rows: int, t: int, window: int) -> int:
    """How many of `t` queries are looked at together, for `rows` heads of chunks.

    All scores of such a part are at most `SCORES_AT_ONCE`, if those of one query are.
    """
    width = t
    while width > 1 and rows * width * (width + window - 1) > SCORES_AT_ONCE:
        width = -(-width // 2)
    return width


def _attend_part(
    q: Tensor, keys: Tensor, values: Tensor, window: int, exps: Tensor, scale: tuple[int, int]
) -> Tensor:
    """Sums times the inverse of their weights, int64 (B, T, H, K), for the last T positions.

    q: int64 (B, T, H, K); keys, values: int8 (B, N, H, K). scale: of scores, and their shift.
    """
    t, n = q.shape[1], keys.shape[1]
    # float64 products of small integers: sums stay far below 2**53, so they are exact.
    score = torch.einsum("bthk,bnhk->bhtn", q.double(), keys.double()).long()
    query = torch.arange(n - t, n, device=q.device)[:, None]
    key = torch.arange(n, device=q.device)[None, :]
    seen = (key <= query) & (key > query - window)
    score = score.masked_fill_(~seen, -(1 << 40))
    gap = ((score.amax(-1, keepdim=True) - score) * scale[0]) >> scale[1]
    p = torch.where(
        seen & (gap < exps.numel()), exps[gap.clamp(max=exps.numel() - 1)], torch.zeros_like(gap)
    )
    inverse = (1 << 40) // p.sum(-1)
    out = torch.einsum("bhtn,bnhk->bthk", p.double(), values.double()).long()
    return out * inverse.transpose(1, 2)[..., None]


def squared_relu(acc: Tensor, mantissa: int, shift: int, bias: Tensor, exponent: int) -> Tensor:
    """Codes 0..127 of relu(u)^2."""
    u = requantise(acc, mantissa, shift, bias).clamp(0, (1 << 26) - 1)
    return shift_round(u * u, 20 - exponent).clamp(max=127)


def gelu(
    acc: Tensor, mantissa: int, shift: int, bias: Tensor, exponent: int, table: Tensor
) -> Tensor:
    """int8 codes of GELU, by table."""
    u = requantise(acc, mantissa, shift, bias).clamp(-1048576, 1048575)
    g = torch.where(u >= 512, u << 4, table[(u + 512).clamp(0, 1023)])
    g = torch.where(u < -512, torch.zeros_like(g), g)
    return shift_round(g, 10 - exponent).clamp(-127, 127)


def logit_gaps(
    acc: Tensor,
    mantissa: int,
    shift: int,
    bias: Tensor,
    last: int,
    guess: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """int64 (B, T, V) of min(max logit - logit, last).

    guess: place in the vocabulary of the symbol that a match offers (negative for none) and what
    its length adds, int64 (B, T); then acc has one more column, the trust.
    """
    logits = requantise(acc, mantissa, shift, bias)
    if guess is not None:
        rank, length_bonus = guess
        logits, trust = logits[..., :-1].contiguous(), logits[..., -1]
        bonus = torch.where(rank >= 0, trust + length_bonus, 0)
        logits.scatter_add_(-1, rank.clamp(min=0)[..., None], bonus[..., None])
    return (logits.amax(-1, keepdim=True) - logits).clamp(max=last)
