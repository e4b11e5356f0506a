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
from mdlzip.quantised.attention_cpu import (
    AttentionWork,
    Seen,
    attention_kernel,
    attention_work,
    seen_shapes,
)
from mdlzip.quantised.backend import Task
from mdlzip.quantised.int8_products import BLOCK, GROUP, pack, padded

ROWS = 32
"""That go through the layers together."""

# Fields of `PackedNetwork.products`: where codes and numbers of a product begin, blocks and groups
# of its matrix, outputs. Its numbers are its two factors and its biases.
CODES, STARTS, NUMBERS, BLOCKS, GROUPS, OUTPUTS = range(6)
PRODUCT_FIELDS = 6
# Fields of `norms`: where the numbers begin (taps, gain, bias), taps, exponent.
NORM_NUMBERS, NORM_TAPS, NORM_EXPONENT = range(3)
NORM_FIELDS = 3


class PackedNetwork(NamedTuple):
    """A `Task` in few arrays, since each one that a kernel gets costs time at every call.

    products: int64 (4 L + 1, PRODUCT_FIELDS), by place; norms: int64 (2 L + 1, NORM_FIELDS).
    codes: int8, starts: int32, both see `pack`; numbers: float64. sites: int64 (L, 4), exponents
    of qk, v, attn_out, mlp_act. The rest as in `Task`, turns as `kernels_cpu.rotate` takes them.
    """

    products: np.ndarray
    norms: np.ndarray
    sites: np.ndarray
    codes: np.ndarray
    starts: np.ndarray
    numbers: np.ndarray
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
    wide: float64 (2, the widest of 2 D, V); centred: int32 (D,).
    """

    codes: np.ndarray
    sums: np.ndarray
    stream: np.ndarray
    wide: np.ndarray
    centred: np.ndarray
    attention: AttentionWork


def packed_network(task: Task) -> PackedNetwork:
    """The arrays of a network."""
    net, c = task.net, task.config
    order = pairs_apart(c.d_model, c.head_width) if len(task.rotation) else None
    sizes = [_packed_shape(product.codes.shape) for product in net.products]
    codes = np.empty(sum(n * k for n, k in sizes), np.int8)
    starts = np.empty(sum(n for n, _ in sizes), np.int32)
    numbers = list[np.ndarray]()
    products, norms = list[tuple[int, ...]](), list[tuple[int, ...]]()
    n_codes = n_starts = n_numbers = 0
    first = {layer.attention.first.place for layer in net.layers}
    for product, (n, k) in zip(net.products, sizes, strict=True):
        rows = order if order is not None and product.place in first else slice(None)
        matrix, start = pack(product.codes[rows])
        codes[n_codes : n_codes + n * k], starts[n_starts : n_starts + n] = matrix.ravel(), start
        numbers.append(np.array([product.factor, product.factor_v, *product.bias[rows]]))
        outputs = len(product.codes)
        products.append((n_codes, n_starts, n_numbers, n // BLOCK, k // GROUP, outputs))
        n_codes, n_starts, n_numbers = n_codes + n * k, n_starts + n, n_numbers + 2 + outputs
    for norm in net.norms:
        norms.append((n_numbers, len(norm.taps), norm.exponent))
        numbers.append(np.concatenate([norm.taps.ravel(), norm.gain, norm.bias]))
        n_numbers += len(numbers[-1])
    return PackedNetwork(
        np.array(products),
        np.array(norms),
        np.array([(x.qk, x.v, x.attn_out, x.mlp_act) for x in net.layers]),
        codes,
        starts,
        np.concatenate(numbers),
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


def _packed_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return padded(shape[0], BLOCK), padded(shape[1], GROUP)


def pairs_apart(width: int, head: int) -> np.ndarray:
    """Order of the rows of a qkv matrix that has the first members of a head's pairs in front.

    Scores are sums over a head, so its order is free as long as queries and keys share it.
    """
    in_head = np.concatenate([np.arange(0, head, 2), np.arange(1, head, 2)])
    pairs = np.add.outer(np.arange(0, 2 * width, head), in_head).ravel()
    return np.concatenate([pairs, np.arange(2 * width, 3 * width)])


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
        np.empty(width, np.int32),
        attention_work(task.config.head_width, min(task.window, task.positions)),
    )


@cache
def forward_kernel(kind: str) -> Any:
    """The compiled `forward` with products of this kind (`int8_products.KINDS`).

    forward(previous, start, span, symbols, lengths, net, cache, work, gaps) looks at the chunks
    span[0] .. span[1] - 1 at the columns span[2] .. span[3] - 1 of `previous` (B, T), whose first
    column is the symbol before position `start`. symbols, lengths (B, T): see `Matcher.advance`,
    empty without matches. gaps: uint16 (B, T, V), written.
    """
    multiply, attend = int8_products.kernel(kind), attention_kernel(kind)
    bare = kernels.bare

    def product(net, place, n, work):  # type: ignore[no-untyped-def]
        """Sums of n rows of codes."""
        own = net.products[place]
        groups = own[GROUPS]
        multiply(
            work.codes.ctypes.data, net.codes.ctypes.data + own[CODES],
            net.starts.ctypes.data + 4 * own[STARTS], work.sums.ctypes.data,
            n, own[BLOCKS], groups, groups * BLOCK * GROUP,
        )  # fmt: skip

    def norm(net, place, stream, span, ring, work, user):  # type: ignore[no-untyped-def]
        at, w = net.norms[place, NORM_NUMBERS], net.norms[place, NORM_TAPS]
        d_ = stream.shape[1]
        n = d_ if net.is_layer_norm else 0
        taps = net.numbers[at : at + w * d_]
        gain, bias = net.numbers[at + w * d_ :][:n], net.numbers[at + w * d_ + n :][:n]
        kernels.norm_codes(
            stream, span, ring, taps, gain, bias, net.is_layer_norm,
            net.norms[place, NORM_EXPONENT], net.rsqrt, work.wide, work.centred,
            work.codes, net.products[user, GROUPS] * GROUP,
        )  # fmt: skip

    def embed(previous, start, here, net, stream):  # type: ignore[no-untyped-def]
        first, last, column, length = here
        for b in range(first, last):
            for t in range(column, column + length):
                row = net.embedding[previous[b, t]]
                own = stream[(b - first) * length + t - column]
                for d in range(len(own)):
                    own[d] = row[d]
                if net.sinusoids.shape[0]:
                    place = net.sinusoids[start + t]
                    for d in range(len(own)):
                        own[d] += place[d]

    def give_gaps(net, place, here, symbols, lengths, work, gaps):  # type: ignore[no-untyped-def]
        first, last, column, length = here
        at, n = net.products[place, NUMBERS], net.products[place, OUTPUTS]
        width = net.products[place, BLOCKS] * BLOCK
        factor, bias = net.numbers[at], net.numbers[at + 2 : at + 2 + n]
        for b in range(first, last):
            for t in range(column, column + length):
                rank, bonus = -1, 0.0
                if net.match.size and symbols[b, t] >= 0:
                    rank, bonus = net.ranks[symbols[b, t]], net.match[lengths[b, t]]
                row = work.sums[((b - first) * length + t - column) * width :]
                kernels.logit_gaps(
                    row, factor, bias, net.last_gap, rank, bonus, work.wide[0], work.wide[1],
                    gaps[b, t],
                )  # fmt: skip

    def add(net, place, stream, work):  # type: ignore[no-untyped-def]
        """Add sums to the stream."""
        at, width = net.products[place, NUMBERS], net.products[place, BLOCKS] * BLOCK
        bias = net.numbers[at + 2 : at + 2 + stream.shape[1]]
        kernels.add_residual(stream, work.sums, width, net.numbers[at], bias)

    def activate(net, i, n, work):  # type: ignore[no-untyped-def]
        """Codes for the last product of layer i from the sums of the one before."""
        place, exponent = 4 * i + 2, net.sites[i, 3]
        at, outputs = net.products[place, NUMBERS], net.products[place, OUTPUTS]
        factor, bias = net.numbers[at], net.numbers[at + 2 : at + 2 + outputs]
        most, width = net.products[place, BLOCKS] * BLOCK, net.products[place + 1, GROUPS] * GROUP
        sums, codes = work.sums, work.codes
        if net.is_gelu:
            kernels.gelu(n, sums, most, factor, bias, exponent, net.gelu, codes, width)
        else:
            kernels.squared_relu(n, sums, most, factor, bias, exponent, codes, width)

    product.__qualname__ += f"_{kind}"  # by which machine code is kept
    product, norm, embed = bare(product), bare(norm), bare(embed)
    add, activate, give_gaps = bare(add), bare(activate), bare(give_gaps)

    def forward(previous, start, span, symbols, lengths, net, cache, work, gaps):  # type: ignore[no-untyped-def]
        first, last, column, end = span
        most = min(end - column, ROWS)
        chunks, layers = max(ROWS // most, 1), net.sites.shape[0]
        for b in range(first, last, chunks):
            for t in range(column, end, most):
                here = b, min(b + chunks, last), t, min(most, end - t)
                rows = here[0], here[1], start + here[2], here[3]
                n = (here[1] - here[0]) * here[3]
                stream = work.stream[:n]
                embed(previous, start, here, net, stream)
                for i in range(layers):
                    place = 4 * i
                    norm(net, 2 * i, stream, rows, cache.rings[2 * i], work, place)
                    product(net, place, n, work)
                    at, outputs = net.products[place, NUMBERS], net.products[place, OUTPUTS]
                    seen = cache.seen.keys[i], cache.seen.starts[i], cache.seen.values[i]
                    attend(
                        work.sums, net.products[place, BLOCKS] * BLOCK, rows,
                        (net.numbers[at], net.numbers[at + 1]),
                        net.numbers[at + 2 : at + 2 + outputs], net.turns, net.window, seen,
                        net.exps, net.scale, (net.sites[i, 0], net.sites[i, 1], net.sites[i, 2]),
                        work.wide[0], work.attention, work.codes,
                        net.products[place + 1, GROUPS] * GROUP,
                    )  # fmt: skip
                    product(net, place + 1, n, work)
                    add(net, place + 1, stream, work)
                    norm(net, 2 * i + 1, stream, rows, cache.rings[2 * i + 1], work, place + 2)
                    product(net, place + 2, n, work)
                    activate(net, i, n, work)
                    product(net, place + 3, n, work)
                    add(net, place + 3, stream, work)
                norm(net, 2 * layers, stream, rows, cache.rings[0], work, 4 * layers)
                product(net, 4 * layers, n, work)
                give_gaps(net, 4 * layers, here, symbols, lengths, work, gaps)

    forward.__qualname__ += f"_{kind}"
    return bare(forward)
