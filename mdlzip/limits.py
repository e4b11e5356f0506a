"""Every numeric bound of the format in one place; `docs/format.md` repeats them."""

from __future__ import annotations

MAX_ORIGINAL_BYTES = 1 << 48
MIN_ALPHABET = 2  # byte values of a model: the range coder knows no distribution of one symbol
MAX_MERGES = 2048  # strings that are one symbol each
MAX_SYMBOL_BYTES = 255
MIN_CHUNK_SIZE = 16
MAX_CHUNK_SIZE = 16384
MAX_GROUP_CHUNKS = 1 << 16
MAX_NAME_BYTES = 255
MAX_CARD_BYTES = 1 << 16
MAX_MODEL_TEXT_BYTES = 1 << 18  # the original of an archive that serves as a model

MAX_D_MODEL = 4096
MAX_LAYERS = 64
MAX_HEADS = 256
MAX_D_FF = 4 * MAX_D_MODEL
MAX_CONV_WIDTH = 8
MIN_MATCH, MAX_MATCH = 2, 8  # bytes that must agree before a match is believed

MAX_MATRIX_CODE = (
    63  # int8 kernels without VNNI add two u8 x s8 products in 16 bits: 255*2*63 < 2**15
)
MAX_VECTOR_CODE = 127
MAX_STEP_MANTISSA = 0xFFFF
MAX_STEP_EXPONENT = 40
MIN_ACTIVATION_EXPONENT = -12
MAX_ACTIVATION_EXPONENT = 12

DEFAULT_MEMORY_BYTES = 2 << 30

READ_BLOCK_BYTES = (
    1 << 20
)  # nothing is allocated by a declared length; input is read in such blocks
CHECK_BLOCK_BYTES = 1 << 16  # of the original have one CRC-32 in stored, zstd and xz archives
MAX_CONFIG_BYTES = 256  # of the configuration section, whatever the family
MAX_OPTIONAL_SECTION_BYTES = 1 << 24
MAX_EXPANSION = 1 << 15  # no zstd or LZMA2 stream yields more bytes than this per byte of its own
EXPANSION_SLACK = 1 << 17  # one zstd block
MAX_ZSTD_WINDOW_BYTES = 1 << 27
MAX_LZMA_DICTIONARY_BYTES = 1 << 26
MAX_ROW_BYTES, MAX_ELEMENT_BYTES = 0xFFFF, 8  # of a grid
MIN_TABLE_BITS, MAX_TABLE_BITS = 8, 24  # log2 of the experts' buckets, records and heads
MAX_KNOWN_PLACES = 1 << 31  # of the text that the experts know: heads are 32-bit numbers
MAX_CODED_BYTES_PER_BYTE = 4  # a symbol of the least count costs at most 24 bits, in words of 32
CODED_SLACK_BYTES = 64
WEIGHT_BYTES_PER_CELL = 8  # above any way of writing a weight down; a ceiling, not an estimate
WEIGHT_SLACK_BYTES = 1 << 16
