"""General-purpose methods: zstd and LZMA2 streams without container bytes we would pay twice."""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable, Iterator

from mdlzip.archive.blocks import table_bytes
from mdlzip.archive.header import Method
from mdlzip.archive.source import SectionSource
from mdlzip.errors import CorruptArchive
from mdlzip.limits import (
    MAX_LZMA_DICTIONARY_BYTES,
    MAX_ZSTD_WINDOW_BYTES,
    READ_BLOCK_BYTES,
)
from mdlzip.resources import GENERAL_PROGRAM_BYTES, check_memory

HARDEST, QUICK = 22, 6  # levels of zstd; LZMA has one only
DECODER_OVERHEAD_BYTES = 3 << 20  # blocks, tables and the like, beside window or dictionary
ZSTD_HEAD_BYTES = 2  # descriptor and window
ZSTD_BLOCK_HEAD_BYTES = 3
ZSTD_BLOCK_BYTES = 1 << 17  # the most that one block holds, coded or plain
_ZSTD_RLE, _ZSTD_RESERVED = 1, 3  # types of a block
LZMA_HEAD_BYTES = 1

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
    """The original, block by block of one frame.

    The frame is walked here, since the library is lenient: a second frame, a skippable one or any
    byte behind the last block is an error.
    """
    import zstandard

    head = section.exactly(ZSTD_HEAD_BYTES, "the zstd frame header")
    window = zstd_window(head, size)
    check_memory(memory_bytes(window, size), memory)
    decoder = zstandard.ZstdDecompressor(
        max_window_size=MAX_ZSTD_WINDOW_BYTES, format=zstandard.FORMAT_ZSTD1_MAGICLESS
    ).decompressobj()
    last = False
    while not last:
        block = section.exactly(ZSTD_BLOCK_HEAD_BYTES, "a zstd block header")
        fields = int.from_bytes(block, "little")
        last, kind, length = bool(fields & 1), fields >> 1 & 3, fields >> 3
        if kind == _ZSTD_RESERVED or length > min(window, ZSTD_BLOCK_BYTES):
            raise CorruptArchive(f"payload section: zstd block of type {kind}, {length} bytes")
        block += section.exactly(1 if kind == _ZSTD_RLE else length, "a zstd block")
        try:
            plain = decoder.decompress(head + block)
        except zstandard.ZstdError as error:
            raise CorruptArchive(f"payload section: {error}") from None
        head = b""
        yield plain


def declared_window(method: Method, section: SectionSource, size: int) -> int:
    """Bytes of history that the payload asks for; reads its first bytes."""
    if method is Method.XZ:
        return lzma_window(section.exactly(LZMA_HEAD_BYTES, "the dictionary's exponent"), size)
    return zstd_window(section.exactly(ZSTD_HEAD_BYTES, "the zstd frame header"), size)


def zstd_window(head: bytes, size: int) -> int:
    """Bytes of history that a zstd frame header asks for; CorruptArchive if it is not allowed.

    head: its two bytes, descriptor and window; size: bytes of the original.
    """
    if head[0]:
        raise CorruptArchive(
            f"payload section: zstd frame descriptor {head[0]:#04x}; content size, checksum,"
            " dictionary and reserved bits must be 0"
        )
    base = 1 << (10 + (head[1] >> 3))
    window = base + (base >> 3) * (head[1] & 7)
    if window > window_bytes(Method.ZSTD, size):
        raise CorruptArchive(f"payload section: zstd window of {window} bytes is not allowed")
    return window


def lzma_dictionary(size: int) -> int:
    """Exponent of the dictionary for `size` bytes: the least power of two that holds them."""
    return max(12, min(size - 1, MAX_LZMA_DICTIONARY_BYTES - 1).bit_length())


def window_bytes(method: Method, size: int) -> int:
    """Most bytes of history that a payload for `size` bytes may ask for."""
    if method is Method.XZ:
        return 1 << lzma_dictionary(size)
    return min(MAX_ZSTD_WINDOW_BYTES, 1 << max(10, (size - 1).bit_length()))


def memory_bytes(window: int, size: int) -> int:
    """Peak of decoding with that much history; the checksums of the blocks are held, too."""
    return GENERAL_PROGRAM_BYTES + window + DECODER_OVERHEAD_BYTES + table_bytes(size)


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
    window = declared_window(Method.XZ, section, size)
    check_memory(memory_bytes(window, size), memory)
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": window}]
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


def lzma_window(head: bytes, size: int) -> int:
    """Bytes of the dictionary that the payload's first byte asks for; CorruptArchive as above."""
    exponent = head[0]
    if not 12 <= exponent <= lzma_dictionary(size):
        raise CorruptArchive(f"payload section: dictionary of 2^{exponent} bytes is not allowed")
    return 1 << exponent
