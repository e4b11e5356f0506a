"""Reading any part of an archive without unpacking the rest."""

from __future__ import annotations

import io
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self
from zlib import crc32

from mdlzip.archive.bodies.general import General, Part
from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.archive.reader import ArchiveReader, frame_bytes
from mdlzip.codec.fitting import Machine
from mdlzip.codec.models import chosen_model, load
from mdlzip.codec.units import split_unit, unit_decoder
from mdlzip.errors import CorruptArchive, IsFolder, MdlzipError, UsageError
from mdlzip.fileio import Metadata, checked_path, open_output, plain_errors
from mdlzip.limits import DEFAULT_MEMORY_BYTES
from mdlzip.resources import check_memory

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

    from mdlzip.quantised.unit_decoder import UnitDecoder

CACHED_GROUPS = 8
CACHED_BYTES = 1 << 23
BATCH_BYTES = 1 << 23  # groups of a long read are decoded together, this much at a time


class ArchiveFile:
    """An archive opened for random access; a context manager. Not for use by several threads.

    size: bytes of the original. No byte is given out before the checksum of its group or block was
    compared; only `mdlzip.test` compares that of the whole.
    """

    def __init__(self, file: BinaryIO, size: int, part: Part) -> None:
        self.size = size
        self._file = file
        self._part = part

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes of the original from `offset` on; fewer only where the original ends.

        Raises UsageError for negative arguments, CorruptArchive.
        """
        if offset < 0 or n < 0:
            raise UsageError(f"cannot read {n} bytes at offset {offset}")
        if self._file.closed:
            raise MdlzipError("the archive is closed")
        stop = min(offset + n, self.size)
        return b"".join(self._part.blocks(offset, stop)) if offset < stop else b""

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes start .. stop - 1 of the original, piece by piece; 0 <= start <= stop <= size."""
        return self._part.blocks(start, stop) if start < stop else iter(())

    def as_file(self) -> io.BufferedReader:
        """The original as a binary file to read and seek in; closing it closes the archive."""
        return io.BufferedReader(_RawArchive(self))

    def close(self) -> None:
        """Free the file; reading is over."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_archive(
    path: str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY_BYTES,
    allow_slow: bool = False,
    model: str | Path | None = None,
) -> ArchiveFile:
    """Open an archive for reading parts of the original.

    Learned archives decode only the groups that a read touches; zstd and xz ones run forward from
    where the last read ended, or from the start. model: as for `mdlzip.decompress`, which raises
    the same.
    """
    path = checked_path(path, "path")
    machine = Machine(device, threads, memory, allow_slow, model=chosen_model(model))
    with plain_errors(f"{path}: cannot open"):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsFolder(f"{path}: is a folder, not an archive")
        if not stat.S_ISREG(mode):  # not opened: that could wait for ever, as with a pipe
            raise UsageError(f"{path}: is not a regular file; random access needs one")
        file = path.open("rb")
    try:
        total = file.seek(0, io.SEEK_END)
        file.seek(0)
        return archive_in(file, total, machine)
    except BaseException:
        file.close()
        raise


def archive_in(file: BinaryIO, total: int, machine: Machine) -> ArchiveFile:
    """The archive that an open file of `total` bytes holds; to close it closes the file."""
    reader = ArchiveReader(file, total)
    body = reader.body
    part: Part
    if isinstance(body, General):
        part = body.part(file, reader, machine.memory)
    else:
        part = _Learned(file, reader, machine)
    return ArchiveFile(file, reader.header.size, part)


class _RawArchive(io.RawIOBase):
    """The original behind an `ArchiveFile`, as Python's io wants it."""

    def __init__(self, archive: ArchiveFile) -> None:
        self._archive, self._position = archive, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._archive.size}
        if whence not in base or base[whence] + offset < 0:
            raise ValueError(f"cannot seek to {offset} (whence {whence})")
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._archive.read(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._archive.close()
        super().close()


def copy_range(
    path: str | Path,
    start: int | None,
    stop: int | None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY_BYTES,
    allow_slow: bool = False,
    model: str | Path | None = None,
) -> tuple[int, int]:
    """Write bytes start .. stop - 1 of the original to standard output; returns both ends.

    None: the beginning, or the end; negative: counted from the end, as in slices. Raises UsageError
    if `start` lies behind the end, and what `open_archive` raises.
    """
    with open_archive(
        path, device=device, threads=threads, memory=memory, allow_slow=allow_slow, model=model
    ) as archive:
        size = archive.size
        if start is not None and start > size:
            raise UsageError(
                f"{path}: the range begins at {start:,}, the original has {size:,} bytes"
            )
        first, last, _ = slice(start, stop).indices(size)
        last = max(first, last)
        with open_output(None, force=True, seekable=False) as out:
            for block in archive.blocks(first, last):
                out.write(block)
            out.commit(Metadata())
    return first, last


def copy_lines(
    path: str | Path,
    first: int,
    last: int | None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY_BYTES,
    allow_slow: bool = False,
    model: str | Path | None = None,
) -> int:
    """Write lines `first` to `last` of the original, counted from 1, to standard output.

    last: None for the end. Lines end with a newline byte. There is no index of lines: all before
    them is decoded, little behind them. Returns how many lines there were. Raises UsageError if the
    original has fewer than `first`, and what `open_archive` raises.
    """
    with (
        open_archive(
            path, device=device, threads=threads, memory=memory, allow_slow=allow_slow, model=model
        ) as archive,
        open_output(None, force=True, seekable=False) as out,
    ):
        reached = 0
        for line, part in _lines(archive.blocks(0, archive.size), first, last):
            out.write(part)
            reached = line
        if not reached:
            raise UsageError(f"{path}: the original has no line {first:,}")
        out.commit(Metadata())
    return reached - first + 1


def _lines(blocks: Iterator[bytes], first: int, last: int | None) -> Iterator[tuple[int, bytes]]:
    """(Number of a line, a part of it) for the lines first .. last."""
    line = 1
    for block in blocks:
        ends = block.count(b"\n")
        if line + ends < first:
            line += ends
            continue
        for part in io.BytesIO(block):
            if line >= first:
                yield line, part
            line += part.endswith(b"\n")
            if last is not None and line > last:
                return


class _Learned:
    """Groups, decoded on demand, the latest few kept."""

    def __init__(self, file: BinaryIO, reader: ArchiveReader, machine: Machine) -> None:
        self._file = file
        self._reader = reader
        self._layout, self._units = reader.layout, reader.units
        self._network, self._fit = load(reader, machine)
        kept = CACHED_BYTES + BATCH_BYTES + reader.units.known_bytes()
        check_memory(self._fit.memory_bytes + kept, machine.memory)
        self._table, first = reader.jump_to_index()
        self._offsets = list(accumulate(map(frame_bytes, self._table.lengths), initial=first))
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._known: dict[int, bytes] = {}  # groups that others build on, kept for good
        self._learned = 0  # units that others build on and that were found right
        self._lost: CorruptArchive | None = None  # why the next of them cannot be had

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        width = self._layout.group_bytes
        groups = range(start // width, -(-stop // width))
        per_batch = max(1, BATCH_BYTES // width)
        for i in range(0, len(groups), per_batch):
            for group, plain in self._groups(groups[i : i + per_batch]):
                base = group * width
                yield plain[max(0, start - base) : stop - base]

    def _groups(self, groups: range) -> Iterator[tuple[int, bytes]]:
        """Decoded groups in order, from the cache where they are."""
        self._learn(max(map(self._units.unit_of, groups)))
        plain = {g: self._cache[g] for g in groups if g in self._cache}
        plain |= {g: self._known[g] for g in groups if g in self._known}
        coded = [(u, self._coded(u)) for g in groups if g not in plain for u in [self._unit(g)]]
        if coded:
            with closing(self._decoder.decode(coded)) as decoded:
                for unit, data in decoded:
                    self._check(unit, data)
                    plain[self._units.groups(unit)[0]] = data
        for group in groups:
            if group not in self._known:
                self._keep(group, plain[group])
            yield group, plain[group]

    def _learn(self, unit: int) -> None:
        """Decode what `unit` builds on, and itself if others do, unless that is done.

        A unit that was damaged has taught the decoder nonsense: no later one is tried again.
        """
        decoder = self._decoder
        missing = range(self._learned, min(decoder.needed_units, max(unit, 0) + 1))
        if not missing:
            return
        if self._lost:
            raise CorruptArchive(str(self._lost))
        try:
            with closing(decoder.decode((u, self._coded(u)) for u in missing)) as decoded:
                for number, data in decoded:
                    self._check(number, data)
                    self._known |= split_unit(self._units, self._units.groups(number), data)
                    self._learned += 1
        except CorruptArchive as error:
            self._lost = error
            raise

    def _unit(self, group: int) -> int:
        return self._units.unit_of(group)

    @cached_property
    def _decoder(self) -> UnitDecoder:
        return unit_decoder(self._network, self._reader, self._fit)

    def _check(self, unit: int, plain: bytes) -> None:
        if crc32(plain) != self._table.crcs[unit]:
            raise CorruptArchive(f"unit {unit}: decodes to other bytes than were compressed")

    def _coded(self, unit: int) -> bytes:
        length = self._table.lengths[unit]
        self._file.seek(self._offsets[unit])
        frame = Cursor(self._file.read(frame_bytes(length)), f"unit {unit}", self._offsets[unit])
        if frame.take(len(put_varint(length)), "length") != put_varint(length):
            raise CorruptArchive(f"unit {unit}: its length is not the one in the index")
        crc, coded = frame.u32("checksum"), bytes(frame.take(length, "coded data"))
        if crc32(coded) != crc:
            raise CorruptArchive(f"unit {unit}: checksum mismatch of its coded data")
        return coded

    def _keep(self, group: int, plain: bytes) -> None:
        self._cache[group] = plain
        self._cache.move_to_end(group)
        while len(self._cache) > 1 and (
            len(self._cache) > CACHED_GROUPS or sum(map(len, self._cache.values())) > CACHED_BYTES
        ):
            self._cache.popitem(last=False)
