"""Records of a file, each by itself: our model beside dictionaries and per-record compressors.

A part of the lines is for training, of model and dictionaries alike; only lines that nobody has
seen are coded. Each total stands twice: with what both sides share counted once, and without.
"""

from __future__ import annotations

import lzma
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlzip.bench.measure import check
from mdlzip.bench.per_chunk import bare_coders
from mdlzip.callbacks import OnProgress
from mdlzip.errors import UsageError
from mdlzip.fileio import open_stream, plain_errors

if TYPE_CHECKING:
    from mdlzip.codec import CompressOptions, ModelReport

DICTIONARY_BYTES = (16 << 10, 64 << 10, 110 << 10, 512 << 10)
MOST_BYTES = 512  # longer lines are left out
_UNSEEN_EVERY = 10  # one of so many lines is for measuring
_MOST_UNSEEN = 20_000
_LEAST = 20
_PPMD_MEMORY = 16 << 20
_PPMD_ORDER = 6

Coder = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]


@dataclass(frozen=True)
class RecordsRow:
    """One way of coding the records: bytes of all of them, and bytes that both sides share.

    shared_bytes: the smaller of a dictionary's own size and its size under xz -9e; of a model file
    as it is. encode_kb_per_s, decode_kb_per_s: of the records, all at once where a coder can.
    """

    name: str
    record_bytes: int
    shared_bytes: int
    encode_kb_per_s: float
    decode_kb_per_s: float

    @property
    def total_bytes(self) -> int:
        """Records and what is shared."""
        return self.record_bytes + self.shared_bytes


@dataclass(frozen=True)
class RecordsResult:
    """seen: lines for training; unseen: lines that were coded, in `unseen_bytes`."""

    file: str
    seen: int
    unseen: int
    seen_bytes: int
    unseen_bytes: int
    rows: tuple[RecordsRow, ...]
    training: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = [{**asdict(row), "total_bytes": row.total_bytes} for row in self.rows]
        return {**asdict(self), "rows": rows}


def bench_records(
    path: Path,
    options: CompressOptions,
    *,
    model: str | Path | None = None,
    on_progress: OnProgress,
    should_stop: Callable[[], bool] = lambda: False,
) -> RecordsResult:
    """Train on nine lines in ten of a file and code the others; see the module.

    model: one that is there already, in place of training. Raises UsageError for a file with too
    few lines of 1 to 512 bytes.
    """
    seen, unseen = split_lines(path)
    rows, training = [], dict[str, Any]()
    for done, (name, coder, shared) in enumerate(_others(seen)):
        on_progress("baselines", done, len(DICTIONARY_BYTES) + 6, name)
        rows.append(_measured(name, coder, shared, unseen))
    with tempfile.TemporaryDirectory(prefix="mdlzip-") as folder:
        target = Path(folder) / "records.mdlm"
        if model is None:
            report = _train(target, seen, options, on_progress, should_stop)
            training = {
                "preset": report.preset,
                "trained_bits_per_byte": report.trained_bits_per_byte,
                "held_out_bits_per_byte": report.held_out_bits_per_byte,
                "text_bytes": report.text_bytes,
                **report.figures,
            }
            model = target
        rows.append(_ours(model, unseen, options.threads))
    return RecordsResult(
        str(path),
        len(seen),
        len(unseen),
        sum(map(len, seen)),
        sum(map(len, unseen)),
        tuple(rows),
        training,
    )


def split_lines(path: Path) -> tuple[list[bytes], list[bytes]]:
    """(Lines for training, lines to measure on), without their newlines, none of them empty."""
    with plain_errors(f"{path}: cannot read"), open_stream(path) as file:
        lines = [line.rstrip(b"\n") for line in file]
    fit = [line for line in lines if 0 < len(line) <= MOST_BYTES]
    unseen = fit[_UNSEEN_EVERY - 1 :: _UNSEEN_EVERY][:_MOST_UNSEEN]
    seen = [line for i, line in enumerate(fit) if i % _UNSEEN_EVERY != _UNSEEN_EVERY - 1]
    if len(unseen) < _LEAST:
        raise UsageError(
            f"{path}: has {len(fit):,} lines of 1 to {MOST_BYTES} bytes;"
            f" {_LEAST * _UNSEEN_EVERY} are the least"
        )
    return seen, unseen


def _train(
    target: Path,
    seen: Sequence[bytes],
    options: CompressOptions,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
) -> ModelReport:
    from mdlzip.codec import train_model

    source = target.with_name("seen")
    source.write_bytes(b"\n".join(seen) + b"\n")
    return train_model(
        [source],
        target,
        replace(options, fallback=False),
        lines=True,
        text_bytes=1 << 10,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def _ours(model: str | Path, unseen: list[bytes], threads: int | None) -> RecordsRow:
    from mdlzip.codec import Codec
    from mdlzip.codec.models import named_model

    codec = Codec(model, threads=threads)
    codec.decode_many(codec.encode_many(unseen[:_LEAST]))  # kernels are loaded
    began = time.perf_counter()
    coded = codec.encode_many(unseen)
    middle = time.perf_counter()
    check("mdlzip", codec.decode_many(coded) == unseen)
    end = time.perf_counter()
    shared = named_model(str(model)).stat().st_size
    return _row("mdlzip", coded, shared, unseen, middle - began, end - middle)


def _measured(name: str, coder: Coder, shared: int, unseen: list[bytes]) -> RecordsRow:
    encode, decode = coder
    began = time.perf_counter()
    coded = [encode(record) for record in unseen]
    middle = time.perf_counter()
    check(name, [decode(one) for one in coded] == unseen)
    return _row(name, coded, shared, unseen, middle - began, time.perf_counter() - middle)


def _row(
    name: str,
    coded: list[bytes],
    shared: int,
    unseen: list[bytes],
    encode_s: float,
    decode_s: float,
) -> RecordsRow:
    kb = sum(map(len, unseen)) / 1000
    return RecordsRow(name, sum(map(len, coded)), shared, kb / encode_s, kb / decode_s)


def _others(seen: list[bytes]) -> Iterator[tuple[str, Coder, int]]:
    """Name, coder and shared bytes of each baseline; none is told the length of a record."""
    import brotli
    import pyppmd
    import zstandard

    def plain(coders: tuple[Any, Any]) -> Coder:
        encoder, decoder = coders
        return encoder.compress, lambda c: decoder.decompress(c, max_output_size=MOST_BYTES)

    yield "zstd-19", plain(bare_coders(MOST_BYTES)), 0
    newest = b"\n".join(seen)
    for size in DICTIONARY_BYTES:
        label = f"zstd-19 dict {size >> 10}K"
        try:
            trained = zstandard.train_dictionary(size, list(seen))
        except zstandard.ZstdError:  # too few samples
            continue
        yield label, plain(bare_coders(MOST_BYTES, trained)), _shared(trained.as_bytes())
        raw = zstandard.ZstdCompressionDict(
            newest[-size:], dict_type=zstandard.DICT_TYPE_RAWCONTENT
        )
        yield f"{label} of lines", plain(bare_coders(MOST_BYTES, raw)), _shared(newest[-size:])
    yield "brotli-11", (brotli.compress, brotli.decompress), 0
    window = newest[-32768:]
    yield "zlib-9 dict 32K", _zlib(window), _shared(window)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 4096}]
    yield (
        "lzma2",
        (
            lambda record: lzma.compress(record, lzma.FORMAT_RAW, filters=filters),
            lambda coded: lzma.decompress(coded, lzma.FORMAT_RAW, filters=filters),
        ),
        0,
    )
    yield (
        "ppmd",
        (
            lambda r: bytes([len(r) & 255, len(r) >> 8]) + _ppmd(pyppmd, r),
            lambda c: pyppmd.Ppmd7Decoder(_PPMD_ORDER, _PPMD_MEMORY).decode(
                c[2:], c[0] | c[1] << 8
            ),
        ),
        0,
    )


def _ppmd(pyppmd: Any, record: bytes) -> bytes:
    encoder = pyppmd.Ppmd7Encoder(_PPMD_ORDER, _PPMD_MEMORY)
    return bytes(encoder.encode(record) + encoder.flush())


def _zlib(window: bytes) -> Coder:
    def encode(record: bytes) -> bytes:
        coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, window)
        return coder.compress(record) + coder.flush()

    def decode(coded: bytes) -> bytes:
        return zlib.decompressobj(-15, window).decompress(coded)

    return encode, decode


def _shared(dictionary: bytes) -> int:
    """What a dictionary adds to the records, if it is sent as small as it can be."""
    return min(len(dictionary), len(lzma.compress(dictionary, preset=9 | lzma.PRESET_EXTREME)))
