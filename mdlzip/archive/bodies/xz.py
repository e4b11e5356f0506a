"""One raw LZMA2 stream behind the exponent of its dictionary."""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Iterator

from mdlzip.archive.bodies.compressed import Compressed, Sink
from mdlzip.archive.bodies.general import memory_bytes
from mdlzip.archive.source import SectionSource
from mdlzip.errors import CorruptArchive
from mdlzip.limits import MAX_LZMA_DICTIONARY_BYTES, READ_BLOCK_BYTES
from mdlzip.resources import check_memory

HEAD_BYTES = 1  # the exponent


class Xz(Compressed):
    """LZMA2 as xz -9e makes it, without the container of .xz."""

    number = 2
    label = "xz"
    levels = (9,)

    def window_bytes(self, size: int) -> int:
        """The whole dictionary."""
        return 1 << _exponent(size)

    def compress(self, blocks: Iterable[bytes], size: int, sink: Sink, level: int) -> None:
        """The exponent of the dictionary, then the stream; level: preset of liblzma."""
        exponent = _exponent(size)
        preset = level | lzma.PRESET_EXTREME
        filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": 1 << exponent}]
        compressor = lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=filters)
        sink(bytes([exponent]))
        for block in blocks:
            sink(compressor.compress(block))
        sink(compressor.flush())

    def compression_memory_bytes(self, size: int, level: int) -> int:
        """The dictionary and the binary tree of its search, as xz -vv tells it."""
        return self.window_bytes(size) * 23 // 2

    def declared_window(self, payload: SectionSource, size: int) -> int:
        """Bytes of the dictionary that the payload's first byte asks for."""
        (exponent,) = payload.exactly(HEAD_BYTES, "the dictionary's exponent")
        if not 12 <= exponent <= _exponent(size):
            raise CorruptArchive(
                f"payload section: dictionary of 2^{exponent} bytes is not allowed"
            )
        return 1 << exponent

    def decompress(self, payload: SectionSource, size: int, memory: int | None) -> Iterator[bytes]:
        """The stream's bytes, at most one more than `size`."""
        window = self.declared_window(payload, size)
        check_memory(memory_bytes(window, size), memory)
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": window}]
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
        left = size + 1
        while left and not decoder.eof:
            data = payload.read(READ_BLOCK_BYTES) if decoder.needs_input else b""
            if not data and decoder.needs_input:
                raise CorruptArchive("payload section: the LZMA2 stream has no end")
            try:
                block = decoder.decompress(data, max_length=min(left, READ_BLOCK_BYTES))
            except (lzma.LZMAError, EOFError) as error:
                reason = error or "damaged LZMA2 stream"
                raise CorruptArchive(f"payload section: {reason}") from None
            left -= len(block)
            if block:
                yield block
        if decoder.unused_data:
            raise CorruptArchive("payload section: bytes follow the LZMA2 stream")


def _exponent(size: int) -> int:
    """Exponent of the dictionary for `size` bytes: the least power of two that holds them."""
    return max(12, min(size - 1, MAX_LZMA_DICTIONARY_BYTES - 1).bit_length())
