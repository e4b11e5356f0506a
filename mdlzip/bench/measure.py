"""What a baseline is: something that measures a file, checks its own round trip and reports."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from mdlzip.errors import MdlzipError

BLOCK = 1 << 20
# Per-chunk codecs are sampled and scaled up beyond this many chunks, or this many bytes of them.
MAX_CHUNKS = 1 << 15
MAX_SAMPLE_BYTES = 64 << 20


@dataclass(frozen=True)
class Measurement:
    """Size and times of one codec on one file.

    bytes: None where the codec could not run (then `note` says why).
    scope: "file" for the whole file as one stream, "chunk" for every chunk on its own.
    """

    name: str
    scope: str
    bytes: int | None
    compress_s: float | None = None
    decompress_s: float | None = None
    note: str = ""


class Codec(Protocol):
    """One competitor."""

    @property
    def name(self) -> str:
        """What users type, such as xz-9e."""

    @property
    def scope(self) -> str:
        """Either "file" or "chunk", as in `Measurement`."""

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Compress and decompress `path`; raises MdlzipError if the bytes do not come back."""


class StreamCompressor(Protocol):
    """The push interface that lzma, bz2 and zlib share."""

    def compress(self, data: bytes, /) -> bytes:
        """Feed plain bytes, get coded bytes."""

    def flush(self) -> bytes:
        """The last coded bytes."""


def read_blocks(path: Path) -> Iterator[bytes]:
    """The file in blocks of 1 MiB, so that its size never matters."""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def sampled_chunks(path: Path, chunk_size: int) -> tuple[list[bytes], int]:
    """Chunks of the file, evenly spaced where they are too many, and the number of all."""
    size = path.stat().st_size
    total = -(-size // chunk_size)
    taken = min(total, MAX_CHUNKS, MAX_SAMPLE_BYTES // chunk_size)
    with path.open("rb") as file:
        chunks = []
        for i in range(taken):
            file.seek(i * total // taken * chunk_size)
            chunks.append(file.read(chunk_size))
    return chunks, total


def measure_stream(
    name: str,
    path: Path,
    compressor: StreamCompressor,
    decompress: Callable[[IO[bytes]], Iterable[bytes]],
    note: str = "",
) -> Measurement:
    """Stream `path` through a compressor into a temporary file and back, comparing digests."""
    with tempfile.TemporaryFile() as coded:
        start = time.perf_counter()
        digest = hashlib.sha256()
        for block in read_blocks(path):
            digest.update(block)
            coded.write(compressor.compress(block))
        coded.write(compressor.flush())
        middle = time.perf_counter()
        size = coded.tell()
        coded.seek(0)
        back = hashlib.sha256()
        for block in decompress(coded):
            back.update(block)
        end = time.perf_counter()
    check(name, back.digest() == digest.digest())
    return Measurement(name, "file", size, middle - start, end - middle, note)


def measure_chunks(
    name: str,
    path: Path,
    chunk_size: int,
    compress: Callable[[bytes], bytes],
    decompress: Callable[[bytes], bytes],
    note: str = "",
) -> Measurement:
    """Code every chunk (or an even sample, then scaled up) on its own; no index is counted."""
    chunks, total = sampled_chunks(path, chunk_size)
    start = time.perf_counter()
    coded = [compress(chunk) for chunk in chunks]
    middle = time.perf_counter()
    same = all(decompress(c) == chunk for c, chunk in zip(coded, chunks, strict=True))
    end = time.perf_counter()
    check(name, same)
    scale = total / len(chunks) if chunks else 1.0
    if total > len(chunks):
        note = "; ".join(x for x in (note, f"sampled: {len(chunks):,} of {total:,} chunks") if x)
    size = round(sum(map(len, coded)) * scale)
    return Measurement(name, "chunk", size, (middle - start) * scale, (end - middle) * scale, note)


def check(name: str, same: bool) -> None:
    """Refuse a baseline that does not give the bytes back: its size would mean nothing."""
    if not same:
        raise MdlzipError(f"baseline {name} did not give the file back")


def same_file(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while block := a.read(BLOCK):
            if block != b.read(BLOCK):
                return False
    return True
