"""What stands before the codes in a weights section, and what can be told from it alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlzip import limits
from mdlzip.archive.cursor import MAX_VARINT_BYTES, Cursor
from mdlzip.archive.source import SectionSource
from mdlzip.errors import CorruptArchive, ExportRefused
from mdlzip.networks.registry import NetworkConfig, n_cells, site_specs, tensor_specs
from mdlzip.networks.spec import TensorSpec
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.vocabulary import N_BYTES, Vocabulary, merges_bytes, pack_merges, unpack_merges

MODES = ("coded", "coo")  # place = mode byte
SECTION = "weights section"
LINES = ("positions", "values", "scales")  # of the ledger

Steps = dict[str, tuple[int, int]]  # tensor name -> mantissa, exponent


def pack_vocabulary(vocabulary: Vocabulary) -> bytes:
    """Bitmap of the alphabet, then the merges."""
    return alphabet_bitmap(vocabulary.alphabet) + pack_merges(vocabulary)


def alphabet_bitmap(alphabet: np.ndarray) -> bytes:
    """32 bytes: bit b & 7 (0 the least) of byte b >> 3 is set for every value b of `alphabet`."""
    present = np.zeros(N_BYTES, bool)
    present[alphabet] = True
    return np.packbits(present, bitorder="little").tobytes()


def bitmap_alphabet(bitmap: bytes | memoryview) -> np.ndarray:
    """The ascending byte values, uint8, of 32 bytes from `alphabet_bitmap`."""
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return np.flatnonzero(bits).astype(np.uint8)


def pack_steps(network: IntegerNetwork) -> bytes:
    """Steps of all tensors and exponents of all sites; ExportRefused if one has no place."""
    out = bytearray()
    for tensor in network.tensors.values():
        out += tensor.mantissa.to_bytes(2, "little") + tensor.exponent.to_bytes(1, signed=True)
    sites = site_specs(network.config)
    for site, exponent in network.exponents.items():
        if not sites[site].allows(exponent):
            raise ExportRefused(f"{site}: activation exponent {exponent} is out of range")
        out += exponent.to_bytes(1, signed=True)
    return bytes(out)


def read_mode(cursor: Cursor) -> str:
    """Name of the mode: coded or coo."""
    mode = cursor.u8("mode")
    if mode >= len(MODES):
        raise cursor.fail("mode", f"is {mode}, not 0..{len(MODES) - 1}")
    return MODES[mode]


def read_alphabet(cursor: Cursor) -> np.ndarray:
    """Ascending byte values, uint8; CorruptArchive if they are too few."""
    alphabet = bitmap_alphabet(cursor.take(N_BYTES // 8, "alphabet"))
    if alphabet.size < limits.MIN_ALPHABET:
        least = limits.MIN_ALPHABET
        raise cursor.fail("alphabet", f"has {alphabet.size} byte values, {least} are the least")
    return alphabet


def read_vocabulary(cursor: Cursor, config: NetworkConfig) -> Vocabulary:
    """Alphabet and merges; CorruptArchive for what `pack_vocabulary` does not make."""
    alphabet = read_alphabet(cursor)
    size = merges_bytes(alphabet.size, config.n_merges)
    try:
        return unpack_merges(bytes(cursor.take(size, "merges")), alphabet, config.n_merges)
    except ExportRefused as error:
        raise cursor.fail("merges", f"are damaged: {error}") from None


def _signed(cursor: Cursor, what: str, low: int, high: int) -> int:
    value = int.from_bytes(cursor.take(1, what), signed=True)
    if not low <= value <= high:
        raise cursor.fail(what, f"is {value}, outside {low}..{high}")
    return value


def read_steps(cursor: Cursor, config: NetworkConfig) -> tuple[Steps, dict[str, int]]:
    """Inverse of `pack_steps`: steps by tensor, exponents by site."""
    steps: Steps = {}
    for name in tensor_specs(config):
        mantissa = cursor.u16(f"step mantissa of {name}")
        if not mantissa:
            raise cursor.fail(f"step mantissa of {name}", "is 0")
        most = limits.MAX_STEP_EXPONENT
        steps[name] = (mantissa, _signed(cursor, f"step exponent of {name}", -most, most))
    exponents = {
        name: _signed(cursor, f"activation exponent of {name}", site.least, site.greatest)
        for name, site in site_specs(config).items()
    }
    return steps, exponents


def read_notes(cursor: Cursor, config: NetworkConfig, left: int) -> tuple[int, int]:
    """Number of non-zeros, and how many bytes of the stream pay for positions.

    left: bytes of the section from the cursor on.
    """
    start = cursor.offset
    nnz = cursor.varint("number of non-zeros", n_cells(config))
    positions = cursor.varint("bytes for positions")
    follow = left - (cursor.offset - start)
    if positions > follow:
        raise cursor.fail("bytes for positions", f"is {positions}, but {follow} bytes follow")
    return nnz, positions


def read_nnz(cursor: Cursor, spec: TensorSpec) -> int:
    """Non-zeros of one plain tensor; CorruptArchive if it has fewer cells."""
    what = f"non-zeros of {spec.name}"
    nnz = cursor.u32(what)
    if nnz > spec.n_cells:
        raise cursor.fail(what, f"is {nnz}, more than its {spec.n_cells} cells")
    return nnz


@dataclass(frozen=True)
class WeightsSummary:
    """What a weights section says of itself: non-zero cells, ledger of `PackedWeights`, symbols."""

    nnz: int
    ledger: dict[str, int]
    vocabulary: Vocabulary


def weights_summary(section: SectionSource, config: NetworkConfig) -> WeightsSummary:
    """Read from the section's beginning, a few kilobytes at a time; no weight is decoded.

    In a coded section count and ledger are the encoder's notes; `unpack_weights` checks the count.
    Needs no numba. What is left of the section may be skipped.
    """
    total = section.left
    head, _ = begin_weights(section, config)
    specs = tensor_specs(config)
    head += section.exactly(3 * len(specs) + len(site_specs(config)), "its steps")
    cursor = Cursor(head, SECTION)
    mode, vocabulary = read_mode(cursor), read_vocabulary(cursor, config)
    read_steps(cursor, config)
    if mode == "coded":
        left = section.left
        notes = Cursor(section.exactly(min(left, 2 * MAX_VARINT_BYTES), "its counts"), SECTION)
        nnz, positions = read_notes(notes, config, left)
        stream = left - notes.offset
        lines = (positions, stream - positions, total - stream)
        return WeightsSummary(nnz, dict(zip(LINES, lines, strict=True)), vocabulary)
    nnz = 0
    for name, spec in specs.items():
        n = read_nnz(Cursor(section.exactly(4, "its counts"), SECTION), spec)
        section.skip(5 * n, f"entries of {name}")
        nnz += n
    if section.left:
        raise CorruptArchive(f"{SECTION}: {section.left} unread bytes")
    lines = (4 * len(specs) + 4 * nnz, nnz, len(head))
    return WeightsSummary(nnz, dict(zip(LINES, lines, strict=True)), vocabulary)


def begin_weights(section: SectionSource, config: NetworkConfig) -> tuple[bytes, Vocabulary]:
    """The first bytes of the section, up to its steps, and the vocabulary that stands there."""
    head = section.exactly(1 + N_BYTES // 8, "its alphabet")
    cursor = Cursor(head, SECTION)
    read_mode(cursor)
    alphabet = read_alphabet(cursor)
    head += section.exactly(merges_bytes(alphabet.size, config.n_merges), "its merges")
    cursor = Cursor(head, SECTION)
    read_mode(cursor)
    return head, read_vocabulary(cursor, config)
