"""How a learned archive is decoded within the limits: threads, tiles, memory and work."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from mdlzip.archive.reader import ArchiveReader
from mdlzip.archive.source import SectionSource
from mdlzip.codec.options import check_number
from mdlzip.errors import CorruptArchive, ExportRefused, UsageError
from mdlzip.limits import DEFAULT_MEMORY_BYTES
from mdlzip.process.cores import thread_count
from mdlzip.process.devices import check_device
from mdlzip.quantised.memory import DECODE_TILE_CHUNKS, decode_memory_bytes, weights_memory_bytes
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.prepared import prepare
from mdlzip.quantised.work import check_operations
from mdlzip.resources import check_memory
from mdlzip.symbols.vocabulary import Vocabulary


@dataclass(frozen=True)
class Machine:
    """Where and with how much decoding may run.

    threads: None for one per core; memory: most bytes that the process may take, None for no limit;
    allow_slow: decode even what costs time out of proportion; tile_chunks: that a thread decodes
    together. model: the file of the model that an archive may name; None to look for it.
    """

    device: str = "auto"
    threads: int | None = None
    memory: int | None = DEFAULT_MEMORY_BYTES
    allow_slow: bool = False
    tile_chunks: int = DECODE_TILE_CHUNKS
    model: Path | None = None

    def __post_init__(self) -> None:
        check_number("threads", self.threads, 1, 4096)
        check_number("memory", self.memory, 1, 1 << 62)
        check_device(self.device)


@dataclass(frozen=True)
class Fit:
    """A way of decoding an archive and the peak of memory it is predicted to take, in bytes."""

    machine: Machine
    memory_bytes: int


def best_fit(
    reader: ArchiveReader,
    machine: Machine,
    weight_bytes: int,
    vocabulary: Vocabulary,
    text_bytes: int = 0,
) -> Fit:
    """As many threads as memory has room for, then as small a tile as it must be.

    If nothing fits, the way that takes least. Looks at headers alone: weight_bytes is the length of
    the weights section, the vocabulary stands at its beginning; text_bytes: of the model's text.
    Raises CorruptArchive for strings
    that are too long for the chunks: nothing would bound how many chunks there are.
    """
    if vocabulary.longest > reader.layout.chunk_size // 2:
        raise CorruptArchive("weights section: a merge stands for more than half a chunk")
    wanted = thread_count(machine.threads)
    small = min(machine.tile_chunks, reader.layout.group_chunks)
    tiles = [(n, machine.tile_chunks) for n in range(wanted, 0, -1)] + [(1, small)]
    for threads, tile_chunks in tiles:
        need = decode_memory_bytes(
            reader.config,
            reader.layout,
            threads,
            vocabulary=vocabulary,
            weight_bytes=weight_bytes,
            archive_bytes=reader.total,
            tile_chunks=tile_chunks,
            context=reader.context,
            text_bytes=text_bytes,
        )
        fit = Fit(replace(machine, threads=threads, tile_chunks=tile_chunks), need)
        if need <= (sys.maxsize if machine.memory is None else machine.memory):
            break
    return fit


def load_own(reader: ArchiveReader, machine: Machine) -> tuple[IntegerNetwork, Fit]:
    """The network in an archive whose reader stands before the weights, and how to decode with it.

    Raises LimitExceeded before anything that is too large is allocated or takes too long, and
    CorruptArchive.
    """
    from mdlzip.archive.weights_head import begin_weights

    part = reader.weights_section()
    weight_bytes = part.left
    if not machine.allow_slow:
        check_operations(reader.config, reader.layout, weight_bytes, context=reader.context)
    head, vocabulary = begin_weights(part, reader.config)
    fit = best_fit(reader, machine, weight_bytes, vocabulary)
    check_memory(fit.memory_bytes, machine.memory)
    return _unpacked(reader, part, head), fit


def load_weights(
    reader: ArchiveReader, memory: int | None, *, allow_slow: bool = False
) -> IntegerNetwork:
    """As `load_own`, for a caller that reads the weights and no data; needs less memory.

    Raises UsageError where they are in a model file.
    """
    if reader.model_id:
        raise UsageError(
            f"the archive has no weights, they are in model {reader.model_id.hex()[:16]}"
        )
    part = reader.weights_section()
    if not allow_slow:
        check_operations(reader.config, reader.layout, part.left)
    check_memory(weights_memory_bytes(reader.config, part.left), memory)
    network = _unpacked(reader, part, b"")
    if not network.tensors:  # the experts are alone
        return network
    try:
        prepare(network)  # whether its numbers keep the bounds of the predictor
    except ExportRefused as error:
        raise CorruptArchive(f"weights section: {error}") from error
    return network


def _unpacked(reader: ArchiveReader, part: SectionSource, head: bytes) -> IntegerNetwork:
    """The network; `head` is what was read of the section."""
    from mdlzip.archive.weights import unpack_weights

    payload = part.all(head)
    reader.end_of(part)
    try:
        return unpack_weights(payload, reader.config)
    except ExportRefused as error:
        raise CorruptArchive(f"weights section: {error}") from error
