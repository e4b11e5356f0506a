"""One zstd frame without its magic number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mdlzip.archive.bodies.compressed import Compressed, Sink
from mdlzip.archive.bodies.general import memory_bytes
from mdlzip.archive.source import SectionSource
from mdlzip.errors import CorruptArchive
from mdlzip.limits import MAX_ZSTD_WINDOW_BYTES
from mdlzip.resources import check_memory

if TYPE_CHECKING:
    from zstandard import ZstdCompressionParameters

HEAD_BYTES = 2  # descriptor and window
BLOCK_HEAD_BYTES = 3
BLOCK_BYTES = 1 << 17  # the most that one block holds, coded or plain
_RLE, _RESERVED = 1, 3  # types of a block


class Zstd(Compressed):
    """zstd (RFC 8878) at its highest level."""

    number = 1
    label = "zstd"
    levels = (22, 19, 15, 11, 6)

    def window_bytes(self, size: int) -> int:
        """The least power of two that holds the original, or the greatest that is allowed."""
        return min(MAX_ZSTD_WINDOW_BYTES, 1 << max(10, (size - 1).bit_length()))

    def compress(self, blocks: Iterable[bytes], size: int, sink: Sink, level: int) -> None:
        """One frame; its header tells neither size nor checksum, the archive has both."""
        import zstandard

        parameters = _parameters(size, level)
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        for block in blocks:
            sink(compressor.compress(block))
        sink(compressor.flush())

    def compression_memory_bytes(self, size: int, level: int) -> int:
        """The tables of its search, and the window."""
        tables: int = _parameters(size, level).estimated_compression_context_size()
        return tables + self.window_bytes(size)

    def declared_window(self, payload: SectionSource, size: int) -> int:
        """The window of the frame header."""
        return self._window(payload.exactly(HEAD_BYTES, "the zstd frame header"), size)

    def _window(self, head: bytes, size: int) -> int:
        """head: the two bytes of the frame header, descriptor and window."""
        if head[0]:
            raise CorruptArchive(
                f"payload section: zstd frame descriptor {head[0]:#04x}; content size, checksum,"
                " dictionary and reserved bits must be 0"
            )
        base = 1 << (10 + (head[1] >> 3))
        window = base + (base >> 3) * (head[1] & 7)
        if window > self.window_bytes(size):
            raise CorruptArchive(f"payload section: zstd window of {window} bytes is not allowed")
        return window

    def decompress(self, payload: SectionSource, size: int, memory: int | None) -> Iterator[bytes]:
        """Block by block of the frame.

        The frame is walked here, since the library is lenient: a second frame, a skippable one or
        any byte behind the last block is an error.
        """
        import zstandard

        head = payload.exactly(HEAD_BYTES, "the zstd frame header")
        window = self._window(head, size)
        check_memory(memory_bytes(window, size), memory)
        decoder = zstandard.ZstdDecompressor(
            max_window_size=MAX_ZSTD_WINDOW_BYTES, format=zstandard.FORMAT_ZSTD1_MAGICLESS
        ).decompressobj()
        last = False
        while not last:
            block = payload.exactly(BLOCK_HEAD_BYTES, "a zstd block header")
            fields = int.from_bytes(block, "little")
            last, kind, length = bool(fields & 1), fields >> 1 & 3, fields >> 3
            if kind == _RESERVED or length > min(window, BLOCK_BYTES):
                raise CorruptArchive(f"payload section: zstd block of type {kind}, {length} bytes")
            block += payload.exactly(1 if kind == _RLE else length, "a zstd block")
            try:
                plain = decoder.decompress(head + block)
            except zstandard.ZstdError as error:
                raise CorruptArchive(f"payload section: {error}") from None
            head = b""
            yield plain


def _parameters(size: int, level: int) -> ZstdCompressionParameters:
    import zstandard

    return zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=size,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
