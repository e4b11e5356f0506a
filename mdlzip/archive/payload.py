"""General-purpose methods: zstd and LZMA2 streams without container bytes we would pay twice."""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

from mdlzip.archive.header import Method
from mdlzip.archive.source import SectionSource
from mdlzip.errors import CorruptArchive, LimitExceeded
from mdlzip.limits import (
    MAX_LZMA_DICTIONARY_BYTES,
    MAX_ZSTD_WINDOW_BYTES,
    READ_BLOCK_BYTES,
)

HARDEST, QUICK = 22, 6  # levels of zstd; LZMA has one only
DECODER_OVERHEAD_BYTES = 1 << 22  # blocks, tables and the like, beside window or dictionary
ZSTD_HEAD_BYTES = 14  # the longest frame header without magic

Sink = Callable[[bytes], object]


def encode(
    method: Method, blocks: Iterable[bytes], size: int, sink: Sink, level: int = HARDEST
) -> None:
    """Compress `size` bytes given in blocks into `sink`; level: of zstd, LZMA is at its hardest."""
    if method is Method.ZSTD:
        _encode_zstd(blocks, size, sink, level)
    else:
        _encode_lzma(blocks, size, sink)


def decode(
    method: Method, section: SectionSource, size: int, memory: int | None
) -> Iterator[bytes]:
    """The original's bytes in blocks of at most 1 MiB, never more than `size` + 1 of them in all.

    memory: limit in bytes, None for none. Raises LimitExceeded, or CorruptArchive if the stream
    is damaged, longer or shorter than `size`.
    """
    blocks = (_decode_zstd if method is Method.ZSTD else _decode_lzma)(section, size, memory)
    total = 0
    for block in blocks:
        total += len(block)
        if total > size:
            raise CorruptArchive(f"payload section: holds more than the {size} bytes declared")
        yield block
    if total != size:
        raise CorruptArchive(f"payload section: holds {total} bytes, {size} were declared")
    if section.left:
        raise CorruptArchive(f"payload section: {section.left} bytes follow the compressed stream")


def _encode_zstd(blocks: Iterable[bytes], size: int, sink: Sink, level: int) -> None:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=size,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    for block in blocks:
        sink(compressor.compress(block))
    sink(compressor.flush())


def _decode_zstd(section: SectionSource, size: int, memory: int | None) -> Iterator[bytes]:
    import zstandard

    kind = zstandard.FORMAT_ZSTD1_MAGICLESS
    head = section.read(ZSTD_HEAD_BYTES)
    try:
        window = zstandard.get_frame_parameters(head, format=kind).window_size
    except zstandard.ZstdError as error:
        raise CorruptArchive(f"payload section: {error}") from None
    if window > MAX_ZSTD_WINDOW_BYTES:
        raise CorruptArchive(f"payload section: zstd window of {window} bytes is not allowed")
    check_memory(window + DECODER_OVERHEAD_BYTES, memory)
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES, format=kind)
    # Frame after frame, so that bytes behind the only frame are an error and not overlooked.
    source = cast("BinaryIO", _Rejoined(head, section))
    reader = decoder.stream_reader(source, read_across_frames=True)
    left = size + 1  # the reader is never asked for more than one byte too many
    while left:
        try:
            block = reader.read(min(left, READ_BLOCK_BYTES))
        except zstandard.ZstdError as error:
            raise CorruptArchive(f"payload section: {error}") from None
        if not block:
            return
        left -= len(block)
        yield block


class _Rejoined:
    """A section whose first bytes were read already."""

    def __init__(self, head: bytes, section: SectionSource) -> None:
        self._head = head
        self._section = section

    def read(self, size: int = -1) -> bytes:
        """As `SectionSource.read`."""
        head, self._head = self._head, b""
        return head or self._section.read(size)


def lzma_dictionary(size: int) -> int:
    """Exponent of the dictionary for `size` bytes: the least power of two that holds them."""
    return max(12, min(size - 1, MAX_LZMA_DICTIONARY_BYTES - 1).bit_length())


def window_bytes(method: Method, size: int) -> int:
    """Bytes of history that decoding `size` bytes takes at most, as our encoders choose it."""
    if method is Method.XZ:
        return 1 << lzma_dictionary(size)
    return min(MAX_ZSTD_WINDOW_BYTES, 1 << max(10, (size - 1).bit_length()))


def _encode_lzma(blocks: Iterable[bytes], size: int, sink: Sink) -> None:
    exponent = lzma_dictionary(size)
    preset = 9 | lzma.PRESET_EXTREME
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": 1 << exponent}]
    compressor = lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=filters)
    sink(bytes([exponent]))
    for block in blocks:
        sink(compressor.compress(block))
    sink(compressor.flush())


def _decode_lzma(section: SectionSource, size: int, memory: int | None) -> Iterator[bytes]:
    exponent = int.from_bytes(section.read(1) or b"\0", "little")
    if not 12 <= exponent or 1 << exponent > MAX_LZMA_DICTIONARY_BYTES:
        raise CorruptArchive(f"payload section: dictionary of 2^{exponent} bytes is not allowed")
    check_memory((1 << exponent) + DECODER_OVERHEAD_BYTES, memory)
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << exponent}]
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
    left = size + 1
    while left and not decoder.eof:
        data = section.read(READ_BLOCK_BYTES) if decoder.needs_input else b""
        if not data and decoder.needs_input:
            raise CorruptArchive("payload section: the LZMA2 stream has no end")
        try:
            block = decoder.decompress(data, max_length=min(left, READ_BLOCK_BYTES))
        except (lzma.LZMAError, EOFError) as error:
            raise CorruptArchive(f"payload section: {error or 'damaged LZMA2 stream'}") from None
        left -= len(block)
        if block:
            yield block
    if decoder.unused_data:
        raise CorruptArchive("payload section: bytes follow the LZMA2 stream")


def check_memory(need: int, memory: int | None) -> None:
    """LimitExceeded naming the need and the remedy if `need` bytes are more than allowed."""
    if memory is not None and need > memory:
        raise LimitExceeded(
            f"decoding needs about {mebibytes(need)} of memory, allowed are {mebibytes(memory)};"
            f" pass --memory {mebibytes(need)} to allow it"
        )


def mebibytes(n: int) -> str:
    """`n` bytes, rounded up, in the unit `--memory` understands."""
    return f"{-(-n // (1 << 20))}MiB"
