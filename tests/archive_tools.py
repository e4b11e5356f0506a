"""Archives for tests: tiny networks, hand-made headers with right checksums, one call to decode."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TypeAlias
from unittest import mock
from zlib import crc32

import numpy as np
import pytest

import mdlzip
from mdlzip.archive.context_section import context_bytes
from mdlzip.archive.header import MAGIC
from mdlzip.archive.reader import ArchiveReader, frame_bytes
from mdlzip.archive.sections import SECTION_HEADER_BYTES
from mdlzip.archive.source import ByteSource, SectionSource
from mdlzip.codec import contexts
from mdlzip.codec.decode import decode_archive
from mdlzip.codec.fitting import Machine
from mdlzip.codec.options import CompressOptions, no_progress
from mdlzip.config import ModelConfig, load_preset
from mdlzip.networks.registry import activation_sites, tensor_shapes
from mdlzip.quantised.coders import Strict
from mdlzip.quantised.cuts import pack_cut
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.quantised.predictor import Predictor
from mdlzip.quantised.unit_decoder import UnitDecoder
from mdlzip.quantised.unit_work import encode_chunks
from mdlzip.quantised.units import encode_units
from mdlzip.symbols.context import STRICT, Context
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokens import Tokens
from mdlzip.symbols.vocabulary import Vocabulary
from mdlzip.training.checkpoint import Checkpoint, Progress, Settings, save

TINY = ModelConfig(d_model=16, n_layers=1, n_heads=1, d_ff=32, window=8, conv_width=2)
GENERAL_METHODS = ("stored", "zstd", "xz")
METHODS = (*GENERAL_METHODS, "learned")
CONTEXTS = ("reference", "solid")  # learned archives whose chunks know of other groups


def random_network(
    seed: int = 0,
    config: ModelConfig = TINY,
    density: float = 0.02,
    vocabulary: Vocabulary | None = None,
) -> IntegerNetwork:
    """A network that predicts badly but exactly; sparse, so that its archive is small."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        codes = rng.integers(-20, 21, shape) * (rng.random(shape) < density)
        tensors[name] = QuantTensor(codes.astype(np.int8), mantissa=1 << 10, exponent=16)
    exponents = dict.fromkeys(activation_sites(config), 4)
    return IntegerNetwork(config, tensors, exponents, vocabulary or Vocabulary())


def encode_group(predictor: Predictor, flat: np.ndarray, ends: np.ndarray) -> bytes:
    """A group by itself, under the strict protocol."""
    vocabulary = predictor.vocabulary
    coder = Strict(vocabulary, len(ends), predictor.chunk_size)
    encode_chunks(predictor, vocabulary, coder, flat, np.diff(ends, prepend=0))
    return pack_cut(vocabulary, flat, ends) + coder.finish()


def encode_all(
    network: IntegerNetwork, tokens: Tokens, context: Context = STRICT, threads: int = 1
) -> list[bytes]:
    """Coded bytes of every unit."""
    return [coded for coded, _ in encode_units(network, tokens, context, threads=threads)]


def decode_all(
    network: IntegerNetwork,
    layout: Layout,
    coded: Iterable[tuple[int, bytes]],
    context: Context = STRICT,
    threads: int = 1,
) -> list[bytes]:
    """The bytes of every unit of `coded`."""
    decoder = UnitDecoder(network, network.vocabulary, layout, context, threads=threads)
    return [plain for _, plain in decoder.decode(coded)]


def untrained(vocabulary: Vocabulary) -> IntegerNetwork:
    """`random_network` for the symbols of a file, or for all bytes if it has no merges."""
    n_merges = len(vocabulary.merges)
    if not n_merges:
        return random_network()
    return replace(random_network(config=replace(TINY, n_merges=n_merges)), vocabulary=vocabulary)


def compressible(n: int, seed: int = 1) -> bytes:
    """`n` bytes that every method makes smaller."""
    rng = np.random.default_rng(seed)
    words = [bytes(rng.integers(97, 123, rng.integers(2, 9)).astype(np.uint8)) for _ in range(60)]
    return b" ".join(words[i] for i in rng.integers(0, 60, n // 3 + 1))[:n]


def sample(method: str) -> bytes:
    """An original for which the archive of that method is the natural one."""
    if method == "stored":
        return np.random.default_rng(5).bytes(300)
    return compressible(600) * (3 if method == "xz" else 1)


def make_archive(
    folder: Path,
    method: str,
    data: bytes | None = None,
    *,
    chunk_size: int = 256,
    context: str = "chunk",
) -> bytes:
    """The bytes of an archive of that method, made by the codec (zstd and xz by its parts).

    method: one of CONTEXTS for a learned archive with that context.
    """
    if method in CONTEXTS:
        method, context = "learned", method
    data = sample(method) if data is None else data
    source, target = folder / "original", folder / "archive.mdlz"
    source.write_bytes(data)
    if method == "learned":
        options = CompressOptions(
            group_chunks=1,
            chunk_size=chunk_size,
            force=True,
            threads=1,
            device="cpu",
            context=context,
        )
        # Waves as small as groups, so that samples of some hundred bytes have several.
        with mock.patch.object(contexts, "_WAVE_BYTES", 1):
            mdlzip.compress(source, target, options, network=random_network())
        return target.read_bytes()
    return general_archive(method, data, name="original")


def general_archive(method: str, data: bytes, name: str | None = None) -> bytes:
    """A stored, zstd or xz archive, whether or not that is the smallest."""
    from mdlzip.archive.bodies import COMPRESSED, GENERAL
    from mdlzip.archive.header import Header

    body = next(body for body in GENERAL if body.label == method)
    header = Header(body.number, 0o644, 1_700_000_000_123_456_789, len(data))
    out, stream = io.BytesIO(), io.BytesIO()
    for compressed in COMPRESSED:
        if compressed is body:
            compressed.compress([data], len(data), stream.write, compressed.levels[0])
    body.write(out, header, name, [data], stream, sha256(data).digest())
    return out.getvalue()


class Pipe:
    """A stream that can only be read forward, in odd pieces."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 777) if size >= 0 else 777)


def decode(
    archive: bytes,
    *,
    pipe: bool = False,
    memory: int | None = 2 << 30,
    allow_slow: bool = False,
) -> bytes:
    """Decode from memory, as from a file or as from a pipe."""
    out = bytearray()
    machine = Machine("cpu", 1, memory, allow_slow)
    if pipe:
        reader = ArchiveReader(Pipe(archive))
    else:
        reader = ArchiveReader(io.BytesIO(archive), len(archive))
    decode_archive(reader, out.extend, machine, no_progress)
    return bytes(out)


def bits_to_flip(method: str, archive: bytes, step: int) -> Iterable[int]:
    """All bits; with a context those of its section (and of what is around it), and a sample."""
    if method not in CONTEXTS:
        return range(8 * len(archive))
    reader = ArchiveReader(io.BytesIO(archive), len(archive))
    end = reader.source.offset  # of the header that follows the context section
    start = end - 2 * SECTION_HEADER_BYTES - context_bytes(reader.context)
    return sorted({*range(8 * start, 8 * end), *range(0, 8 * len(archive), step)})


def fixed_header(
    *,
    magic: bytes = MAGIC,
    version: int = 1,
    method: int = 0,
    mode: int = 0o644,
    mtime_ns: int = 0,
    size: int | None = None,
) -> bytes:
    """26 bytes whose checksum is right whatever the fields say; size: 0 for stored, else 256."""
    size = (256 if method else 0) if size is None else size
    body = (
        magic + struct.pack("<BBHq", version, method, mode, mtime_ns) + size.to_bytes(6, "little")
    )
    return body + struct.pack("<I", crc32(body))


def section(kind: int, payload: bytes, *, flags: int = 0, length: int | None = None) -> bytes:
    """A section whose checksum is right whatever its length says."""
    n = len(payload) if length is None else length
    head = struct.pack("<BB", kind, flags) + n.to_bytes(6, "little")
    return head + struct.pack("<I", crc32(payload, crc32(head))) + payload


def footer(data: bytes) -> bytes:
    """What follows the data of a stored, zstd or xz archive of `data`."""
    from mdlzip.archive.blocks import block_sums, pack_table

    return pack_table(block_sums([data])) + sha256(data).digest()


def weights_source(data: bytes) -> SectionSource:
    """The payload of a weights section as a reader meets it."""
    return SectionSource(ByteSource(io.BytesIO(data)), len(data), 0, "weights section")


Record: TypeAlias = Callable[[str, object], None]
"""pytest's `record_property`: counts that `tests.figures` adds up."""


def with_trainer(monkeypatch: pytest.MonkeyPatch, **outcome: object) -> SimpleNamespace:
    """Replace training by an instant stand-in; returns a record of its calls.

    outcome: raises=an exception, or network=the result; files are written to the work folder as
    checkpoints would be.
    """
    record = SimpleNamespace(calls=0, resumed=0)

    def train(tokens, sample, options, *, work_dir, on_progress, should_stop, **more):  # type: ignore[no-untyped-def]
        record.calls += 1
        record.resumed += more["resumed"] is not None
        settings = Settings(
            load_preset("nano"),
            tokens.layout.chunk_size,
            tokens.layout.group_chunks,
            options.context,
            options.access_s,
            options.seed,
            None,
            60.0,
            tokens.total_bytes,
        )
        save(work_dir, Checkpoint(settings, Progress(step=1), {}))
        if "raises" in outcome:
            raise outcome["raises"]  # type: ignore[misc]
        return SimpleNamespace(
            network=outcome.get("network") or untrained(tokens.vocabulary), figures={"steps": 1.0}
        )

    module = ModuleType("mdlzip.training.run")
    module.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "mdlzip.training.run", module)
    return record


def learned_parts(archive: bytes) -> SimpleNamespace:
    """A learned archive cut up: `before` the frames, `frames`, `after` them; and the index."""
    reader = ArchiveReader(io.BytesIO(archive), len(archive))
    reader.weights()
    table, first = reader.jump_to_index()
    frames, position = [], first
    for length in table.lengths:
        end = position + frame_bytes(length)
        frames.append(archive[position:end])
        position = end
    return SimpleNamespace(
        before=archive[:first], frames=frames, after=archive[position:], table=table
    )
