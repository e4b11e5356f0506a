"""The two loops over all inputs of a decision, four inputs at a time.

Written in the compiler's own language, since it cannot know that the four sets of weights never lie
in the same place and so computes them number by number. The integers are the same.
"""

from __future__ import annotations

from typing import Any

from mdlzip.experts.tables import N_INPUTS, WEIGHT_BITS
from mdlzip.process.kernels import emitted

_LANES = 4
assert N_INPUTS % _LANES == 0


class _Emitter:
    """Loads and stores of some inputs or weights."""

    def __init__(self, ir: Any, builder: Any) -> None:
        self.builder, self.ir = builder, ir
        self.narrow = ir.VectorType(ir.IntType(32), _LANES)
        self.wide = ir.VectorType(ir.IntType(64), _LANES)

    def pointer(self, address: Any, i: int) -> Any:
        """Of the four words of 32 bits from place 4 i on."""
        here = self.builder.add(address, address.type(4 * _LANES * i))
        return self.builder.inttoptr(here, self.narrow.as_pointer())

    def load(self, address: Any, i: int) -> Any:
        """Those words."""
        return self.builder.load(self.pointer(address, i), align=4, typ=self.narrow)


def _dot(ir: Any, builder: Any, inputs: Any, *more: Any) -> None:
    """more: addresses of four sets of weights and of an int64, the sum; two that are not used."""
    e, (a, b, c, d, out, *_) = _Emitter(ir, builder), more
    total = e.wide([0] * _LANES)
    for i in range(N_INPUTS // _LANES):
        weights = builder.add(
            builder.add(e.load(a, i), e.load(b, i)), builder.add(e.load(c, i), e.load(d, i))
        )
        x = builder.sext(e.load(inputs, i), e.wide)
        total = builder.add(total, builder.mul(x, builder.sext(weights, e.wide)))
    word = ir.IntType(32)
    parts = [builder.extract_element(total, word(i)) for i in range(_LANES)]
    value = builder.add(builder.add(parts[0], parts[1]), builder.add(parts[2], parts[3]))
    builder.store(value, builder.inttoptr(out, value.type.as_pointer()), align=8)


def _adapt(ir: Any, builder: Any, inputs: Any, *more: Any) -> None:
    """more: addresses of four sets of weights, the error; two that are not used."""
    e, (*sets, error, _, _) = _Emitter(ir, builder), more
    word = ir.IntType(32)
    empty = ir.Constant(e.wide, ir.Undefined)
    one = builder.insert_element(empty, error, word(0))
    errors = builder.shuffle_vector(one, empty, ir.VectorType(word, _LANES)([0] * _LANES))
    half, bits = (e.wide([n] * _LANES) for n in (1 << (WEIGHT_BITS - 1), WEIGHT_BITS))
    for i in range(N_INPUTS // _LANES):
        x = builder.sext(e.load(inputs, i), e.wide)
        change = builder.ashr(builder.add(builder.mul(x, errors), half), bits)
        change = builder.trunc(change, e.narrow)
        for address in sets:
            pointer = e.pointer(address, i)
            new = builder.add(builder.load(pointer, align=4, typ=e.narrow), change)
            builder.store(new, pointer, align=4)


dot, adapt = emitted(_dot), emitted(_adapt)
