"""The one decorator for compiled functions ("kernels"): numba, loaded when the first is defined.

Machine code is kept between runs where that is safe and possible (`kernel_cache`). Where it is not,
every process compiles what it needs: slower at the start, the same results.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, TypeVar
from zlib import crc32

F = TypeVar("F", bound=Callable[..., Any])

NOT_CALLED = -(1 << 62)

_kernels: dict[str, Any] = {}


def compiled(**options: Any) -> Callable[[F], F]:
    """Decorator: the function, compiled by numba for each signature that it is called with.

    options: of `numba.njit`; kernels release the interpreter lock unless told otherwise. A function
    with inline="always" is compiled into its callers and needs no cache of its own.
    """
    from numba import njit  # costs a second; not everybody who imports a kernel's module calls it

    def decorate(function: F) -> F:
        kernel: Any = njit(**{"nogil": True, **options})(function)
        if options.get("inline") != "always":
            _keep_machine_code(kernel, function)
            _kernels[_name(function)] = kernel
        return kernel

    return decorate


def emitted(emit: Callable[..., None]) -> Any:
    """An operation of eight arguments for kernels, in the compiler's own language.

    emit(ir, builder, *arguments) writes it; ir: llvmlite's; arguments: integers of the size of an
    address. It returns nothing.
    """
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def operation(typing, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
        def write(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            emit(ir, builder, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), write

    return operation


@cache
def fetching() -> Any:
    """An operation for kernels: fetch(address) asks for a line of memory that is needed soon."""
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    byte, word = ir.IntType(8), ir.IntType(32)

    @intrinsic
    def fetch(typing, address):  # type: ignore[no-untyped-def]
        def write(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pointer = builder.inttoptr(arguments[0], byte.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), word, word, word])
            function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
            builder.call(function, [pointer, word(1), word(3), word(1)])  # to be written, data
            return context.get_dummy_value()

        return types.void(types.intp), write

    return fetch


def entry(kernel: Any, *examples: Any) -> tuple[int, int]:
    """Where the machine code of a kernel begins, for arguments of these types, and their digest.

    For `called_at`: a kernel that calls another one by its name holds a copy of it, which takes as
    long to compile again; of a large one that costs seconds.
    """
    from numba import typeof

    types = tuple(typeof(example) for example in examples)
    kernel.compile(types)
    found = kernel.overloads[types]
    name = found.fndesc.llvm_func_name
    return found.library.get_pointer_to_function(name), _digest(types)


def is_compiled(kernel: Any, *examples: Any) -> bool:
    """Whether machine code for arguments of these types is there, in memory or on the disk."""
    from numba import typeof
    from numba.core.registry import cpu_target

    types = tuple(typeof(example) for example in examples)
    if types in kernel.overloads:
        return True
    found = kernel._cache.load_overload(types, cpu_target.target_context)
    return found is not None


def called_at(kernel: Any) -> Any:
    """An operation for kernels: call(where, (a, b, ...)) -> what `kernel` returns for them.

    where: two integers of `entry`. If that was for other types nothing is called, and NOT_CALLED is
    returned. A kernel that returns nothing gives 0 here.
    """
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def call(typing, where, arguments):  # type: ignore[no-untyped-def]
        expected = tuple(arguments.types)
        kernel.compile(expected)
        result = kernel.overloads[expected].signature.return_type
        given_back = types.int64 if result == types.none else result

        def write(context, builder, signature, values):  # type: ignore[no-untyped-def]
            address, given = cgutils.unpack_tuple(builder, values[0], 2)
            ours = context.get_constant(types.intp, _digest(expected))
            out = cgutils.alloca_once_value(builder, context.get_constant(given_back, NOT_CALLED))
            with builder.if_then(builder.icmp_signed("==", given, ours), likely=True):
                function = context.call_conv.get_function_type(result, expected)
                code = builder.inttoptr(address, function.as_pointer())
                passed = cgutils.unpack_tuple(builder, values[1], len(expected))
                _, returned = context.call_conv.call_function(
                    builder, code, result, expected, passed
                )
                nothing = context.get_constant(given_back, 0)
                builder.store(nothing if result == types.none else returned, out)
            return builder.load(out)

        return given_back(where, arguments), write

    return call


def _digest(types: tuple[Any, ...]) -> int:
    return crc32(repr(types).encode())


def cpu_features() -> set[str]:
    """What kernels may use of this processor, by LLVM's names; numba's settings may forbid some."""
    import llvmlite.binding as llvm
    from numba.core import config

    chosen = getattr(config, "CPU_FEATURES", None)
    if chosen is not None or getattr(config, "CPU_NAME", None):
        return {part[1:] for part in (chosen or "").split(",") if part.startswith("+")}
    return {name for name, there in llvm.get_host_cpu_features().items() if there}


def _keep_machine_code(kernel: Any, function: Callable[..., Any]) -> None:
    """Give the kernel a cache of ours in place of numba's.

    `njit(cache=True)` raises where no folder can be written, trusts folders that other users can
    write to, overlooks changes in functions of other files, and fails on damaged files.
    """
    from mdlzip.process.kernel_cache import KernelCache

    if hasattr(kernel, "_cache"):  # what `enable_caching` of numba 0.61 to 0.68 sets
        kernel._cache = KernelCache(function)


def kernel_names(*, used: bool = False) -> list[str]:
    """Names of the kernels defined so far, sorted; used: of those alone that have run.

    A kernel that another one calls is part of that one's machine code, so it has run as well.
    """
    if not used:
        return sorted(_kernels)
    found: set[str] = set()
    todo = [name for name, kernel in _kernels.items() if kernel.overloads]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _called_by(_kernels[name].py_func)
    return sorted(found)


def _called_by(function: Callable[..., Any]) -> list[str]:
    """Kernels among the names that a function uses: global ones, of its modules, and outer ones."""
    names = function.__code__.co_names
    found = [function.__globals__.get(name) for name in names]
    modules = [value for value in found if isinstance(value, ModuleType)]
    found += [getattr(module, name, None) for module in modules for name in names]
    found += [cell.cell_contents for cell in function.__closure__ or ()]
    return [name for name, kernel in _kernels.items() if any(kernel is f for f in found)]


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__.split('.')[-1]}.{function.__qualname__.split('.')[-1]}"
