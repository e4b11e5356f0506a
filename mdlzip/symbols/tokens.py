"""The symbols of a file, made once, group after group, and kept on disk until the job ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

import numpy as np

from mdlzip.process.cores import thread_count
from mdlzip.symbols.column import Column
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.source import ByteSource
from mdlzip.symbols.tokenise import UNIT_BYTES, Cutter, tokenise
from mdlzip.symbols.vocabulary import Vocabulary

SPAN = np.dtype([("start", "i8"), ("stop", "i8")])
_GROUP = np.dtype([("symbol", "i8"), ("chunk", "i8"), ("crc", "u4")])
_TASK_BYTES = 4 * UNIT_BYTES  # what a thread tokenises at a time
_MOST_THREADS = 8  # more than that outrun the one that writes

OnBlock = Callable[[int, int], None]
_Task = tuple[int, np.ndarray, np.ndarray]
"""Of a block: its first byte; where, counted from it, its units end; whether groups end there."""


class Tokens:
    """The symbols of all groups, their chunks and the groups' checksums; a context manager.

    Nothing is held in memory but what was asked for, so a file of any size takes the same. Any
    number of threads may read. expert_bits: float16, what each symbol costs the experts where they
    have read the file; expert_s: the seconds that took; in_turn: whether they will read it in one
    go beside a network, while its threads wait. records: whether groups are records of any length.
    Raises MdlzipError if the disk refuses.
    """

    def __init__(self, layout: Layout, vocabulary: Vocabulary, folder: Path | None) -> None:
        self.layout, self.vocabulary, self._folder = layout, vocabulary, folder
        self._columns: list[Column] = []
        self.expert_bits: Column | None = None
        self.records = False
        self.expert_s = 0.0
        self.in_turn = False
        plain = np.dtype(np.int16 if len(vocabulary.merges) else np.uint8)
        self._symbols = self.new_column(plain)
        self.chunks = self.new_column(SPAN)
        # The end of each group; an entry before the first.
        self._groups = self.new_column(_GROUP)
        self._groups.append(np.zeros(1, _GROUP))

    @property
    def total_bytes(self) -> int:
        """Bytes of the file."""
        return self.layout.total_bytes

    @property
    def n_symbols(self) -> int:
        """Length of the file in symbols."""
        return len(self._symbols)

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return len(self.chunks)

    @property
    def bytes_per_symbol(self) -> float:
        """Mean over the file."""
        return self.total_bytes / max(self.n_symbols, 1)

    def new_column(self, dtype: np.dtype) -> Column:
        """An empty column in the same folder, closed with this object."""
        self._columns.append(Column(self._folder, dtype))
        return self._columns[-1]

    def rows(self, starts: np.ndarray, stops: np.ndarray, width: int | None = None) -> np.ndarray:
        """Symbols starts[i] .. stops[i] - 1 in row i, int16, zeros behind, as `Column.rows`."""
        return self._symbols.rows(starts, stops, width).astype(np.int16, copy=False)

    def group(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """(Its symbols, int16; where in them each of its chunks ends, int64)."""
        (begin, first, _), (end, last, _) = self._groups.read(group, group + 2).tolist()
        symbols = self._symbols.read(begin, end).astype(np.int16, copy=False)
        return symbols, self.chunks.read(first, last)["stop"] - begin

    def crc32(self, group: int) -> int:
        """CRC-32 of the bytes of `group`."""
        return int(self._groups.read(group + 1, group + 2)["crc"][0])

    def close(self) -> None:
        """Free the disk's space."""
        for column in self._columns:
            column.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _fill(self, blocks: Iterator[_Block]) -> None:
        """Write everything down. blocks: the whole file, in order."""
        cutter = Cutter(self.vocabulary, self.layout.chunk_size)
        before = crc = 0  # end of the last chunk; checksum of the open group so far
        for block in blocks:
            first, chunks = self.n_symbols, self.n_chunks
            ends, counts = cutter.cut(block.symbols, block.units, block.closes)
            spans = np.empty(len(ends), SPAN)
            spans["stop"] = ends + first
            spans["start"] = np.append(before, spans["stop"][:-1])[: len(ends)]
            before = int(spans["stop"][-1]) if len(ends) else before
            groups = np.empty(len(block.units), _GROUP)
            groups["symbol"], groups["chunk"] = block.units + first, counts + chunks
            begin = 0
            for i, edge in enumerate(block.edges.tolist()):
                crc = crc32(block.data[begin:edge].data, crc)
                groups["crc"][i], begin = crc, edge
                crc = 0 if block.closes[i] else crc
            self._symbols.append(block.symbols)
            self.chunks.append(spans)
            self._groups.append(groups[block.closes])
        for column in self._columns:
            column.flush()


class _Block(NamedTuple):
    """Consecutive bytes, uint8, their symbols, and their units: where each ends among the bytes
    (edges) and among the symbols (units), and whether a group ends there.
    """

    data: np.ndarray
    symbols: np.ndarray
    edges: np.ndarray
    units: np.ndarray
    closes: np.ndarray


def prepare(
    source: ByteSource,
    layout: Layout,
    vocabulary: Vocabulary,
    folder: Path | None,
    *,
    threads: int | None = None,
    on_block: OnBlock = lambda done, total: None,
    ends: np.ndarray | None = None,
) -> Tokens:
    """Tokenise all of `source`, whose size is that of `layout`.

    folder: where the symbols are kept, in files without names; None: where temporary files are.
    threads: None for one per usable core; they change nothing but the time. on_block(done, total):
    called after each block with bytes; what it raises ends the work. ends: int64, ascending, where
    each record ends, the last one at the end of the source: each is a group then, whatever the
    layout says. The symbols of a byte outside the vocabulary's alphabet are that byte.
    """
    tokens = Tokens(layout, vocabulary, folder)
    tokens.records = ends is not None
    tasks = _tasks(layout) if ends is None else _record_tasks(ends)
    try:
        with closing(_blocks(source, layout, vocabulary, threads, on_block, tasks)) as blocks:
            tokens._fill(blocks)
    except BaseException:
        tokens.close()
        raise
    return tokens


def _blocks(
    source: ByteSource,
    layout: Layout,
    vocabulary: Vocabulary,
    threads: int | None,
    on_block: OnBlock,
    tasks: Iterator[_Task],
) -> Generator[_Block]:
    """All blocks in order, some threads ahead of the consumer."""

    def work(start: int, edges: np.ndarray, closes: np.ndarray) -> _Block:
        data = source.read(start, start + int(edges[-1]))
        symbols, units = tokenise(vocabulary, data, edges)
        return _Block(data, symbols, edges, units, closes)

    workers = threads or min(thread_count(), _MOST_THREADS)
    done, pending = 0, deque[Future[_Block]]()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for task in tasks:
                pending.append(pool.submit(work, *task))
                if len(pending) > workers:
                    yield (block := pending.popleft().result())
                    on_block(done := done + len(block.data), layout.total_bytes)
            while pending:
                yield (block := pending.popleft().result())
                on_block(done := done + len(block.data), layout.total_bytes)
        finally:
            for future in pending:
                future.cancel()


def _record_tasks(ends: np.ndarray) -> Iterator[_Task]:
    """As `_tasks`; a block holds whole records."""
    start = first = 0
    while first < len(ends):
        last = max(int(np.searchsorted(ends, start + _TASK_BYTES, side="right")), first + 1)
        edges = ends[first:last] - start
        yield start, edges, np.ones(len(edges), bool)
        start, first = int(ends[last - 1]), last


def _tasks(layout: Layout) -> Iterator[_Task]:
    """The blocks of a file; one holds whole groups, or units of one group."""
    unit, span = min(layout.group_bytes, UNIT_BYTES), layout.group_bytes
    if span <= UNIT_BYTES:
        span *= _TASK_BYTES // span
    for begin in range(0, layout.total_bytes, span):
        end = min(begin + span, layout.total_bytes)
        for start in range(begin, end, _TASK_BYTES):
            stop = min(start + _TASK_BYTES, end)
            edges = np.minimum(np.arange(start + unit, stop + unit, unit), stop)
            closes = (edges % layout.group_bytes == 0) | (edges == layout.total_bytes)
            yield start, edges - start, closes
