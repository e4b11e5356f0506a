"""The weights section: an integer network <-> bytes; normative text in `docs/format.md`."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from mdlzip import limits
from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.coding.weight_plan import code_limit
from mdlzip.config import ModelConfig
from mdlzip.errors import CorruptArchive, ExportRefused, UsageError
from mdlzip.quantised.network import (
    IntegerNetwork,
    QuantTensor,
    activation_sites,
    tensor_shapes,
)
from mdlzip.symbols.vocabulary import N_BYTES, Vocabulary, merges_bytes, pack_merges, unpack_merges

MODES = ("coded", "coo")  # place = mode byte
SECTION = "weights section"
LINES = ("positions", "values", "scales")  # of the ledger

Steps = dict[str, tuple[int, int]]  # tensor name -> mantissa, exponent


@dataclass(frozen=True)
class PackedWeights:
    """A weights section's payload, and what its bytes are for.

    ledger: "positions" (which cells are not zero), "values" (signs and magnitudes), "scales" (mode,
    vocabulary, steps, activation exponents); the lines add up to len(data).
    """

    data: bytes
    ledger: dict[str, int]


def pack_weights(network: IntegerNetwork, mode: str = "coded") -> PackedWeights:
    """The weights section for `network`, entropy-coded or as plain COO ("coo").

    Raises UsageError for another mode and ExportRefused if a number of the network has no place in
    the format.
    """
    if mode not in MODES:
        raise UsageError(f"weights must be one of {', '.join(MODES)}, not {mode!r}")
    head = bytes([MODES.index(mode)]) + pack_vocabulary(network.vocabulary)
    head += _pack_steps(network)
    if mode == "coo":
        return _pack_coo(network, head)
    stream, position_bits, value_bits = _encode(network)
    share = position_bits / (position_bits + value_bits)
    positions = min(round(len(stream) * share), len(stream))
    head += put_varint(network.nnz) + put_varint(positions)
    lines = (positions, len(stream) - positions, len(head))
    return PackedWeights(head + stream, dict(zip(LINES, lines, strict=True)))


def unpack_weights(buffer: bytes | bytearray | memoryview, config: ModelConfig) -> IntegerNetwork:
    """The network in a weights section for a model of shape `config`.

    Raises CorruptArchive for anything but the output of `pack_weights`; allocates one byte per cell
    of the configuration, and some 6 MB for the decoder's statistics. A damaged coded stream may
    decode to other weights: the section's CRC is there to notice.
    """
    cursor = Cursor(buffer, SECTION)
    mode, vocabulary = _read_mode(cursor), _read_vocabulary(cursor, config)
    steps, exponents = _read_steps(cursor, config)
    read = _read_coo if mode == "coo" else _read_coded
    codes = read(cursor, config)
    cursor.finish()
    tensors = {name: QuantTensor(codes[name], *steps[name]) for name in codes}
    return IntegerNetwork(config, tensors, exponents, vocabulary)


@dataclass(frozen=True)
class WeightsSummary:
    """What a weights section says of itself: non-zero cells, and the ledger of `PackedWeights`."""

    nnz: int
    ledger: dict[str, int]


def weights_summary(buffer: bytes | bytearray | memoryview, config: ModelConfig) -> WeightsSummary:
    """Count and ledger of a weights section, read without decoding a weight (or importing numba).

    In a coded section they are the encoder's notes; `unpack_weights` checks the count.
    """
    cursor = Cursor(buffer, SECTION)
    mode, _ = _read_mode(cursor), _read_vocabulary(cursor, config)
    _read_steps(cursor, config)
    if mode == "coded":
        nnz, positions = _read_notes(cursor, config)
        lines = (positions, cursor.left - positions, cursor.offset)
        return WeightsSummary(nnz, dict(zip(LINES, lines, strict=True)))
    scales, total = cursor.offset, 0
    shapes = tensor_shapes(config)
    for name, shape in shapes.items():
        nnz = _read_nnz(cursor, name, shape)
        cursor.take(5 * nnz, f"entries of {name}")
        total += nnz
    cursor.finish()
    lines = (4 * len(shapes) + 4 * total, total, scales)
    return WeightsSummary(total, dict(zip(LINES, lines, strict=True)))


def code_cost_bits(network: IntegerNetwork) -> dict[str, float]:
    """Bits that the coded mode spends on each tensor's codes, by name; steps are not in it."""
    from mdlzip.coding.weight_model import WeightEncoder

    encoder = WeightEncoder()
    costs: dict[str, float] = {}
    before = 0.0
    for name, tensor in network.tensors.items():
        encoder.encode(name, tensor.codes)
        total = sum(encoder.spent_bits)
        costs[name] = total - before
        before = total
    return costs


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


# --- vocabulary, steps and activation exponents ---------------------------------------------------


def _pack_steps(network: IntegerNetwork) -> bytes:
    out = bytearray()
    for name, tensor in network.tensors.items():
        limit = code_limit(tensor.codes.shape)
        if int(np.abs(tensor.codes.astype(np.int16)).max(initial=0)) > limit:
            raise ExportRefused(f"{name}: a code exceeds {limit}")
        out += tensor.mantissa.to_bytes(2, "little") + tensor.exponent.to_bytes(1, signed=True)
    for site, exponent in network.exponents.items():
        if not limits.MIN_ACTIVATION_EXPONENT <= exponent <= limits.MAX_ACTIVATION_EXPONENT:
            raise ExportRefused(f"{site}: activation exponent {exponent} is out of range")
        out += exponent.to_bytes(1, signed=True)
    return bytes(out)


def _read_mode(cursor: Cursor) -> str:
    mode = cursor.u8("mode")
    if mode >= len(MODES):
        raise cursor.fail("mode", f"is {mode}, not 0..{len(MODES) - 1}")
    return MODES[mode]


def _read_vocabulary(cursor: Cursor, config: ModelConfig) -> Vocabulary:
    alphabet = bitmap_alphabet(cursor.take(N_BYTES // 8, "alphabet"))
    if alphabet.size < limits.MIN_ALPHABET:
        least = limits.MIN_ALPHABET
        raise cursor.fail("alphabet", f"has {alphabet.size} byte values, {least} are the least")
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


def _read_steps(cursor: Cursor, config: ModelConfig) -> tuple[Steps, dict[str, int]]:
    steps: Steps = {}
    for name in tensor_shapes(config):
        mantissa = cursor.u16(f"step mantissa of {name}")
        if not mantissa:
            raise cursor.fail(f"step mantissa of {name}", "is 0")
        most = limits.MAX_STEP_EXPONENT
        steps[name] = (mantissa, _signed(cursor, f"step exponent of {name}", -most, most))
    bounds = limits.MIN_ACTIVATION_EXPONENT, limits.MAX_ACTIVATION_EXPONENT
    exponents = {
        site: _signed(cursor, f"activation exponent of {site}", *bounds)
        for site in activation_sites(config)
    }
    return steps, exponents


# --- coded mode ---------------------------------------------------------------------------------


def _encode(network: IntegerNetwork) -> tuple[bytes, float, float]:
    from mdlzip.coding.weight_model import WeightEncoder  # numba costs a second to import

    encoder = WeightEncoder()
    for name, tensor in network.tensors.items():
        encoder.encode(name, tensor.codes)
    return encoder.finish(), *encoder.spent_bits


def _read_notes(cursor: Cursor, config: ModelConfig) -> tuple[int, int]:
    """Number of non-zeros, and how many bytes of the stream pay for positions."""
    cells = sum(prod(shape) for shape in tensor_shapes(config).values())
    nnz = cursor.varint("number of non-zeros", cells)
    positions = cursor.varint("bytes for positions")
    if positions > cursor.left:
        raise cursor.fail("bytes for positions", f"is {positions}, but {cursor.left} bytes follow")
    return nnz, positions


def _read_coded(cursor: Cursor, config: ModelConfig) -> dict[str, np.ndarray]:
    from mdlzip.coding.weight_model import WeightDecoder

    declared, _ = _read_notes(cursor, config)
    stream = cursor.take(cursor.left, "coded weights")
    if stream and not stream[-1]:
        raise cursor.fail("coded weights", "end in a zero byte, which is never written")
    decoder = WeightDecoder(stream)
    codes = {name: decoder.decode(name, shape) for name, shape in tensor_shapes(config).items()}
    if decoder.unread_bytes:
        raise CorruptArchive(f"{SECTION}: {decoder.unread_bytes} bytes after the last weight")
    found = sum(int(np.count_nonzero(tensor)) for tensor in codes.values())
    if found != declared:
        raise CorruptArchive(f"{SECTION}: holds {found} non-zeros, but declares {declared}")
    return codes


# --- plain COO ----------------------------------------------------------------------------------


def _pack_coo(network: IntegerNetwork, head: bytes) -> PackedWeights:
    parts = [head]
    for tensor in network.tensors.values():
        flat = tensor.codes.ravel()
        places = np.flatnonzero(flat)
        parts += [places.size.to_bytes(4, "little"), places.astype("<i4").tobytes()]
        parts.append(flat[places].tobytes())
    positions = sum(4 + 4 * t.nnz for t in network.tensors.values())
    ledger = {"positions": positions, "values": network.nnz, "scales": len(head)}
    return PackedWeights(b"".join(parts), ledger)


def _read_nnz(cursor: Cursor, name: str, shape: tuple[int, ...]) -> int:
    nnz, cells = cursor.u32(f"non-zeros of {name}"), prod(shape)
    if nnz > cells:
        raise cursor.fail(f"non-zeros of {name}", f"is {nnz}, more than its {cells} cells")
    return nnz


def _read_coo(cursor: Cursor, config: ModelConfig) -> dict[str, np.ndarray]:
    codes: dict[str, np.ndarray] = {}
    for name, shape in tensor_shapes(config).items():
        nnz = _read_nnz(cursor, name, shape)
        places = np.frombuffer(cursor.take(4 * nnz, f"indices of {name}"), dtype="<i4")
        values = np.frombuffer(cursor.take(nnz, f"values of {name}"), dtype=np.int8)
        tensor = np.zeros(shape, dtype=np.int8)
        if nnz:
            if places[0] < 0 or places[-1] >= tensor.size or (places[1:] <= places[:-1]).any():
                raise cursor.fail(f"indices of {name}", "do not rise strictly within the tensor")
            if (values == 0).any() or np.abs(values.astype(np.int16)).max() > code_limit(shape):
                raise cursor.fail(f"values of {name}", f"are not 1..{code_limit(shape)} in size")
            tensor.ravel()[places] = values
        codes[name] = tensor
    return codes
