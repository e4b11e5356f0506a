"""The whole predictor as one compiled kernel: a few rows at a time through all layers.

One call looks at any positions of any chunks. The rows that go through together are so few that
what passes between steps stays in the first two caches, where the weights come by as a stream.

Shapes: B chunks, T positions, L layers, D width, F feed-forward width, V symbols; see
`kernels_cpu` for rows and codes, `int8_products` for packed matrices.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from mdlzip.quantised import int8_products, tables
from mdlzip.quantised import kernels_cpu as kernels
from mdlzip.quantised.attention_cpu import Seen, attention_kernel, seen_shapes
from mdlzip.quantised.backend import Task
from mdlzip.quantised.int8_products import BLOCK, GROUP, pack, padded
from mdlzip.quantised.prepared import Product

ROWS = 32
"""That go through the layers together."""


class PackedNetwork(NamedTuple):
    """A `Task` as arrays for the kernel, one of all layers for each kind of tensor.

    Matrices (L, N / 16, K / 4, 16, 4) and their starts (L, N): see `pack`; the head has no L.
    Biases: float64. factors: float64 (4 L + 1, 2), of products by place, (all, v). gain, shift: of
    norms. exponents: int64 (2 L + 1,), of norms; sites: int64 (L, 4), of qk, v, attn_out, mlp_act.
    """

    qkv: np.ndarray
    qkv_start: np.ndarray
    qkv_bias: np.ndarray
    out: np.ndarray
    out_start: np.ndarray
    out_bias: np.ndarray
    up: np.ndarray
    up_start: np.ndarray
    up_bias: np.ndarray
    down: np.ndarray
    down_start: np.ndarray
    down_bias: np.ndarray
    head: np.ndarray
    head_start: np.ndarray
    head_bias: np.ndarray
    factors: np.ndarray
    taps: np.ndarray
    gain: np.ndarray
    shift: np.ndarray
    exponents: np.ndarray
    sites: np.ndarray
    embedding: np.ndarray
    sinusoids: np.ndarray
    turns: np.ndarray
    exps: np.ndarray
    rsqrt: np.ndarray
    gelu: np.ndarray
    match: np.ndarray
    ranks: np.ndarray
    window: int
    scale: int
    last_gap: int
    is_layer_norm: bool
    is_gelu: bool


class CacheArrays(NamedTuple):
    """What a batch of chunks carries from call to call.

    rings: int32 (2 L, B, w, D), normed values of the last w positions, slot = position % w.
    """

    rings: np.ndarray
    seen: Seen


class WorkArrays(NamedTuple):
    """What the kernel writes to between steps, for `ROWS` rows.

    codes: uint8, sums: int32, both as flat memory for the widest product; stream: int32 (ROWS, D);
    wide: float64 (2, the widest of D, F, V).
    """

    codes: np.ndarray
    sums: np.ndarray
    stream: np.ndarray
    wide: np.ndarray


def packed_network(task: Task) -> PackedNetwork:
    """The arrays of a network."""
    net, c = task.net, task.config
    order = pairs_apart(c.d_model, c.head_width) if len(task.rotation) else None
    attention, mlp = [x.attention for x in net.layers], [x.mlp for x in net.layers]
    norms = net.norms
    return PackedNetwork(
        *_stack([part.first for part in attention], order),
        *_stack([part.second for part in attention]),
        *_stack([part.first for part in mlp]),
        *_stack([part.second for part in mlp]),
        *pack(net.head.codes),
        net.head.bias,
        np.array([(p.factor, p.factor_v) for p in net.products]),
        np.stack([norm.taps for norm in norms[:-1]]),
        np.stack([norm.gain for norm in norms]),
        np.stack([norm.bias for norm in norms]),
        np.array([norm.exponent for norm in norms]),
        np.array([(x.qk, x.v, x.attn_out, x.mlp_act) for x in net.layers]),
        net.embedding,
        task.sinusoids,
        np.ascontiguousarray(task.rotation.transpose(0, 2, 1)),
        task.exps,
        tables.rsqrt_table(),
        tables.gelu_table(),
        net.match,
        task.vocabulary.ranks,
        min(task.window, task.positions),
        task.scale,
        task.last_gap,
        c.norm == "layer",
        c.activation == "gelu",
    )


def pairs_apart(width: int, head: int) -> np.ndarray:
    """Order of the rows of a qkv matrix that has the first members of a head's pairs in front.

    Scores are sums over a head, so its order is free as long as queries and keys share it.
    """
    in_head = np.concatenate([np.arange(0, head, 2), np.arange(1, head, 2)])
    pairs = np.add.outer(np.arange(0, 2 * width, head), in_head).ravel()
    return np.concatenate([pairs, np.arange(2 * width, 3 * width)])


def _stack(
    products: list[Product], order: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Matrices, starts, biases) of the same product in all layers, rows in `order`."""
    rows = slice(None) if order is None else order
    packed = [pack(product.codes[rows]) for product in products]
    matrices, starts = (np.stack(part) for part in zip(*packed, strict=True))
    return matrices, starts, np.stack([product.bias[rows] for product in products])


def new_cache(task: Task, batch: int) -> CacheArrays:
    """That of `batch` chunks at their first position."""
    c = task.config
    window = min(task.window, task.positions)
    shapes = seen_shapes(batch, c.n_layers, c.n_heads, c.head_width, window)
    rings = np.zeros((2 * c.n_layers, batch, c.conv_width, c.d_model), np.int32)
    return CacheArrays(rings, Seen(*(np.zeros(shape, np.int32) for shape in shapes)))


def new_work(task: Task) -> WorkArrays:
    """Buffers for one thread."""
    products = task.net.products
    width, v = task.config.d_model, task.vocabulary.n_symbols
    most_inputs = max(padded(p.codes.shape[1], GROUP) for p in products)
    most_outputs = max(padded(p.codes.shape[0], BLOCK) for p in products)
    return WorkArrays(
        np.empty(ROWS * most_inputs, np.uint8),
        np.empty(ROWS * most_outputs, np.int32),
        np.empty((ROWS, width), np.int32),
        np.empty((2, max(2 * width, v))),
    )


@cache
def forward_kernel(kind: str) -> Any:
    """The compiled `forward` with products of this kind (`int8_products.KINDS`).

    forward(previous, start, span, symbols, lengths, net, cache, work, gaps) looks at the chunks
    span[0] .. span[1] - 1 at the columns span[2] .. span[3] - 1 of `previous` (B, T), whose first
    column is the symbol before position `start`. symbols, lengths (B, T): see `Matcher.advance`,
    empty without matches. gaps: uint16 (B, T, V), written.
    """
    from mdlzip.process.kernels import compiled

    multiply, attend = int8_products.kernel(kind), attention_kernel(kind)
    keep = compiled(fastmath=False, boundscheck=False)

    @compiled(inline="always")
    def rows_of(memory, n, matrices):  # type: ignore[no-untyped-def]
        """Codes (n, K) for a packed matrix."""
        width = matrices.shape[-3] * 4
        return memory[: n * width].reshape(n, width)

    @compiled(inline="always")
    def product(codes, matrix, start, memory):  # type: ignore[no-untyped-def]
        n, width = codes.shape[0], start.shape[0]
        sums = memory[: n * width].reshape(n, width)
        multiply(codes, matrix, start, sums)
        return sums

    @compiled(inline="always")
    def norm(place, taps, ring, span, net, stream, work, codes):  # type: ignore[no-untyped-def]
        kernels.norm_codes(
            stream, span, ring, taps, net.gain[place], net.shift[place], net.is_layer_norm,
            net.exponents[place], net.rsqrt, work.wide, codes,
        )  # fmt: skip

    def look(previous, start, here, symbols, lengths, net, cache, work, gaps):  # type: ignore[no-untyped-def]
        first, last, column, length = here
        span = first, last, start + column, length
        n = (last - first) * length
        stream = work.stream[:n]
        for r in range(n):
            place, symbol = column + r % length, previous[first + r // length, column + r % length]
            stream[r] = net.embedding[symbol]
            if net.sinusoids.shape[0]:
                stream[r] += net.sinusoids[start + place]
        for i in range(net.qkv.shape[0]):
            codes = rows_of(work.codes, n, net.qkv)
            norm(2 * i, net.taps[2 * i], cache.rings[2 * i], span, net, stream, work, codes)
            sums = product(codes, net.qkv[i], net.qkv_start[i], work.sums)
            codes = rows_of(work.codes, n, net.out)
            attend(
                sums, span, net.factors[4 * i], net.qkv_bias[i], net.turns, net.window,
                (cache.seen.keys[i], cache.seen.starts[i], cache.seen.values[i]), net.exps,
                net.scale, (net.sites[i, 0], net.sites[i, 1], net.sites[i, 2]), work.wide[0], codes,
            )  # fmt: skip
            sums = product(codes, net.out[i], net.out_start[i], work.sums)
            kernels.add_residual(stream, sums, net.factors[4 * i + 1, 0], net.out_bias[i])
            codes = rows_of(work.codes, n, net.up)
            j = 2 * i + 1
            norm(j, net.taps[j], cache.rings[j], span, net, stream, work, codes)
            sums = product(codes, net.up[i], net.up_start[i], work.sums)
            codes = rows_of(work.codes, n, net.down)
            factor, exponent = net.factors[4 * i + 2, 0], net.sites[i, 3]
            if net.is_gelu:
                kernels.gelu(sums, factor, net.up_bias[i], exponent, net.gelu, codes)
            else:
                kernels.squared_relu(sums, factor, net.up_bias[i], exponent, codes)
            sums = product(codes, net.down[i], net.down_start[i], work.sums)
            kernels.add_residual(stream, sums, net.factors[4 * i + 3, 0], net.down_bias[i])
        codes = rows_of(work.codes, n, net.head)
        final = net.exponents.shape[0] - 1
        norm(final, net.taps[0, :0], cache.rings[0], span, net, stream, work, codes)
        sums = product(codes, net.head, net.head_start, work.sums)
        for r in range(n):
            b, t = first + r // length, column + r % length
            rank, bonus = -1, 0.0
            if net.match.size and symbols[b, t] >= 0:
                rank, bonus = net.ranks[symbols[b, t]], net.match[lengths[b, t]]
            kernels.logit_gaps(
                sums[r], net.factors[-1, 0], net.head_bias, net.last_gap, rank, bonus,
                work.wide[0], gaps[b, t],
            )  # fmt: skip

    look.__qualname__ = f"look_{kind}"
    look_at = keep(look)

    def forward(previous, start, span, symbols, lengths, net, cache, work, gaps):  # type: ignore[no-untyped-def]
        first, last, column, end = span
        length = min(end - column, ROWS)
        chunks = max(ROWS // length, 1)
        for b in range(first, last, chunks):
            for t in range(column, end, length):
                here = (b, min(b + chunks, last), t, min(length, end - t))
                look_at(previous, start, here, symbols, lengths, net, cache, work, gaps)

    # By which machine code is kept.
    forward.__qualname__ = f"forward_{kind}"
    return keep(forward)
