"""The competitors that code every chunk on its own, as the paper's protocol does, and fairly."""

from __future__ import annotations

import lzma
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdlzip.bench.measure import Measurement, check, measure_chunks, sampled_chunks

_PROBE_CHUNKS = 1024
# (lc, lp, pb): xz's default and the settings that suit short inputs
_LZMA_SETTINGS = ((3, 0, 2), (3, 0, 0), (0, 0, 0), (1, 0, 0), (0, 0, 2), (0, 2, 2))
_DICTIONARY_BYTES = (16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20)
_TRAINING_CHUNKS_PER_DICTIONARY = 4  # a dictionary is at most a quarter of the file


def _lzma2(chunk_size: int, lc: int = 3, lp: int = 0, pb: int = 2) -> list[dict[str, Any]]:
    # A window as small as the chunk: the coded bytes stay the same and set-up gets ten times faster
    return [
        {
            "id": lzma.FILTER_LZMA2,
            "preset": 9 | lzma.PRESET_EXTREME,
            "dict_size": max(4096, chunk_size),
            "lc": lc,
            "lp": lp,
            "pb": pb,
        }
    ]


@dataclass
class ChunkXz:
    """Every chunk as its own .xz container, about 57 bytes of framing each: the paper's LZMA2."""

    name: str = "chunk-xz"
    scope: str = field(default="chunk", init=False)

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Code all chunks."""
        filters = _lzma2(chunk_size)
        return measure_chunks(
            self.name,
            path,
            chunk_size,
            lambda chunk: lzma.compress(chunk, filters=filters),
            lzma.decompress,
            "the paper's LZMA2: a .xz container per chunk",
        )


@dataclass
class ChunkLzma2:
    """Every chunk as a raw LZMA2 stream, with the literal settings that suit the file best."""

    name: str = "chunk-lzma2"
    scope: str = field(default="chunk", init=False)

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Choose the settings on a sample, then code all chunks."""
        chunks, _ = sampled_chunks(path, chunk_size)
        probe = chunks[:: max(1, len(chunks) // _PROBE_CHUNKS)]

        def cost(setting: tuple[int, int, int]) -> int:
            filters = _lzma2(chunk_size, *setting)
            return sum(len(lzma.compress(c, lzma.FORMAT_RAW, filters=filters)) for c in probe)

        best = min(_LZMA_SETTINGS, key=cost)
        filters = _lzma2(chunk_size, *best)
        return measure_chunks(
            self.name,
            path,
            chunk_size,
            lambda chunk: lzma.compress(chunk, lzma.FORMAT_RAW, filters=filters),
            lambda coded: lzma.decompress(coded, lzma.FORMAT_RAW, filters=filters),
            "raw LZMA2, lc={} lp={} pb={}".format(*best),
        )


@dataclass
class ChunkZstd:
    """Every chunk as its own zstd frame, as the paper does at level 19."""

    level: int = 19
    scope: str = field(default="chunk", init=False)

    @property
    def name(self) -> str:
        """chunk-zstd-LEVEL."""
        return f"chunk-zstd-{self.level}"

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Code all chunks."""
        import zstandard

        coder = zstandard.ZstdCompressor(level=self.level)
        decoder = zstandard.ZstdDecompressor()
        note = "the paper's ZSTD: a frame per chunk" if self.level == 19 else ""
        return measure_chunks(self.name, path, chunk_size, coder.compress, decoder.decompress, note)


def bare_coders(chunk_size: int, dictionary: Any = None) -> tuple[Any, Any]:
    """zstd -19 without magic number, content size, checksum and dictionary id, and its decoder."""
    import zstandard

    sizes = {"source_size": chunk_size}
    if dictionary is not None:
        sizes["dict_size"] = len(dictionary)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=0,
        write_checksum=0,
        write_dict_id=0,
        **sizes,
    )
    given = {} if dictionary is None else {"dict_data": dictionary}
    return (
        zstandard.ZstdCompressor(compression_params=parameters, **given),
        zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS, **given),
    )


@dataclass
class ChunkZstdBare:
    """Every chunk as a zstd -19 frame stripped of all that a container could know."""

    name: str = "chunk-zstd-bare"
    scope: str = field(default="chunk", init=False)

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Code all chunks."""
        coder, decoder = bare_coders(chunk_size)
        return measure_chunks(
            self.name,
            path,
            chunk_size,
            coder.compress,
            lambda coded: decoder.decompress(coded, max_output_size=chunk_size),
            "no magic, size or checksum",
        )


@dataclass
class ChunkZstdDictionary:
    """Bare zstd -19 frames with a dictionary trained on the file itself, counted in.

    The dictionary counts as the smaller of its own size and its size under xz -9e.
    """

    name: str = "chunk-zstd-dict"
    scope: str = field(default="chunk", init=False)

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Train dictionaries of several sizes, choose on a sample, then code all chunks."""
        chunks, total = sampled_chunks(path, chunk_size)
        start = time.perf_counter()
        best: tuple[float, int, Any] | None = None
        for size in _DICTIONARY_BYTES:
            if size * _TRAINING_CHUNKS_PER_DICTIONARY > path.stat().st_size:
                break
            candidate = _train(size, chunks)
            if candidate is None:
                continue
            estimate = _estimate(candidate, chunks, total, chunk_size)
            if best is None or estimate < best[0]:
                best = (estimate, _stored_bytes(candidate), candidate)
        if best is None:
            return Measurement(self.name, self.scope, None, note="too small to train a dictionary")
        training_s = time.perf_counter() - start
        _, counted, dictionary = best
        coder, decoder = bare_coders(chunk_size, dictionary)
        got = measure_chunks(
            self.name,
            path,
            chunk_size,
            coder.compress,
            lambda coded: decoder.decompress(coded, max_output_size=chunk_size),
            f"{len(dictionary) >> 10} KiB dictionary, counted as {counted:,} bytes",
        )
        check(self.name, got.bytes is not None and got.compress_s is not None)
        return Measurement(
            self.name,
            self.scope,
            (got.bytes or 0) + counted,
            (got.compress_s or 0.0) + training_s,
            got.decompress_s,
            got.note,
        )


def _train(size: int, chunks: list[bytes]) -> Any:
    """A dictionary of at most `size` bytes, or None where zstd finds the samples too few."""
    import zstandard

    try:
        return zstandard.train_dictionary(size, list(chunks))
    except zstandard.ZstdError:
        return None


def _stored_bytes(dictionary: Any) -> int:
    raw = dictionary.as_bytes()
    return min(len(raw), len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)))


def _estimate(dictionary: Any, chunks: list[bytes], total: int, chunk_size: int) -> float:
    """Bytes of dictionary and all chunks, from an even sample of them."""
    coder, _ = bare_coders(chunk_size, dictionary)
    probe = chunks[:: max(1, len(chunks) // _PROBE_CHUNKS)]
    mean = sum(len(coder.compress(c)) for c in probe) / len(probe)
    return _stored_bytes(dictionary) + mean * total
