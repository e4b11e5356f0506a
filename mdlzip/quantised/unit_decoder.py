"""Coded bytes of units -> the bytes of their groups."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from mdlzip.errors import CorruptArchive, MdlzipError
from mdlzip.quantised.coders import Experts, UnitCoder
from mdlzip.quantised.cuts import check_end, read_cuts
from mdlzip.quantised.memory import DECODE_TILE_CHUNKS, longest_chunk
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.tiles import DecodeTile, Segment
from mdlzip.quantised.turns import run_in_turn
from mdlzip.quantised.unit_work import Work, rounds, shares
from mdlzip.quantised.workers import Workers
from mdlzip.symbols.context import REFERENCE, SOLID, STRICT, Context, Units
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mdlzip.quantised.decode_cpu import Sharing

Coded: TypeAlias = tuple[int, bytes | bytearray]
"""Number and coded bytes of a unit."""


class _Unit:
    """A unit under way.

    cuts: for each group, the bytes that its chunks hold at least; sizes: int64 (n,), all of them.
    fill: int64 (n,), bytes of each chunk in the end; they are in `chunks`, or all in `text`.
    """

    def __init__(
        self,
        number: int,
        groups: Sequence[int],
        cuts: list[np.ndarray],
        sizes: np.ndarray,
        coder: UnitCoder,
    ) -> None:
        self.number, self.groups, self.cuts, self.sizes = number, groups, cuts, sizes
        self.coder, self.fill = coder, np.zeros(len(sizes), np.int64)
        self.chunks: list[bytes] = []
        self.text = b""

    def joined(self) -> bytes:
        """Its bytes."""
        return self.text or b"".join(self.chunks)


class UnitDecoder:
    """Decodes units of one archive with a predictor that is made once; for one thread's use.

    network: None where the experts are alone; memory: as for `encode_units`; tile_chunks: that a
    thread of the CPU decodes in lockstep, if a unit has fewer; more are faster and take more
    memory. Raises ExportRefused if the network breaks a bound of the predictor, LimitExceeded if
    the device has too little memory.
    """

    def __init__(
        self,
        network: IntegerNetwork | None,
        vocabulary: Vocabulary,
        layout: Layout,
        context: Context = STRICT,
        *,
        device: str = "cpu",
        threads: int | None = None,
        memory: int | None = None,
        tile_chunks: int = DECODE_TILE_CHUNKS,
    ) -> None:
        self._work = Work(
            network, vocabulary, layout, context, device, threads, memory, tile_chunks
        )
        self._tile = self._work.tile_chunks
        self._per_batch = max(1, self._tile // layout.group_chunks)
        self._sharing: Sharing | None = None
        self.known_units = 0
        """Units decoded so far of those that later ones build on."""

    @property
    def units(self) -> Units:
        """The units of the archive."""
        return self._work.units

    @property
    def needed_units(self) -> int:
        """How many units, from the first on, any other needs."""
        return {SOLID: len(self.units), REFERENCE: 1}.get(self._work.context.mode, 0)

    def decode(self, units: Iterable[Coded]) -> Generator[tuple[int, bytes]]:
        """(Unit number, its bytes) for every (unit number, coded bytes), in the order given.

        Units that others build on must come first, in their order, and once. Close it before the
        next call if it is not read to its end. Raises CorruptArchive.
        """
        work = self._work
        work.workers = Workers(work.threads)
        source = iter(units)
        while self.known_units < self.needed_units:
            coded = next(source, None)
            if coded is None:
                return
            if coded[0] != self.known_units:
                raise MdlzipError(f"internal error: unit {coded[0]} before {self.known_units}")
            plain = self._decode_shared(coded)
            self.known_units += 1
            yield coded[0], plain
        with closing(work.workers.map(self._decode_batch, self._batches(source))) as decoded:
            for batch in decoded:
                yield from batch

    def _decode_shared(self, coded: Coded) -> bytes:
        unit = self._open(coded)
        self._decode_units([unit], self._work.threads)
        self._work.learned(unit.coder, unit.number)
        return unit.joined()

    def _decode_batch(self, batch: list[Coded]) -> list[tuple[int, bytes]]:
        """Several units in lockstep: position by position over all their chunks."""
        units = [self._open(coded) for coded in batch]
        self._decode_units(units, 1)
        return [(unit.number, unit.joined()) for unit in units]

    def _open(self, coded: Coded) -> _Unit:
        work = self._work
        number, payload = coded
        groups = work.units.groups(number)
        cuts, stream = read_cuts(work.vocabulary.longest, work.layout, groups, payload)
        sizes, coder = np.concatenate(cuts), work.new_coder(groups, list(map(len, cuts)), stream)
        return _Unit(number, groups, cuts, sizes, coder)

    def _decode_units(self, units: list[_Unit], threads: int) -> None:
        """Raises CorruptArchive unless streams and chunks end together."""
        work = self._work
        if work.predictor is None or self._is_compiled(units):
            for unit in units:
                self._decode_unit(unit, threads)
        else:
            for unit in units:
                unit.chunks = [b""] * len(unit.sizes)
            each = [list(rounds(len(unit.sizes), work.lane_chunks)) for unit in units]
            for together in itertools.zip_longest(*each):
                self._decode_round(units, together, threads)
        for unit in units:
            self._check(unit)

    def _is_compiled(self, units: list[_Unit]) -> bool:
        """Whether compiled code goes from position to position; small units go together."""
        most = min(self._tile, max(len(unit.sizes) for unit in units))
        work = self._work
        assert work.predictor is not None
        if len(units) > 1:
            return False
        from mdlzip.quantised.decode_cpu import can_decode

        return can_decode(work.predictor, most)

    def _decode_unit(self, unit: _Unit, threads: int) -> None:
        work, coder = self._work, unit.coder
        for chunks in rounds(len(unit.sizes), work.lane_chunks):
            if work.predictor is None:
                alone = cast("Experts", coder)
                alone.decode_alone(chunks, unit.sizes[chunks], work.workers.check)
                continue
            from mdlzip.quantised.decode_cpu import CompiledTile, Sharing, decode_in_turn

            self._sharing = self._sharing or Sharing()
            n = self._sharing.threads(threads)
            tiles = [
                CompiledTile(work.predictor, coder, share, unit.sizes[share], f"unit {unit.number}")
                for share in shares(chunks, self._tile, n)
            ]
            decode_in_turn(tiles, n, work.workers.check)
            self._sharing.learn(tiles)
        unit.fill, unit.text = coder.group.fill(), coder.group.text()

    def _decode_round(
        self, units: list[_Unit], rows: Sequence[np.ndarray | None], threads: int
    ) -> None:
        """The chunks rows[i] of each unit; None where a unit has ended."""
        work, room = self._work, longest_chunk(self._work.layout)
        assert work.predictor is not None
        segments = [
            (unit, Segment(f"unit {unit.number}", unit.coder, share, unit.sizes[share]))
            for unit, chunks in zip(units, rows, strict=True)
            if chunks is not None
            for share in shares(chunks, self._tile, threads)
        ]
        # A unit that all threads share is cut into tiles, small units are one tile together.
        cut = [[pair] for pair in segments] if len(units) == 1 else [segments]
        tiles = [
            DecodeTile(work.predictor, work.vocabulary, room, [segment for _, segment in pairs])
            for pairs in cut
        ]
        run_in_turn(tiles, threads, work.workers.check)
        for tile, pairs in zip(tiles, cut, strict=True):
            for i, (unit, segment) in enumerate(pairs):
                lines = slice(tile.edges[i], tile.edges[i + 1])
                unit.fill[segment.chunks] = tile.fill[lines]
                for chunk, row, n in zip(
                    segment.chunks.tolist(), tile.out[lines], tile.fill[lines].tolist(), strict=True
                ):
                    unit.chunks[chunk] = row[:n].tobytes()

    def _check(self, unit: _Unit) -> None:
        """CorruptArchive unless stream and chunks end with the unit."""
        if not unit.coder.is_spent:
            raise CorruptArchive(
                f"unit {unit.number}: data follow its last symbol; the archive is damaged or was"
                " made by a program that predicts differently"
            )
        fill = unit.fill
        for group, sizes in zip(unit.groups, unit.cuts, strict=True):
            check_end(self._work.layout, group, fill[: len(sizes)], int(sizes[-1]))
            fill = fill[len(sizes) :]

    def _batches(self, units: Iterable[Coded]) -> Iterator[list[Coded]]:
        source = iter(units)
        while batch := list(itertools.islice(source, self._per_batch)):
            yield batch
