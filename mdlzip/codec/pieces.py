"""The bytes that can be had of damaged archives with each body, in order, lost ones as gaps."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING
from zlib import crc32

from mdlzip.archive.bodies import body_of
from mdlzip.archive.bodies.general import General, memory_bytes
from mdlzip.archive.header import Header
from mdlzip.archive.index import UnitTable
from mdlzip.archive.pieces import Piece
from mdlzip.archive.reader import ArchiveReader
from mdlzip.archive.rescue import Copy
from mdlzip.archive.sections import Kind, pack_section
from mdlzip.codec.fitting import Machine
from mdlzip.codec.models import load
from mdlzip.codec.units import split_unit, unit_decoder
from mdlzip.errors import CorruptArchive
from mdlzip.resources import check_memory
from mdlzip.symbols.context import REFERENCE, SOLID

if TYPE_CHECKING:
    from mdlzip.quantised.unit_decoder import UnitDecoder

_BATCH_UNITS = 64  # decoded together, if their streams are whole
_HEAD = (Kind.CONFIGURATION, Kind.CONTEXT, Kind.WEIGHTS, Kind.MODEL)
REMEDY = "a second copy of the archive may have it: --from-copy"


def pieces(copies: Sequence[Copy], header: Header, machine: Machine) -> Iterator[Piece]:
    """All of the original, in order.

    Raises CorruptArchive if a part is lost that all others need, LimitExceeded.
    """
    body = body_of(header.method)
    if not isinstance(body, General):
        return _learned_pieces(copies, machine)
    check_memory(memory_bytes(0, header.size), machine.memory)
    return body.pieces(copies, header.size, machine.memory)


def _learned_pieces(copies: Sequence[Copy], machine: Machine) -> Iterator[Piece]:
    """Unit by unit, or group by group where units are not in the order of the file."""
    reader = ArchiveReader(io.BytesIO(_head(copies)))
    network, fit = load(reader, machine)
    with_units = _Units(copies, reader, unit_decoder(network, reader, fit))
    units, layout = reader.units, reader.layout
    if reader.context.mode == SOLID:
        for unit, data, sure in with_units.in_turn():
            groups = units.groups(unit)
            start, stop = layout.group_span(groups[0])[0], layout.group_span(groups[-1])[1]
            yield Piece(start, stop - start, data, sure)
        return
    known: dict[int, bytes] = {}
    first_sure = True
    if reader.context.mode == REFERENCE:
        _, plain, first_sure = next(iter(with_units.in_turn()))
        if plain is None:
            raise CorruptArchive(
                "the reference groups are damaged, and every other group needs them: nothing can"
                f" be saved; {REMEDY}"
            )
        known = split_unit(units, units.groups(0), plain)
    rest = [unit for unit in range(len(units)) if unit or reader.context.mode != REFERENCE]
    others = with_units.alone(rest)
    for group in range(layout.n_groups):
        start, stop = layout.group_span(group)
        if group in known:
            yield Piece(start, stop - start, known.pop(group), first_sure)
        else:
            _, data, sure = next(others)
            yield Piece(start, stop - start, data, sure and first_sure)


def _head(copies: Sequence[Copy]) -> bytes:
    """An undamaged archive up to its weights, from the parts that are whole in any copy."""
    header = next(copy.header for copy in copies if copy.header is not None)
    out = [header]
    here = {kind for copy in copies for kind in copy.sections}
    torn = {kind for copy in copies for kind in copy.damaged}
    named = Kind.MODEL in here or (Kind.WEIGHTS not in here and Kind.MODEL in torn)
    for kind in _HEAD:
        if kind == (Kind.WEIGHTS if named else Kind.MODEL):
            continue
        section = next((c.sections[kind] for c in copies if kind in c.sections), None)
        if section is not None:
            out.append(pack_section(kind, section.payload))
        elif kind != Kind.CONTEXT or kind in torn:
            raise CorruptArchive(
                f"{kind.name.lower()} section: damaged or missing, and nothing can be decoded"
                f" without it; {REMEDY}"
            )
    return b"".join(out)


Found = tuple[int, bytes | None, bool]  # unit, its bytes, whether they are right


class _Units:
    """Finds and decodes the units of an archive, whose checksums tell which attempt is right."""

    def __init__(self, copies: Sequence[Copy], reader: ArchiveReader, decoder: UnitDecoder) -> None:
        self._copies, self._decoder, units = copies, decoder, reader.units
        start = next((c.data_at for c in copies if c.data_at is not None), None)
        for copy in copies:
            copy.data_at = copy.data_at if copy.data_at is not None else start
        indices = [copy.index(units) for copy in copies]
        self._table: UnitTable | None = next((t for t, _ in indices if t is not None), None)
        self._places = [
            copy.frames(units, self._table, at)
            for copy, (_, at) in zip(copies, indices, strict=True)
        ]
        self._head_is_sure = all(
            not copy.sections[kind].repaired
            for copy in copies
            for kind in _HEAD
            if kind in copy.sections
        )

    def in_turn(self) -> Iterator[Found]:
        """Units that later ones need, up to the first that is lost; then gaps."""
        lost = False
        for unit in range(self._decoder.needed_units):
            found = self._streams(unit)
            plain = None if lost or not found else self._tried(unit, found[0][0])
            lost = plain is None
            yield unit, plain, not lost and self._is_sure(found[0][1])

    def alone(self, units: Sequence[int]) -> Iterator[Found]:
        """Units that nothing but the weights, and reference groups, is needed for."""
        source = iter(units)
        while batch := list(islice(source, _BATCH_UNITS)):
            streams = {unit: self._streams(unit) for unit in batch}
            whole = [(u, s[0][0]) for u, s in streams.items() if s and not s[0][1]]
            try:
                decoded = dict(self._decoder.decode(whole))
            except CorruptArchive:  # one of them has another program's bytes: it costs no other
                decoded = {}
            for unit in batch:
                if unit in decoded and self._agrees(unit, decoded[unit]):
                    yield unit, decoded[unit], self._is_sure(False)
                else:
                    yield self._best(unit, streams[unit])

    def _best(self, unit: int, streams: list[tuple[bytes, bool]]) -> Found:
        for stream, flipped in streams:
            plain = self._tried(unit, stream)
            if plain is not None:
                return unit, plain, self._is_sure(flipped)
        return unit, None, False

    def _is_sure(self, flipped: bool) -> bool:
        """Two checksums agree, or one over bytes that are as they were found."""
        return self._table is not None or (self._head_is_sure and not flipped)

    def _streams(self, unit: int) -> list[tuple[bytes, bool]]:
        """Coded streams, each with whether a bit was flipped; as they were found first."""
        found: list[tuple[bytes, bool]] = []
        for copy, places in zip(self._copies, self._places, strict=True):
            for place in places[unit]:
                stream = copy.coded(*place)
                if stream is not None and stream not in found:
                    found.append(stream)
        return sorted(found, key=lambda stream: stream[1])

    def _tried(self, unit: int, stream: bytes) -> bytes | None:
        try:
            [(_, plain)] = self._decoder.decode([(unit, stream)])
        except CorruptArchive:
            return None
        return plain if self._agrees(unit, plain) else None

    def _agrees(self, unit: int, plain: bytes) -> bool:
        return self._table is None or crc32(plain) == self._table.crcs[unit]
