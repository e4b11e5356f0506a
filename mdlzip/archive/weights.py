"""The weights section: an integer network <-> bytes; normative text in `docs/format-model.md`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.archive.weights_head import (
    LINES,
    MODES,
    SECTION,
    pack_steps,
    pack_vocabulary,
    read_mode,
    read_nnz,
    read_notes,
    read_steps,
    read_vocabulary,
)
from mdlzip.errors import CorruptArchive, UsageError
from mdlzip.networks.registry import NetworkConfig, tensor_specs
from mdlzip.quantised.network import IntegerNetwork, QuantTensor


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
    head += pack_steps(network)
    if mode == "coo":
        return _pack_coo(network, head)
    stream, position_bits, value_bits = _encode(network)
    share = position_bits / max(position_bits + value_bits, 1.0)
    positions = min(round(len(stream) * share), len(stream))
    head += put_varint(network.nnz) + put_varint(positions)
    lines = (positions, len(stream) - positions, len(head))
    return PackedWeights(head + stream, dict(zip(LINES, lines, strict=True)))


def unpack_weights(buffer: bytes | bytearray | memoryview, config: NetworkConfig) -> IntegerNetwork:
    """The network in a weights section for a model of shape `config`.

    Raises CorruptArchive for anything but the output of `pack_weights`; allocates one byte per cell
    of the configuration, another for each cell of the largest layer, and some 6 MB for the
    decoder's statistics. A damaged coded stream may decode to other weights: the section's CRC
    is there to notice.
    """
    cursor = Cursor(buffer, SECTION)
    mode, vocabulary = read_mode(cursor), read_vocabulary(cursor, config)
    steps, exponents = read_steps(cursor, config)
    read = _read_coo if mode == "coo" else _read_coded
    codes = read(cursor, config)
    cursor.finish()
    tensors = {name: QuantTensor(codes[name], *steps[name]) for name in codes}
    return IntegerNetwork(config, tensors, exponents, vocabulary)


# --- coded mode ---------------------------------------------------------------------------------


def _encode(network: IntegerNetwork) -> tuple[bytes, float, float]:
    from mdlzip.coding.weight_model import WeightEncoder  # numba costs a second to import

    encoder, specs = WeightEncoder(), tensor_specs(network.config)
    for name, tensor in network.tensors.items():
        encoder.encode(specs[name].bands, tensor.codes)
    return encoder.finish(), *encoder.spent_bits


def _read_coded(cursor: Cursor, config: NetworkConfig) -> dict[str, np.ndarray]:
    from mdlzip.coding.weight_model import WeightDecoder

    declared, _ = read_notes(cursor, config, cursor.left)
    stream = cursor.take(cursor.left, "coded weights")
    if stream and not stream[-1]:
        raise cursor.fail("coded weights", "end in a zero byte, which is never written")
    decoder = WeightDecoder(stream)
    specs = tensor_specs(config).values()
    codes = {spec.name: decoder.decode(spec.bands, spec.shape) for spec in specs}
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


def _read_coo(cursor: Cursor, config: NetworkConfig) -> dict[str, np.ndarray]:
    codes: dict[str, np.ndarray] = {}
    for name, spec in tensor_specs(config).items():
        nnz = read_nnz(cursor, spec)
        places = np.frombuffer(cursor.take(4 * nnz, f"indices of {name}"), dtype="<i4")
        values = np.frombuffer(cursor.take(nnz, f"values of {name}"), dtype=np.int8)
        tensor = np.zeros(spec.shape, dtype=np.int8)
        if nnz:
            if places[0] < 0 or places[-1] >= tensor.size or (places[1:] <= places[:-1]).any():
                raise cursor.fail(f"indices of {name}", "do not rise strictly within the tensor")
            if (values == 0).any() or np.abs(values.astype(np.int16)).max() > spec.limit:
                raise cursor.fail(f"values of {name}", f"are not 1..{spec.limit} in size")
            tensor.ravel()[places] = values
        codes[name] = tensor
    return codes
