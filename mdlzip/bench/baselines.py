"""The whole-file competitors and the registry by name; the per-chunk ones are in `per_chunk`."""

from __future__ import annotations

import bz2
import itertools
import lzma
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mdlzip.bench import per_chunk
from mdlzip.bench.external import TOOLS, make_external
from mdlzip.bench.measure import (
    BLOCK,
    Codec,
    Measurement,
    check,
    measure_stream,
    read_blocks,
)
from mdlzip.errors import MdlzipError, UsageError

NOT_INSTALLED = "not installed (pip install mdlzip[bench])"
DEFAULT = (
    "xz-9e",
    "zstd-22",
    "bzip2-9",
    "brotli-11",
    "ppmd",
    "chunk-xz",
    "chunk-lzma2",
    "chunk-zstd-19",
    "chunk-zstd-bare",
    "chunk-zstd-dict",
)
PPMD_ORDERS = (6, 8, 12, 24)
PPMD_ROUND_TRIP_BYTES = 256 << 20  # its decoder wants the coded file in memory at once
_LONG_FROM_LEVEL = 20  # zstd levels that need --ultra get --long too, as a user would type


@dataclass
class Xz:
    """`xz -N` or `xz -Ne`, CRC-64, single-threaded."""

    level: int = 9
    extreme: bool = True
    scope: str = field(default="file", init=False)

    @property
    def name(self) -> str:
        """As on the command line of xz."""
        return f"xz-{self.level}{'e' if self.extreme else ''}"

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Stream the file."""
        preset = self.level | (lzma.PRESET_EXTREME if self.extreme else 0)

        def back(coded: IO[bytes]) -> Iterable[bytes]:
            with lzma.open(coded) as plain:
                yield from iter(lambda: plain.read(BLOCK), b"")

        return measure_stream(self.name, path, lzma.LZMACompressor(preset=preset), back)


@dataclass
class Bzip2:
    """`bzip2 -N`."""

    level: int = 9
    scope: str = field(default="file", init=False)

    @property
    def name(self) -> str:
        """As on the command line of bzip2."""
        return f"bzip2-{self.level}"

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Stream the file."""

        def back(coded: IO[bytes]) -> Iterable[bytes]:
            with bz2.open(coded) as plain:
                yield from iter(lambda: plain.read(BLOCK), b"")

        return measure_stream(self.name, path, bz2.BZ2Compressor(self.level), back)


@dataclass
class Gzip:
    """`gzip -N`."""

    level: int = 9
    scope: str = field(default="file", init=False)

    @property
    def name(self) -> str:
        """As on the command line of gzip."""
        return f"gzip-{self.level}"

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Stream the file."""

        def back(coded: IO[bytes]) -> Iterable[bytes]:
            inflate = zlib.decompressobj(wbits=31)
            for block in iter(lambda: coded.read(BLOCK), b""):
                yield inflate.decompress(block)
            yield inflate.flush()

        return measure_stream(self.name, path, zlib.compressobj(self.level, wbits=31), back)


@dataclass
class Zstd:
    """`zstd -N`; from level 20 on `zstd --ultra -N --long`, the window as large as the file."""

    level: int = 22
    scope: str = field(default="file", init=False)

    @property
    def name(self) -> str:
        """As on the command line of zstd."""
        return f"zstd-{self.level}"

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Stream the file."""
        import zstandard

        size = path.stat().st_size
        extra: dict[str, int] = {}
        note = ""
        if self.level >= _LONG_FROM_LEVEL:
            # --long means 27; a larger file gets a window that holds it, up to the format's limit
            window = min(31, max(27, (size - 1).bit_length()))
            extra = {"window_log": window, "enable_ldm": 1}
            note = f"--ultra --long={window}"
        parameters = zstandard.ZstdCompressionParameters.from_level(
            self.level, source_size=size, write_checksum=1, **extra
        )
        compressor = zstandard.ZstdCompressor(compression_params=parameters)

        def back(coded: IO[bytes]) -> Iterable[bytes]:
            decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
            yield from decompressor.read_to_iter(coded)

        return measure_stream(self.name, path, compressor.compressobj(size=size), back, note)


class _BrotliStream:
    """brotli's streaming compressor under the common names."""

    def __init__(self, quality: int) -> None:
        import brotli

        self._inner = brotli.Compressor(quality=quality, lgwin=24)

    def compress(self, data: bytes, /) -> bytes:
        """Feed plain bytes."""
        return bytes(self._inner.process(data))

    def flush(self) -> bytes:
        """Finish the stream."""
        return bytes(self._inner.finish())


@dataclass
class Brotli:
    """`brotli -q N -w 24`; the Python binding offers no larger window than 16 MiB."""

    level: int = 11
    scope: str = field(default="file", init=False)

    @property
    def name(self) -> str:
        """As on the command line of brotli."""
        return f"brotli-{self.level}"

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Stream the file."""
        try:
            import brotli
        except ImportError:
            return Measurement(self.name, self.scope, None, note=NOT_INSTALLED)

        def back(coded: IO[bytes]) -> Iterable[bytes]:
            decompressor = brotli.Decompressor()
            for block in iter(lambda: coded.read(BLOCK), b""):
                yield decompressor.process(block)

        return measure_stream(self.name, path, _BrotliStream(self.level), back, "window 16 MiB")


@dataclass
class Ppmd:
    """PPMd variants H (7-Zip's) and I, the best of several orders, memory enough not to restart."""

    name: str = "ppmd"
    scope: str = field(default="file", init=False)

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Try every variant and order; the times are those of the best one."""
        try:
            import pyppmd
        except ImportError:
            return Measurement(self.name, self.scope, None, note=NOT_INSTALLED)
        memory = min(max(32 * path.stat().st_size, 16 << 20), 1 << 30)
        tries = []
        variants = {"H": pyppmd.Ppmd7Encoder, "I": pyppmd.Ppmd8Encoder}
        for (variant, make), order in itertools.product(variants.items(), PPMD_ORDERS):
            start = time.perf_counter()
            coder = make(order, memory)
            coded = [coder.encode(block) for block in read_blocks(path)] + [coder.flush()]
            tries.append((sum(map(len, coded)), variant, order, time.perf_counter() - start))
        refused = ""
        for size, variant, order, seconds in sorted(tries):
            try:
                back = self._round_trip(path, variant, order, memory)
            except (ValueError, MdlzipError):  # pyppmd cannot read all that it writes
                refused += f"; {size:,} bytes of variant {variant}, order {order}, do not decode"
                continue
            orders = ", ".join(map(str, PPMD_ORDERS))
            note = f"variant {variant} of H, I; order {order} of {orders}; {memory >> 20} MiB"
            note += "" if back is not None else "; too large for its decoder, not decoded"
            return Measurement(self.name, self.scope, size, seconds, back, note + refused)
        return Measurement(
            self.name, self.scope, None, note="does not give the file back" + refused
        )

    def _round_trip(self, path: Path, variant: str, order: int, memory: int) -> float | None:
        import pyppmd

        size = path.stat().st_size
        if size > PPMD_ROUND_TRIP_BYTES:
            return None
        plain = path.read_bytes()
        encoder, decoder = {
            "H": (pyppmd.Ppmd7Encoder, pyppmd.Ppmd7Decoder),
            "I": (pyppmd.Ppmd8Encoder, pyppmd.Ppmd8Decoder),
        }[variant]
        coder = encoder(order, memory)
        coded = coder.encode(plain) + coder.flush()
        start = time.perf_counter()
        back = decoder(order, memory).decode(coded, size) if size else b""
        seconds = time.perf_counter() - start
        check(self.name, back == plain)
        return seconds


_CHUNKED: dict[str, Callable[[], Codec]] = {
    "ppmd": Ppmd,
    "chunk-xz": per_chunk.ChunkXz,
    "chunk-lzma2": per_chunk.ChunkLzma2,
    "chunk-zstd-bare": per_chunk.ChunkZstdBare,
    "chunk-zstd-dict": per_chunk.ChunkZstdDictionary,
}
_LEVELLED: tuple[tuple[str, Callable[[int], Codec], int, int], ...] = (
    (r"xz-(\d)", lambda n: Xz(n, extreme=False), 0, 9),
    (r"xz-(\d)e", lambda n: Xz(n, extreme=True), 0, 9),
    (r"zstd-(\d+)", Zstd, 1, 22),
    (r"bzip2-(\d)", Bzip2, 1, 9),
    (r"gzip-(\d)", Gzip, 1, 9),
    (r"brotli-(\d+)", Brotli, 0, 11),
    (r"chunk-zstd-(\d+)", per_chunk.ChunkZstd, 1, 22),
)


def make_codec(name: str, programs: Mapping[str, str] | None = None) -> Codec:
    """The competitor called `name`; UsageError lists the choices.

    programs: paths of external programs by name, where they are not to be looked for.
    """
    if name in _CHUNKED:
        return _CHUNKED[name]()
    for pattern, make, low, high in _LEVELLED:
        match = re.fullmatch(pattern, name)
        if match and low <= int(match.group(1)) <= high:
            return make(int(match.group(1)))
    program = make_external(name, programs or {})
    if program is not None:
        return program
    choices = ", ".join((*DEFAULT, *TOOLS))
    raise UsageError(f"unknown baseline {name!r}: choose from {choices}, gzip-N, xz-N, zstd-N")
