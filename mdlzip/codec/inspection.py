"""What an archive says of itself; no data is decoded, and little is held in memory."""

from __future__ import annotations

from pathlib import Path

from mdlzip.archive.bodies import LEARNED
from mdlzip.archive.bodies.general import General
from mdlzip.archive.card import unpack_card
from mdlzip.archive.reader import ArchiveReader
from mdlzip.codec.decode import open_source
from mdlzip.codec.fitting import Machine, best_fit
from mdlzip.codec.models import ModelFile, locate
from mdlzip.codec.options import ArchiveInfo, method_label
from mdlzip.errors import MdlzipError
from mdlzip.fileio import plain_errors
from mdlzip.limits import DEFAULT_MEMORY_BYTES
from mdlzip.networks.registry import n_cells
from mdlzip.quantised.memory import index_memory_bytes
from mdlzip.quantised.work import decode_operations
from mdlzip.resources import GENERAL_PROGRAM_BYTES, check_memory
from mdlzip.symbols.context import SOLID, Units
from mdlzip.symbols.vocabulary import Vocabulary


def inspect(
    src: str | Path, *, memory: int = DEFAULT_MEMORY_BYTES, threads: int | None = None
) -> ArchiveInfo:
    """Header, configuration, sizes and ledger of an archive; the data stay coded.

    Every checksum is verified but, on a file, those of the data, which are not even read. memory:
    limit of this call, and of the decoding with `threads` that is predicted. Raises CorruptArchive,
    UnsupportedVersion, LimitExceeded.
    """
    with open_source(src) as (file, total), plain_errors(f"{src}: cannot read"):
        reader = ArchiveReader(file, total)
        if isinstance(reader.body, General):
            return _info(str(src), reader, *reader.body.survey(reader))
        return _learned(str(src), reader, Machine("cpu", threads, memory))


def _first_read(units: Units) -> int:
    """Most bytes that are decoded for the first byte that is read of an open archive."""
    if units.context.mode == SOLID:
        return units.layout.total_bytes
    group = min(units.layout.group_bytes, units.layout.total_bytes)
    return min(units.known_bytes() + group, units.layout.total_bytes)


def _later_read(units: Units) -> int:
    """... and for another one; what others build on is kept."""
    if units.context.mode == SOLID:
        return 0
    return min(units.layout.group_bytes, units.layout.total_bytes)


def _info(
    src: str, reader: ArchiveReader, ledger: dict[str, int], memory: int, **more: object
) -> ArchiveInfo:
    header = reader.header
    return ArchiveInfo(
        source=src,
        method=method_label(reader.body, getattr(reader, "config", None)),
        original_bytes=header.size,
        archive_bytes=sum(ledger.values()),
        name=reader.name,
        mode=header.mode if header.has_metadata else None,
        mtime_ns=header.mtime_ns if header.has_metadata else None,
        sha256=reader.digest.hex(),
        ledger=ledger,
        decode_memory_bytes=memory,
        **more,  # type: ignore[arg-type]
    )


def _model_of(model_id: bytes) -> ModelFile | None:
    """The model that an archive names, if it is kept where models are looked for."""
    try:
        return locate(model_id)
    except MdlzipError:
        return None


def _learned(src: str, reader: ArchiveReader, machine: Machine) -> ArchiveInfo:
    from mdlzip.archive.weights_head import LINES, weights_summary

    config, layout = reader.config, reader.layout
    check_memory(GENERAL_PROGRAM_BYTES + index_memory_bytes(layout), machine.memory)
    weights, model, weight_bytes = None, None, 0
    if reader.model_id:
        model = _model_of(reader.model_id)
        lines = dict.fromkeys(LINES, 0)
    else:
        part = reader.weights_section()
        weight_bytes = part.left
        weights = weights_summary(part, config)
        reader.end_of(part)
        lines = weights.ledger
    vocabulary = weights.vocabulary if weights else Vocabulary()
    fit = best_fit(reader, machine, weight_bytes, vocabulary, model.text_bytes if model else 0)
    if reader.total is not None:
        table, _ = reader.jump_to_index()
    else:
        for _ in reader.frames():
            pass
        table = reader.finish()
    return _info(
        src,
        reader,
        LEARNED.ledger(reader, lines, table.lengths),
        fit.memory_bytes,
        decode_threads=fit.machine.threads,
        decode_operations=decode_operations(config, layout, reader.context),
        config=config,
        chunk_size=layout.chunk_size,
        group_chunks=layout.group_chunks,
        n_groups=layout.n_groups,
        context=reader.context.mode,
        row_bytes=reader.context.grid.row_bytes,
        element_bytes=reader.context.grid.element_bytes,
        n_units=len(reader.units),
        first_read_bytes=_first_read(reader.units),
        later_read_bytes=_later_read(reader.units),
        nnz=weights.nnz if weights else None,
        n_weights=n_cells(config),
        model_id=reader.model_id.hex() or None,
        model_bytes=model.size if model else None,
        card=unpack_card(reader.card),
    )
