"""Compiled kernels on disk: what numba asks of a cache, with files that can be trusted.

A cached file is machine code that this process will run. So it is read only from a folder that
nobody but this user and root can write to, only if its checksum is right, and only if it was
compiled from exactly the sources that are installed. Whatever goes wrong (no folder, no space, a
damaged file, a folder that vanishes) means compiling again, never an error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from mdlzip.process.private_folders import can_write, private_folder, read_trusted

PACKAGE = Path(__file__).resolve().parent.parent
# Rooms whose sources cannot change a kernel; tests/unit/test_architecture.py checks the list.
ROOMS_WITHOUT_KERNELS = frozenset(
    {"archive", "bench", "cli", "codec", "fileio", "model", "report", "sparsity", "studies"}
    | {"training", "__init__", "__main__"}
)
SUFFIX = ".kernel"
_PART = ".part"
_MAGIC = b"mdlzip kernel 1\n"
_DIGEST_BYTES = 32
_VERSION_DIGITS = 16
_KEPT_VERSIONS = 4  # of the sources, in one place


class KernelCache:
    """The cache of one function. Methods have the names that numba's dispatcher calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        line = function.__code__.co_firstlineno
        self._name = f"{function.__module__}.{function.__qualname__}:{line}"

    @property
    def cache_path(self) -> str | None:
        """Folder for new files; None if there is none."""
        folder = folders().to_write
        return str(folder) if folder else None

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled function for this signature, None if it must be compiled."""
        key = self._key(signature, target_context)
        for folder in folders().to_read:
            with contextlib.suppress(Exception):
                payload = _checked(read_trusted(folder / _file_name(key)), key)
                if payload is not None:
                    return _rebuilt(payload, target_context)
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a function that was compiled just now."""
        folder = folders().to_write
        if folder is None or compiled.library.has_dynamic_globals or compiled.lifted:
            return
        with contextlib.suppress(Exception):
            from numba.core import serialize

            key = self._key(signature, compiled.target_context)
            _write(folder / _file_name(key), key + serialize.dumps(compiled._reduce()))

    def flush(self) -> None:
        """Called by `recompile`; a file is written over, so nothing is left to do."""

    def enable(self) -> None:
        """Part of numba's interface; this cache is always on."""

    def disable(self) -> None:
        """Part of numba's interface; this cache is always on."""

    def _key(self, signature: Any, target_context: Any) -> bytes:
        """32 bytes that tell function, types, processor and version of the sources from others."""
        processor = target_context.codegen().magic_tuple()
        return sha256(repr((_version(), self._name, signature, processor)).encode()).digest()


def _file_name(key: bytes) -> str:
    return key.hex()[:40] + SUFFIX


def _rebuilt(payload: bytes, target_context: Any) -> Any:
    from numba.core import serialize
    from numba.core.compiler import CompileResult

    target_context.refresh()
    return CompileResult._rebuild(target_context, *serialize.loads(payload))


def _checked(data: bytes | None, key: bytes) -> bytes | None:
    """The payload of a file; None if it is cut short, damaged or another kernel's."""
    if data is None or not data.startswith(_MAGIC):
        return None
    digest, content = data[len(_MAGIC) :][:_DIGEST_BYTES], data[len(_MAGIC) + _DIGEST_BYTES :]
    if sha256(content).digest() != digest or not content.startswith(key):
        return None
    return content[len(key) :]


def _write(path: Path, content: bytes) -> None:
    """All or nothing; of two processes that write the same file the later one wins."""
    descriptor, part = tempfile.mkstemp(SUFFIX + _PART, "", path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(_MAGIC + sha256(content).digest() + content)
            os.fchmod(file.fileno(), 0o644)  # the folder decides who may read
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


class Folders(NamedTuple):
    """Where this process looks for machine code, and where it puts what it compiles."""

    to_read: tuple[Path, ...]
    to_write: Path | None


class _Place(NamedTuple):
    """A folder that may serve; of those above it, `made` may be made where they are missing."""

    path: Path
    mode: int = 0o700
    check_parents: bool = True
    made: int = 0


@cache
def folders() -> Folders:
    """The first place that can be written, and those before it that may at least be read."""
    version, to_read = _version(), list[Path]()
    for place in _places() if version else ():
        _make_parents(place.path, place.mode, place.made)
        folder = private_folder(place.path, mode=place.mode, check_parents=place.check_parents)
        if folder is None:
            continue
        to_read.append(folder / version)
        if can_write(folder) and _make_version(folder / version, place.mode):
            return Folders(tuple(to_read), folder / version)
    return Folders(tuple(to_read), None)


def _places() -> list[_Place]:
    """NUMBA_CACHE_DIR alone where it is set, else in this order.

    Beside the package: what root has compiled there serves all users. The user's cache folder. The
    temporary folder: under a name that others can foresee, which is why ownership is checked.
    """
    from numba.core import config

    own = f"mdlzip-{os.geteuid()}"
    if chosen := str(getattr(config, "CACHE_DIR", "") or ""):
        path = Path(chosen).absolute() / own
        return [_Place(path, made=len(path.parts))]
    temporary = os.environ.get("TMPDIR") or "/tmp"
    places = [
        _Place(PACKAGE / "__pycache__" / "kernels", 0o755, check_parents=False, made=1),
        _Place(Path(_user_cache(), "mdlzip"), made=1),
        _Place(Path(temporary, own)),
    ]
    return [place for place in places if place.path.is_absolute()]


def _user_cache() -> str:
    """$XDG_CACHE_HOME or ~/.cache; a relative path if this user has no home."""
    import pwd

    home = os.environ.get("HOME")
    if not home:
        with contextlib.suppress(KeyError):  # a user without a name, as in containers
            home = pwd.getpwuid(os.geteuid()).pw_dir
    return os.environ.get("XDG_CACHE_HOME") or f"{home or '~'}/.cache"


def _make_parents(path: Path, mode: int, levels: int) -> None:
    """Make up to `levels` folders above `path`; where that fails, nobody needs to know."""
    with contextlib.suppress(OSError, ValueError):  # a NUL in the name
        if levels and not path.parent.exists():
            _make_parents(path.parent, mode, levels - 1)
            path.parent.mkdir(mode)


@cache
def _version() -> str:
    """Digest of all that kernels are compiled from and by; "" where the sources cannot be read.

    numba looks at the file of a function alone. A kernel also holds the functions that it calls and
    the constants of other files.
    """
    import llvmlite
    import numba
    import numpy

    digest = sha256(repr((numba.__version__, llvmlite.__version__, numpy.__version__)).encode())
    digest.update(sys.version.encode())
    sources = kernel_sources()
    try:
        for path in sources:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(PACKAGE)} {len(content)}\n".encode() + content)
    except OSError:
        return ""
    return digest.hexdigest()[:_VERSION_DIGITS] if sources else ""


def kernel_sources() -> list[Path]:
    """The files of the package that a kernel can depend on, sorted."""
    files = sorted(PACKAGE.rglob("*.py"))
    return [f for f in files if room_of(f) not in ROOMS_WITHOUT_KERNELS]


def room_of(path: Path) -> str:
    """The part of the package that a file belongs to: a folder's or a module's name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _make_version(folder: Path, mode: int) -> bool:
    """Make the folder for this version of the sources; the oldest of many others go."""
    try:
        folder.mkdir(mode)
    except FileExistsError:
        return True
    except OSError:
        return False
    others = [f for f in folder.parent.iterdir() if _is_version(f.name) and f != folder]
    for old in sorted(others, key=lambda f: f.lstat().st_mtime)[: -_KEPT_VERSIONS + 1]:
        with contextlib.suppress(OSError):  # another process is cleaning up as well
            for file in old.iterdir():
                if file.name.endswith((SUFFIX, SUFFIX + _PART)):
                    file.unlink()
            old.rmdir()
    return True


def _is_version(name: str) -> bool:
    return len(name) == _VERSION_DIGITS and set(name) <= set("0123456789abcdef")
