"""The units of a learned archive, decoded with a network that is at hand, and put into order."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING
from zlib import crc32

from mdlzip.archive.reader import ArchiveReader
from mdlzip.codec.fitting import Fit
from mdlzip.errors import CorruptArchive, ExportRefused, MdlzipError
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.resources import check_process, resident_bytes, torch_is_loaded
from mdlzip.symbols.context import REFERENCE, Units

if TYPE_CHECKING:
    from mdlzip.quantised.unit_decoder import UnitDecoder


def decoded_blocks(reader: ArchiveReader, network: IntegerNetwork, fit: Fit) -> Generator[bytes]:
    """Decoded bytes in order, those of each unit checked against the index.

    The reader stands before the groups. On a file the container is checked from end to end before
    the first unit is decoded, since decoding may take hours; on a pipe the index comes last and so
    does its check.
    """
    known = reader.scan().crcs if reader.total is not None else None
    frames = reader.frames()
    crcs, order = array("I"), InOrder(reader.units)
    with closing(unit_decoder(network, reader, fit).decode(frames)) as units:
        for unit, plain in units:
            if unit != len(crcs) or len(plain) != reader.units.n_bytes(unit):
                raise MdlzipError(f"internal error: unit {unit} decoded to {len(plain)} bytes")
            crcs.append(crc32(plain))
            if known is not None:
                _check_units(crcs[-1:], known[unit : unit + 1], unit)
            yield from order.take(unit, plain)
    if len(crcs) != len(reader.units) or any(True for _ in frames):
        raise MdlzipError(f"internal error: {len(crcs)} units decoded")
    _check_units(crcs, reader.finish().crcs, 0)


class InOrder:
    """Puts the bytes of units into the order of the file; reference groups wait for their turn."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._next = 0
        self._waiting: dict[int, bytes] = {}

    def take(self, unit: int, plain: bytes) -> Iterator[bytes]:
        """What can be given out now that the bytes of `unit` are here."""
        groups = self._units.groups(unit)
        if self._units.context.mode != REFERENCE:
            yield plain
            return
        self._waiting |= split_unit(self._units, groups, plain)
        while self._next in self._waiting:
            yield self._waiting.pop(self._next)
            self._next += 1


def split_unit(units: Units, groups: Sequence[int], plain: bytes) -> dict[int, bytes]:
    """The bytes of each group of a unit."""
    parts, start = {}, 0
    for group in groups:
        begin, end = units.layout.group_span(group)
        parts[group] = plain[start : start + end - begin]
        start += end - begin
    return parts


def unit_decoder(network: IntegerNetwork, reader: ArchiveReader, fit: Fit) -> UnitDecoder:
    """What decodes units of the archive; CorruptArchive if no encoder made such a network."""
    loaded, before = torch_is_loaded(), resident_bytes()
    from mdlzip.quantised.placement import choose_device
    from mdlzip.quantised.unit_decoder import UnitDecoder

    machine = fit.machine
    now = resident_bytes()
    if not loaded and before and now:
        check_process(fit.memory_bytes, machine.memory, before, now)
    try:
        return UnitDecoder(
            network,
            network.vocabulary,
            reader.layout,
            reader.context,
            device=choose_device(
                machine.device,
                network,
                reader.layout,
                threads=machine.threads,
                memory=machine.memory,
            ),
            threads=machine.threads,
            memory=machine.memory,
            tile_chunks=machine.tile_chunks,
        )
    except ExportRefused as error:
        raise CorruptArchive(f"weights section: {error}") from error


def _check_units(found: array[int], expected: array[int], first: int) -> None:
    if found == expected:
        return
    bad = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    raise CorruptArchive(
        f"unit {first + bad}: decodes to other bytes than were compressed;"
        " the archive is damaged or was made by a program that predicts differently"
    )
