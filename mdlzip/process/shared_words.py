"""Words of memory that threads read and write while they run compiled code."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

_WORD_BYTES = 8
# What a processor does better than to look again at once; it lets the other thread of a core run.
_REST = {"x86_64": "llvm.x86.sse2.pause", "amd64": "llvm.x86.sse2.pause"}


class Words(NamedTuple):
    """Operations for kernels on int64 arrays, by the address of an array and a place in it.

    read(address, i); write(address, i, value): what this thread wrote before is seen by all who
    read the value; rest(): a moment, for who reads again and again.
    """

    read: Any
    write: Any
    rest: Any


@cache
def words() -> Words:
    """The operations; numba is loaded here."""
    import platform

    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    word = ir.IntType(8 * _WORD_BYTES)
    rest_name = _REST.get(platform.machine().lower())

    def place(builder: Any, address: Any, i: Any) -> Any:
        here = builder.add(address, builder.mul(i, i.type(_WORD_BYTES)))
        return builder.inttoptr(here, word.as_pointer())

    @intrinsic
    def read(typing, address, i):  # type: ignore[no-untyped-def]
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pointer = place(builder, *arguments)
            return builder.load_atomic(pointer, "acquire", _WORD_BYTES, typ=word)

        return types.int64(types.intp, types.intp), emit

    @intrinsic
    def write(typing, address, i, value):  # type: ignore[no-untyped-def]
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pointer = place(builder, *arguments[:2])
            builder.store_atomic(arguments[2], pointer, "release", _WORD_BYTES)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.int64), emit

    @intrinsic
    def rest(typing):  # type: ignore[no-untyped-def]
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            if rest_name:
                kind, module = ir.FunctionType(ir.VoidType(), []), builder.module
                known = module.globals.get(rest_name)
                builder.call(known or ir.Function(module, kind, rest_name), [])
            return context.get_dummy_value()

        return types.void(), emit

    return Words(read, write, rest)
