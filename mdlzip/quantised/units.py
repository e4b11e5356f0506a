"""Units of groups <-> coded bytes, through the integer predictor and what codes with it.

Work is cut into tiles that threads take; neither tile size nor thread count can change a byte,
since the predictor is exact and every unit has its own stream. What a unit knows of others is
told by the context: where it knows nothing (or the reference groups only), units are decoded
several at a time, one thread each; a large unit that others wait for is shared by all threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TypeAlias, TypeVar, cast
from zlib import crc32

import numpy as np
import torch

from mdlzip.errors import CorruptArchive, ExportRefused, MdlzipError
from mdlzip.process.cores import thread_count
from mdlzip.quantised.coders import Coders, Experts, Look, Priced, UnitCoder
from mdlzip.quantised.cuts import check_end, pack_cut, read_cuts
from mdlzip.quantised.device_memory import device_limit, fit_tiles
from mdlzip.quantised.memory import DECODE_TILE_CHUNKS, longest_chunk
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.predictor import Predictor
from mdlzip.quantised.tiles import DecodeTile, EncodeTile, Segment
from mdlzip.quantised.turns import Tile, run_in_turn
from mdlzip.quantised.workers import Workers
from mdlzip.symbols.column import Column
from mdlzip.symbols.context import CHUNK, REFERENCE, SOLID, STRICT, Context, Units
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokens import Tokens
from mdlzip.symbols.vocabulary import START_SYMBOL, Vocabulary

R = TypeVar("R")
Coded: TypeAlias = tuple[int, bytes | bytearray]
"""Number and coded bytes of a unit."""
ENCODE_TILE_SYMBOLS = 4096  # positions of one forward call; keeps the activations near the L2 cache
_CRC_SYMBOLS = 1 << 16
_LEAST_SHARED = 32  # chunks of a tile that is one of several in turn


class _Work:
    """Predictor and coders of one archive, for encoder and decoder alike."""

    def __init__(
        self,
        network: IntegerNetwork | None,
        vocabulary: Vocabulary,
        layout: Layout,
        context: Context,
        device: str,
        threads: int | None,
        memory: int | None = None,
        tile_chunks: int = DECODE_TILE_CHUNKS,
    ) -> None:
        self.layout, self.units, self.vocabulary = layout, Units(layout, context), vocabulary
        self.context, self.device = context, device
        self.threads = thread_count(threads)
        self.tile_chunks, self.call_symbols = tile_chunks, ENCODE_TILE_SYMBOLS
        if network is not None and network.tensors and torch.device(device).type != "cpu":
            limit = device_limit(torch.device(device), memory)
            tiles = fit_tiles(
                network.shape, layout, vocabulary.n_symbols, threads=self.threads, limit=limit
            )
            self.threads, self.tile_chunks = tiles.threads, tiles.chunks
            self.call_symbols = tiles.symbols
        self.workers = Workers(self.threads)
        if context.mode == CHUNK and (network is None or not network.tensors):
            raise ExportRefused("without a network chunks must know of others")
        self.coders = Coders(context, vocabulary, layout.chunk_size)
        self.predictor = None
        if network is not None and network.tensors:
            self.predictor = Predictor(
                network,
                layout.chunk_size,
                positions=longest_chunk(layout),
                device=device,
                check=lambda: self.workers.check(),
            )
        self._load_kernels()

    def _load_kernels(self) -> None:
        """Here a signal can end that, in a thread it cannot."""
        coder = Coders(self.context, self.vocabulary, self.layout.chunk_size).new(1)
        gaps = None
        if self.predictor:
            start = np.full((1, 1), START_SYMBOL, np.int16)
            gaps = self.predictor.forward(start, self.predictor.new_state(1))
        coder.encode(np.zeros(1, np.int64), Look(gaps, 0, np.zeros(1, np.int64)), _ZERO)

    def is_shared(self, unit: int) -> bool:
        """Whether all threads work on this unit because others need what it teaches."""
        return self.context.mode == SOLID or (self.context.mode == REFERENCE and unit == 0)

    def learned(self, coder: UnitCoder, unit: int) -> None:
        """Keep what later units start from."""
        if self.is_shared(unit):
            self.coders.known = cast("Experts", coder).group.after()

    def new_coder(self, unit: int, n_chunks: int, stream: bytes | bytearray | None) -> UnitCoder:
        return self.coders.new(n_chunks, stream, last=self.context.mode == SOLID)


_ZERO = np.zeros(1, np.int32)


def encode_units(
    network: IntegerNetwork | None,
    tokens: Tokens,
    context: Context = STRICT,
    *,
    device: str = "cpu",
    threads: int | None = None,
    memory: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Generator[tuple[bytes, int]]:
    """(Coded bytes, CRC-32 of its original bytes) of every unit, in order.

    tokens: made with the network's vocabulary; without a network the experts are alone, which
    "chunk" does not allow. memory: most bytes of a device other than the CPU, None for all that
    are free there. Raises ExportRefused for a byte outside the alphabet, LimitExceeded if the
    device has too little memory.
    """
    layout = tokens.layout
    vocabulary = network.vocabulary if network else tokens.vocabulary
    work = _Work(network, vocabulary, layout, context, device, threads, memory)
    done = 0
    with closing(_encoded(work, tokens)) as coded:
        for unit, (payload, crc) in enumerate(coded):
            done += work.units.n_bytes(unit)
            if on_progress:
                on_progress(done, layout.total_bytes)
            yield payload, crc


def _encoded(work: _Work, tokens: Tokens) -> Generator[tuple[bytes, int]]:
    return _each(work, lambda unit, threads: _encode_unit(work, tokens, unit, threads))


def _each(work: _Work, task: Callable[[int, int], R]) -> Generator[R]:
    """task(unit, threads) for every unit, those that others need one by one on all threads."""
    units = range(len(work.units))
    shared = list(itertools.takewhile(work.is_shared, units))
    for unit in shared:
        yield task(unit, work.threads)
    rest = units[len(shared) :]
    with closing(work.workers.map(lambda unit: task(unit, 1), rest)) as done:
        yield from done


def _encode_unit(work: _Work, tokens: Tokens, unit: int, threads: int) -> tuple[bytes, int]:
    """One coded unit and its CRC-32."""
    groups = work.units.groups(unit)
    head, flat, counts = _symbols_of(work, tokens, groups)
    coder = work.new_coder(unit, len(counts), None)
    _encode_with(work, coder, flat, counts, threads)
    work.learned(coder, unit)
    crc = tokens.crc32(groups[0]) if len(groups) == 1 else _crc32(work.vocabulary, flat)
    return head + coder.finish(), crc


def _symbols_of(
    work: _Work, tokens: Tokens, groups: Sequence[int]
) -> tuple[bytes, np.ndarray, np.ndarray]:
    """(Cuts of the groups of a unit; their symbols, int16; symbols of each chunk, int64)."""
    parts = [tokens.group(group) for group in groups]
    head = b"".join(pack_cut(work.vocabulary, flat, ends) for flat, ends in parts)
    counts = np.concatenate([np.diff(ends, prepend=0) for _, ends in parts])
    return head, np.concatenate([flat for flat, _ in parts]), counts


def _encode_with(
    work: _Work, coder: UnitCoder, flat: np.ndarray, counts: np.ndarray, threads: int
) -> None:
    encode_chunks(
        work.predictor,
        work.vocabulary,
        coder,
        flat,
        counts,
        threads,
        work.workers.check,
        call_symbols=work.call_symbols,
    )


def encode_chunks(
    predictor: Predictor | None,
    vocabulary: Vocabulary,
    coder: UnitCoder,
    flat: np.ndarray,
    counts: np.ndarray,
    threads: int = 1,
    check: Callable[[], None] = lambda: None,
    *,
    call_symbols: int = ENCODE_TILE_SYMBOLS,
) -> None:
    """Feed all symbols of a unit to `coder`, in coding order.

    flat: int16, its symbols; counts: int64, symbols of each of its chunks; call_symbols: that the
    predictor is asked for at once. Raises ExportRefused.
    """
    stops, tiles = np.cumsum(counts), list[Tile]()
    for chunks in _shares(len(counts), DECODE_TILE_CHUNKS, threads):
        here = counts[chunks]
        symbols = np.zeros((len(chunks), int(here.max())), np.int16)
        inside = np.arange(symbols.shape[1]) < here[:, None]
        symbols[inside] = flat[stops[chunks[0]] - here[0] : stops[chunks[-1]]]
        span = max(1, call_symbols // len(chunks))
        tiles.append(EncodeTile(predictor, vocabulary, coder, chunks, symbols, here, span))
    run_in_turn(tiles, threads, check)


def _crc32(vocabulary: Vocabulary, flat: np.ndarray) -> int:
    """CRC-32 of the bytes that symbols stand for."""
    crc, places = 0, np.arange(vocabulary.longest)
    for start in range(0, len(flat), _CRC_SYMBOLS):
        part = flat[start : start + _CRC_SYMBOLS]
        inside = places < vocabulary.lengths[part][:, None]
        crc = crc32(vocabulary.strings[part][inside].tobytes(), crc)
    return crc


def _shares(n: int, most: int, threads: int) -> Iterator[np.ndarray]:
    """Consecutive chunks 0..n - 1 in shares of at most `most`, if that gives each thread one."""
    size = min(most, max(-(-n // threads), _LEAST_SHARED))
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n))


def expert_costs(
    tokens: Tokens,
    context: Context,
    *,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Column, list[int]]:
    """What the experts spend without a network: (bits of every symbol, bytes of every unit).

    The column, float16, has the order of the symbols of `tokens` and is closed with them. What a
    network is worth beside the experts is seen against it alone.
    """
    layout = tokens.layout
    work = _Work(None, tokens.vocabulary, layout, context, "cpu", threads)
    column, waiting = tokens.new_column(np.dtype(np.float16)), dict[int, np.ndarray]()
    done = next_group = 0
    lengths: list[int] = []

    def price(unit: int, threads: int) -> tuple[dict[int, np.ndarray], int]:
        groups = work.units.groups(unit)
        head, flat, counts = _symbols_of(work, tokens, groups)
        coder = Priced(cast("Experts", work.new_coder(unit, len(counts), None)), counts)
        _encode_with(work, coder, flat, counts, threads)
        work.learned(coder, unit)
        edges = np.cumsum([len(tokens.group(group)[0]) for group in groups])
        parts = np.split(coder.bits, edges[:-1])
        return dict(zip(groups, parts, strict=True)), len(head) + len(coder.finish())

    with closing(_each(work, price)) as priced:
        for unit, (parts, size) in enumerate(priced):
            waiting |= parts
            while next_group in waiting:
                column.append(waiting.pop(next_group))
                next_group += 1
            lengths.append(size)
            done += work.units.n_bytes(unit)
            if on_progress:
                on_progress(done, layout.total_bytes)
    column.flush()
    return column, lengths


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
        self._work = _Work(
            network, vocabulary, layout, context, device, threads, memory, tile_chunks
        )
        self._tile = self._work.tile_chunks
        self._per_batch = max(1, self._tile // layout.group_chunks)
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
        work = self._work
        unit, payload = coded
        groups = work.units.groups(unit)
        cuts, stream = read_cuts(work.vocabulary.longest, work.layout, groups, payload)
        sizes = np.concatenate(cuts)
        coder = work.new_coder(unit, len(sizes), stream)
        room = longest_chunk(work.layout)
        tiles = [
            DecodeTile(
                work.predictor,
                work.vocabulary,
                room,
                [Segment(f"unit {unit}", coder, chunks, sizes[chunks])],
            )
            for chunks in _shares(len(sizes), self._tile, work.threads)
        ]
        run_in_turn(tiles, work.threads, work.workers.check)
        fill = np.concatenate([tile.fill for tile in tiles])
        self._check(unit, coder, groups, cuts, fill)
        work.learned(coder, unit)
        return b"".join(_joined(tile.out, tile.fill) for tile in tiles)

    def _decode_batch(self, batch: list[Coded]) -> list[tuple[int, bytes]]:
        """Several units in lockstep: position by position over all their chunks."""
        work, cuts, coders, segments = self._work, [], [], []
        for unit, payload in batch:
            groups = work.units.groups(unit)
            cut, stream = read_cuts(work.vocabulary.longest, work.layout, groups, payload)
            sizes = np.concatenate(cut)
            coder = work.new_coder(unit, len(sizes), stream)
            segments.append(Segment(f"unit {unit}", coder, np.arange(len(sizes)), sizes))
            coders.append(coder)
            cuts.append(cut)
        room = longest_chunk(work.layout)
        tile = DecodeTile(work.predictor, work.vocabulary, room, segments)
        run_in_turn([tile], 1, work.workers.check)
        result = []
        for i, (unit, _) in enumerate(batch):
            lines = slice(tile.edges[i], tile.edges[i + 1])
            fill = tile.fill[lines]
            self._check(unit, coders[i], work.units.groups(unit), cuts[i], fill)
            result.append((unit, _joined(tile.out[lines], fill)))
        return result

    def _check(
        self,
        unit: int,
        coder: UnitCoder,
        groups: Sequence[int],
        cuts: list[np.ndarray],
        fill: np.ndarray,
    ) -> None:
        """CorruptArchive unless stream and chunks end with the unit."""
        if not coder.is_spent:
            raise CorruptArchive(
                f"unit {unit}: data follow its last symbol; the archive is damaged or was made by a"
                " program that predicts differently"
            )
        for group, sizes in zip(groups, cuts, strict=True):
            check_end(self._work.layout, group, fill[: len(sizes)], int(sizes[-1]))
            fill = fill[len(sizes) :]

    def _batches(self, units: Iterable[Coded]) -> Iterator[list[Coded]]:
        source = iter(units)
        while batch := list(itertools.islice(source, self._per_batch)):
            yield batch


def _joined(out: np.ndarray, fill: np.ndarray) -> bytes:
    """The bytes of chunks, uint8 (B, room), of which `fill` (B,) are theirs."""
    return b"".join(row[:n].tobytes() for row, n in zip(out, fill, strict=True))
