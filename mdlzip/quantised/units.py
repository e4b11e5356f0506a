"""Symbols of units -> coded bytes, through the integer predictor and what codes with it.

Work is cut into tiles that threads take; neither tile size nor thread count can change a byte,
since the predictor is exact and every unit has its own stream. What a unit knows of others is
told by the context: where it knows nothing (or the reference groups only), units are coded several
at a time, one thread each; a large unit that others wait for is shared by all threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TypeVar, cast
from zlib import crc32

import numpy as np

from mdlzip.quantised.coders import Experts, Priced, UnitCoder
from mdlzip.quantised.cuts import pack_cut
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.unit_work import Work, encode_chunks
from mdlzip.symbols.column import Column
from mdlzip.symbols.context import STRICT, Context
from mdlzip.symbols.tokens import Tokens
from mdlzip.symbols.vocabulary import Vocabulary

R = TypeVar("R")
_CRC_SYMBOLS = 1 << 16


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
    work = Work(network, vocabulary, layout, context, device, threads, memory)
    done = 0
    with closing(_encoded(work, tokens)) as coded:
        for unit, (payload, crc) in enumerate(coded):
            done += work.units.n_bytes(unit)
            if on_progress:
                on_progress(done, layout.total_bytes)
            yield payload, crc


def _encoded(work: Work, tokens: Tokens) -> Generator[tuple[bytes, int]]:
    return _each(work, lambda unit, threads: _encode_unit(work, tokens, unit, threads))


def _each(work: Work, task: Callable[[int, int], R]) -> Generator[R]:
    """task(unit, threads) for every unit, those that others need one by one on all threads."""
    units = range(len(work.units))
    shared = list(itertools.takewhile(work.is_shared, units))
    for unit in shared:
        yield task(unit, work.threads)
    rest = units[len(shared) :]
    with closing(work.workers.map(lambda unit: task(unit, 1), rest)) as done:
        yield from done


def _encode_unit(work: Work, tokens: Tokens, unit: int, threads: int) -> tuple[bytes, int]:
    """One coded unit and its CRC-32."""
    groups = work.units.groups(unit)
    head, flat, counts, chunks = _symbols_of(work, tokens, groups)
    coder = work.new_coder(groups, chunks, None)
    _encode_with(work, coder, flat, counts, threads)
    work.learned(coder, unit)
    crc = tokens.crc32(groups[0]) if len(groups) == 1 else _crc32(work.vocabulary, flat)
    return head + coder.finish(), crc


def _symbols_of(
    work: Work, tokens: Tokens, groups: Sequence[int]
) -> tuple[bytes, np.ndarray, np.ndarray, list[int]]:
    """(Cuts of the groups; their symbols, int16; symbols of each chunk, int64; chunks of each)."""
    parts = [tokens.group(group) for group in groups]
    head = b"".join(pack_cut(work.vocabulary, flat, ends) for flat, ends in parts)
    counts = np.concatenate([np.diff(ends, prepend=0) for _, ends in parts])
    chunks = [len(ends) for _, ends in parts]
    return head, np.concatenate([flat for flat, _ in parts]), counts, chunks


def _encode_with(
    work: Work, coder: UnitCoder, flat: np.ndarray, counts: np.ndarray, threads: int
) -> None:
    encode_chunks(
        work.predictor,
        work.vocabulary,
        coder,
        flat,
        counts,
        threads,
        work.workers.check,
        lane_chunks=work.lane_chunks,
        call_symbols=work.call_symbols,
    )


def _crc32(vocabulary: Vocabulary, flat: np.ndarray) -> int:
    """CRC-32 of the bytes that symbols stand for."""
    crc, places = 0, np.arange(vocabulary.longest)
    for start in range(0, len(flat), _CRC_SYMBOLS):
        part = flat[start : start + _CRC_SYMBOLS]
        inside = places < vocabulary.lengths[part][:, None]
        crc = crc32(vocabulary.strings[part][inside].tobytes(), crc)
    return crc


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
    work = Work(None, tokens.vocabulary, layout, context, "cpu", threads)
    column, waiting = tokens.new_column(np.dtype(np.float16)), dict[int, np.ndarray]()
    done = next_group = 0
    lengths: list[int] = []

    def price(unit: int, threads: int) -> tuple[dict[int, np.ndarray], int]:
        groups = work.units.groups(unit)
        head, flat, counts, chunks = _symbols_of(work, tokens, groups)
        coder = Priced(cast("Experts", work.new_coder(groups, chunks, None)), counts)
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
