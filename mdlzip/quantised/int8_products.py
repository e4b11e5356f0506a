"""Exact products of int8 rows with a packed int8 matrix, inside compiled kernels.

numba knows no dot products of bytes, and processors differ in theirs, so the inner loop is written
in the compiler's own language, once for each kind:

- "vnni512", "vnni256": four products of unsigned and signed bytes and their sum at once.
- "avx2": pairs of such products in 16 saturating bits, then in 32. Exact, since codes of matrices
  are at most 63: 2 * 255 * 63 < 2**15 (docs/format-model.md).
- "plain": multiplications that any processor has.

Their first operand is unsigned, so rows are stored as code + 128, and the 128 times the sum of a
column that this adds is taken off at the start. Sums wrap modulo 2**32 and end below 2**31.

Shapes: K inputs, in groups of four; N outputs, in blocks of 16; both padded with zeros.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from mdlzip.process.kernels import compiled, cpu_features, emitted

BLOCK = 16  # outputs that lie together
GROUP = 4  # inputs that lie together
OFFSET = 128  # what is added to the codes of a row
_SUMS_BYTES = 4 * BLOCK


def padded(n: int, unit: int) -> int:
    """The least multiple of `unit` that is not below `n`."""
    return -(-n // unit) * unit


def pack(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 (N, K) -> (int8 (N / 16, K / 4, 16, 4), int32 (N,): what sums start from)."""
    n, k = codes.shape
    full = np.zeros((padded(n, BLOCK), padded(k, GROUP)), np.int8)
    full[:n, :k] = codes
    start = -OFFSET * full.sum(axis=1, dtype=np.int64)
    blocks = full.reshape(len(full) // BLOCK, BLOCK, full.shape[1] // GROUP, GROUP)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)), start.astype(np.int32)


def usable_kinds() -> list[str]:
    """The kinds that this processor has and nothing rules out, the fastest first."""
    features = cpu_features()
    needs = {
        "vnni512": {"avx512f", "avx512bw", "avx512vnni"},
        "vnni256": {"avx512vl", "avx512vnni"},
        "avx2": {"avx2"},
        "plain": set(),
    }
    return [kind for kind, needed in needs.items() if needed <= features]


def host_kind() -> str:
    """The fastest kind of this processor."""
    return usable_kinds()[0]


class Kind(NamedTuple):
    """What a kind of product can take.

    tile: rows and blocks whose sums the registers hold. offset: added to a row of codes of 8 bits
    where the matrix has 8 bits, too. digit_bits: of a row of positive numbers, then.
    """

    tile: tuple[int, int]
    offset: int
    digit_bits: int


KINDS = {
    "vnni512": Kind((4, 4), OFFSET, 8),
    "vnni256": Kind((2, 2), OFFSET, 8),
    "avx2": Kind((2, 2), 0, 7),
    "plain": Kind((1, 1), OFFSET, 8),
}


@cache
def kernel(kind: str, *, signed: bool = False) -> Any:
    """The compiled `multiply(rows, weights, start, sums, n, blocks, groups, step)`.

    For other kernels to call, so arrays are given by their addresses. rows: uint8 (n, K), with
    K / 4 groups; weights: int8 (blocks, K / 4, 16, 4), `step` bytes from block to block; start:
    int32 (16 blocks,); sums: int32 (n, 16 blocks), overwritten with the start and the products.
    Codes of the weights are at most 63; 127 if `signed`, which for "avx2" means that rows are int8.
    """
    rows, blocks = KINDS[kind].tile

    def strip(height: int) -> Any:
        """Of so many rows, through all blocks."""
        four, two, one = (_tile(kind, height, min(n, blocks), signed) for n in (4, 2, 1))

        @compiled(inline="always")
        def strip(x, x_step, w, w_step, n_blocks, groups, start, sums, step):  # type: ignore[no-untyped-def]
            b = 0
            while b < n_blocks:
                if blocks >= 4 and n_blocks - b >= 4:
                    four(x, x_step, w, w_step, groups, start, sums, step)
                    n = 4
                elif blocks >= 2 and n_blocks - b >= 2:
                    two(x, x_step, w, w_step, groups, start, sums, step)
                    n = 2
                else:
                    one(x, x_step, w, w_step, groups, start, sums, step)
                    n = 1
                b += n
                w += n * w_step
                start += n * _SUMS_BYTES
                sums += n * _SUMS_BYTES

        return strip

    four, two, one = (strip(min(n, rows)) for n in (4, 2, 1))

    def multiply(x, weights, start, out, n_rows, n_blocks, groups, w_step):  # type: ignore[no-untyped-def]
        x_step, step, left = groups * GROUP, n_blocks * _SUMS_BYTES, n_rows
        while left > 0:
            if rows >= 4 and left >= 4:
                four(x, x_step, weights, w_step, n_blocks, groups, start, out, step)
                n = 4
            elif rows >= 2 and left >= 2:
                two(x, x_step, weights, w_step, n_blocks, groups, start, out, step)
                n = 2
            else:
                one(x, x_step, weights, w_step, n_blocks, groups, start, out, step)
                n = 1
            left -= n
            x += n * x_step
            out += n * step

    name = f"{kind}{'_signed' if signed else ''}"
    multiply.__qualname__ = f"multiply_{name}"  # by which machine code is kept
    return compiled(error_model="numpy", _nrt=False)(multiply)


def _tile(kind: str, rows: int, blocks: int, signed: bool) -> Any:
    """Intrinsic: the sums of some rows for some blocks.

    Arguments: address of the rows and bytes from one to the next, of the weights and bytes from
    block to block, groups of inputs, addresses of the start and of the sums, bytes from row to row.
    """
    return emitted(
        lambda ir, builder, *arguments: _Emitter(ir, builder, kind, signed).tile(
            rows, blocks, *arguments
        )
    )


class _Emitter:
    """Writes the instructions of a tile."""

    def __init__(self, ir: Any, builder: Any, kind: str, signed: bool) -> None:
        self._ir, self._builder, self._kind, self._signed = ir, builder, kind, signed
        self._lanes = 16 if kind in ("vnni512", "plain") else 8
        self._word = ir.IntType(32)
        self._vector = ir.VectorType(self._word, self._lanes)

    def tile(self, rows: int, blocks: int, *arguments: Any) -> None:
        """A loop over the groups whose sums stay in registers."""
        x, x_step, w, w_step, groups, start, sums, step = arguments
        builder, number, parts = self._builder, x.type, BLOCK // self._lanes
        part_bytes = 4 * self._lanes
        places = list(product(range(rows), range(blocks), range(parts)))
        before, loop = builder.block, builder.append_basic_block("groups")
        after = builder.append_basic_block("sums")
        first = [self._load(start, _SUMS_BYTES * b + part_bytes * p) for _, b, p in places]
        builder.branch(loop)
        builder.position_at_end(loop)
        group, *totals = (builder.phi(kind) for kind in [number, *[self._vector] * len(places)])
        x_here = builder.add(x, builder.mul(group, number(GROUP)))
        w_here = builder.add(w, builder.mul(group, number(_SUMS_BYTES)))
        codes = [
            self._spread(self._load(self._at(x_here, x_step, r), 0, self._word))
            for r in range(rows)
        ]
        weights = [
            [self._load(self._at(w_here, w_step, b), part_bytes * p) for p in range(parts)]
            for b in range(blocks)
        ]
        new = [
            self._add_products(total, codes[r], weights[b][p])
            for total, (r, b, p) in zip(totals, places, strict=True)
        ]
        following = builder.add(group, number(1))
        for phi, begin, value in zip(
            [group, *totals], [number(0), *first], [following, *new], strict=True
        ):
            phi.add_incoming(begin, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, groups), loop, after)
        builder.position_at_end(after)
        for value, (r, b, p) in zip(new, places, strict=True):
            address = self._at(sums, step, r)
            address = builder.add(address, number(_SUMS_BYTES * b + part_bytes * p))
            builder.store(value, builder.inttoptr(address, self._vector.as_pointer()), align=4)

    def _at(self, base: Any, step: Any, n: int) -> Any:
        return self._builder.add(base, self._builder.mul(step, base.type(n)))

    def _load(self, address: Any, offset: int, kind: Any = None) -> Any:
        builder, kind = self._builder, kind or self._vector
        address = builder.add(address, address.type(offset))
        pointer = builder.inttoptr(address, kind.as_pointer())
        return builder.load(pointer, align=1, typ=kind)

    def _spread(self, value: Any) -> Any:
        """The word in every lane."""
        undefined = self._ir.Constant(self._vector, self._ir.Undefined)
        one = self._builder.insert_element(undefined, value, self._word(0))
        return self._builder.shuffle_vector(one, undefined, self._vector([0] * self._lanes))

    def _add_products(self, total: Any, x: Any, w: Any) -> Any:
        """total + the sums of four products each; x, w: bytes, in 32-bit words."""
        ir, builder, lanes = self._ir, self._builder, self._lanes
        if self._kind in ("vnni512", "vnni256"):
            name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
            return self._call(name, self._vector, total, x, w)
        octets = ir.VectorType(ir.IntType(8), 4 * lanes)
        x, w = builder.bitcast(x, octets), builder.bitcast(w, octets)
        if self._kind == "avx2":
            if self._signed:
                w = self._call("llvm.x86.avx2.psign.b", octets, w, x)
                x = self._call("llvm.x86.avx2.psign.b", octets, x, x)
            halves = ir.VectorType(ir.IntType(16), 2 * lanes)
            pairs = self._call("llvm.x86.avx2.pmadd.ub.sw", halves, x, w)
            ones = halves([1] * (2 * lanes))
            sums = self._call("llvm.x86.avx2.pmadd.wd", self._vector, pairs, ones)
            return builder.add(total, sums)
        halves, undefined = ir.VectorType(ir.IntType(16), lanes), ir.Constant(octets, ir.Undefined)
        for i in range(GROUP):
            places = self._vector([GROUP * j + i for j in range(lanes)])
            left, right = (builder.shuffle_vector(part, undefined, places) for part in (x, w))
            # At most 255 * 127 < 2**15.
            products = builder.mul(builder.zext(left, halves), builder.sext(right, halves))
            total = builder.add(total, builder.sext(products, self._vector))
        return total

    def _call(self, name: str, result: Any, *arguments: Any) -> Any:
        kind = self._ir.FunctionType(result, [argument.type for argument in arguments])
        module = self._builder.module
        function = module.globals.get(name) or self._ir.Function(module, kind, name)
        return self._builder.call(function, arguments)
