"""A CUDA device that is not there: code for `device="cuda"` runs on a CPU build of torch.

`stub.cpp`, compiled once, gives torch a device guard and hooks. Tensors on the device are a wrapper
subclass: to torch they are cuda:0 (autocast has CUDA's own lists, gradients come from a thread of
the device), inside is a CPU tensor on which every operation is computed. What CUDA refuses is
refused:

- operations on tensors of both devices, but for CPU tensors without dimensions and indices;
- `numpy()` and `np.asarray` of a tensor on the device;
- products of integers, which CUDA does not have.

It cannot tell speed, memory, kernels that are missing for other reasons, races, or what sums in
another order would give. The thread of the device never ends: leave the process by `os._exit`.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STUB = Path(__file__).with_name("stub.cpp")
PACKAGE = str(Path(__file__).resolve().parents[2] / "mdlzip")
MEMORY_BYTES = 8 << 30  # what the device says it has


class Unavailable(RuntimeError):
    """There is no compiler, or this torch knows a real CUDA."""


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise Unavailable("no torch")
    return Path(spec.origin).parent


def build() -> Path:
    """The compiled stub, kept in the temporary folder; raises Unavailable."""
    root = _torch_folder()
    version = (root / "version.py").read_text()
    if "cuda: Optional[str] = None" not in version and "cuda: str | None = None" not in version:
        raise Unavailable("this torch is a CUDA build")
    key = hashlib.sha256((STUB.read_text() + version).encode()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"mdlzip-pretend-{os.getuid()}-{key}.so"
    if target.exists() and target.stat().st_uid == os.getuid():
        return target
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "stub.so")
        command = ["g++", "-std=c++20", "-O0", "-w", "-fPIC", "-shared", str(STUB)]
        command += ["-I", str(root / "include"), "-o", str(built)]
        command += ["-L", str(root / "lib"), "-lc10", "-ltorch_cpu"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise Unavailable("no g++") from None
        if done.returncode:
            raise Unavailable(done.stderr[-2000:])
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_bytes(built.read_bytes())
        partial.rename(target)
    return target


class Log:
    """What the host waited for, by line of the package, and products, by name and type."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.products: Counter[str] = Counter()

    def clear(self) -> None:
        self.waits.clear()
        self.products.clear()

    def wait(self) -> None:
        self.waits[place()] += 1


LOG = Log()


def place() -> str:
    """The innermost line of the package that is being run, as path:line."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            return f"{name[len(PACKAGE) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


def refuse(what: str) -> None:
    raise RuntimeError(f"pretend CUDA: {what} at {place()}")


def install() -> None:
    """Make `device="cuda"` work in this process; before torch is imported."""
    if "torch" in sys.modules:
        raise Unavailable("torch is imported already")
    library, folder = build(), _torch_folder() / "lib"
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library))
    _define()


def leaves(values: Any) -> Iterator[Any]:
    """What lists, tuples and dictionaries hold in the end."""
    if isinstance(values, (list, tuple)):
        for value in values:
            yield from leaves(value)
    elif isinstance(values, dict):
        yield from leaves(list(values.values()))
    else:
        yield values


def mapped(values: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The same lists, tuples and dictionaries, with what is of a kind changed."""
    if isinstance(values, kind):
        return change(values)
    if isinstance(values, (list, tuple)):
        return type(values)([mapped(value, kind, change) for value in values])
    if isinstance(values, dict):
        return {key: mapped(value, kind, change) for key, value in values.items()}
    return values


_kept: list[object] = []  # torch forgets what a library defined when it goes


def _define() -> None:
    import torch

    aten, device = torch.ops.aten, torch.device("cuda", 0)
    crossing = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
    indexing = {
        aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
        aten._index_put_impl_.default, aten._unsafe_index.Tensor,
    }  # fmt: skip
    waiting = {
        aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default,
        aten.masked_select.default, aten.is_nonzero.default,
    }  # fmt: skip
    products = {
        aten.mm.default, aten.mm.out, aten.bmm.default, aten.bmm.out, aten.addmm.default,
        aten.baddbmm.default, aten.mv.default, aten.dot.default,
    }  # fmt: skip
    filling = ("aten::fill_", "aten::masked_fill_", "aten::masked_fill")

    class Pretend(torch.Tensor):
        """cuda:0 outside, a CPU tensor inside."""

        inner: torch.Tensor

        @staticmethod
        def __new__(cls, inner: torch.Tensor) -> Any:
            made = torch.Tensor._make_wrapper_subclass(
                cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
                dtype=inner.dtype, device=device,
            )  # fmt: skip
            made.inner = inner.detach() if inner.requires_grad else inner
            return made

        __torch_function__ = torch._C._disabled_torch_function_impl

        def numpy(self, *_: object, **__: object) -> Any:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

        def __array__(self, dtype: object = None, copy: object = None) -> Any:
            return self.numpy()

        def __repr__(self) -> str:
            return f"Pretend({self.inner!r})"

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            return run(func, args, dict(kwargs or {}))

    def inside(values: Any) -> Any:
        return mapped(values, Pretend, lambda t: t.inner)

    def number_allowed(func: Any) -> bool:
        """Whether a CPU tensor without dimensions may stand for a number."""
        return func._schema.name in filling or torch.Tag.pointwise in func.tags

    def check(func: Any, flat: list[Any]) -> None:
        plain = [t for t in flat if isinstance(t, torch.Tensor) and not isinstance(t, Pretend)]
        if plain and func not in crossing and func not in indexing:
            if any(t.ndim for t in plain) or not number_allowed(func):
                refuse(f"{func}: tensors on cuda:0 and cpu")
        inner = [t.inner for t in flat if isinstance(t, Pretend)]
        if func in products:
            kind = inner[0].dtype
            if not (kind.is_floating_point or kind.is_complex):
                refuse(f"{func}: not implemented for {kind} on CUDA")
            name = func._schema.name.removeprefix("aten::")
            LOG.products[f"{name} {str(kind).removeprefix('torch.')}"] += 1
        if func in waiting:
            LOG.wait()
        if func in indexing and any(isinstance(t, Pretend) and t.dtype == torch.bool
                                    for t in flat[1:]):  # fmt: skip
            LOG.wait()

    def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        flat = list(leaves((args, kwargs)))
        check(func, flat)
        wrappers = {id(t.inner): t for t in flat if isinstance(t, Pretend)}
        if func in crossing:
            first = next(t for t in flat if isinstance(t, torch.Tensor))
            target = kwargs.get("device")
            there = isinstance(first, Pretend) if target is None else target.type == "cuda"
            if not there:
                LOG.wait()
                if target is not None:
                    args, kwargs = inside((args, kwargs))
                    return func(*args, **{**kwargs, "device": torch.device("cpu")})
        args, kwargs = inside((args, kwargs))
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        out = func(*args, **kwargs)
        to_host = func in crossing and not isinstance(flat[0], Pretend) and not there
        if to_host:
            return out

        def wrap(inner: torch.Tensor) -> torch.Tensor:
            known = wrappers.get(id(inner))
            return Pretend(inner) if known is None else known

        return mapped(out, torch.Tensor, wrap)

    def empty(size: Any, **options: Any) -> Any:
        kept = {k: v for k, v in options.items()
                if k in ("dtype", "memory_format") and v is not None}  # fmt: skip
        return Pretend(torch.empty(size, device="cpu", **kept))

    def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Any:
        return Pretend(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))

    def arange(start: Any, end: Any, step: Any = 1, *, dtype: Any = None, **_: Any) -> Any:
        return Pretend(torch.arange(start, end, step, dtype=dtype, device="cpu"))

    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", empty, "CUDA")
    library.impl("empty_strided", empty_strided, "CUDA")
    library.impl("arange.start_step", arange, "CUDA")
    library.impl("arange", lambda end, **k: arange(0, end, **k), "CUDA")
    library.impl("arange.start", lambda start, end, **k: arange(start, end, **k), "CUDA")
    _kept.append(library)

    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign]
    cuda: Any = torch.cuda
    cuda._lazy_init = lambda: None
    cuda.is_available = cuda.is_initialized = lambda: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.get_device_name = lambda *_: "pretend"
    cuda.get_device_capability = lambda *_: (9, 0)
    cuda.mem_get_info = lambda *_: (MEMORY_BYTES, MEMORY_BYTES)
    cuda.is_bf16_supported = lambda *_, **__: True
    cuda.is_current_stream_capturing = lambda: False
    cuda.synchronize = lambda *_: LOG.wait()
    cuda.amp.common.amp_definitely_not_available = lambda: False
