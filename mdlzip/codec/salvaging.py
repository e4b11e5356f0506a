"""From a damaged archive to what can be had of it, and which bytes that is not."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from mdlzip.archive.bodies import body_of
from mdlzip.archive.header import Header, unpack_header
from mdlzip.archive.pieces import Piece
from mdlzip.archive.rescue import Copy
from mdlzip.archive.sections import Kind
from mdlzip.callbacks import OnProgress
from mdlzip.codec.decode import metadata_of, open_source
from mdlzip.codec.fitting import Machine
from mdlzip.codec.models import chosen_model
from mdlzip.codec.options import SUFFIX, Damage, SalvageReport, no_progress
from mdlzip.codec.pieces import REMEDY, pieces
from mdlzip.corpus import STDIN
from mdlzip.errors import CorruptArchive, UsageError
from mdlzip.fileio import Output, check_output, checked_path, open_output, plain_errors
from mdlzip.limits import DEFAULT_MEMORY_BYTES, READ_BLOCK_BYTES

SALVAGED = ".salvaged"  # ends the name of an output that nobody named


def salvage(
    src: str | Path,
    dst: str | Path | None = None,
    *,
    skip_damaged: bool = False,
    from_copy: str | Path | None = None,
    force: bool = False,
    memory: int = DEFAULT_MEMORY_BYTES,
    device: str = "auto",
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    allow_slow: bool = False,
    model: str | Path | None = None,
    check_target: Callable[[Path], None] | None = None,
) -> SalvageReport:
    """Write every undamaged part of the original; single flipped bits are put right.

    dst: path, "-" (stdout), or None for the archive's name without ".mdlz" and with ".salvaged":
    never the name of the original. Lost bytes are zeros, or with skip_damaged left out. from_copy:
    a second copy of the same archive, for parts that are damaged here. The output appears whole
    with what could be had, and only if that is anything. Raises CorruptArchive if nothing can be
    had, UsageError, LimitExceeded, OutputExists, MdlzipError. model: as for `decompress`.
    """
    began = time.monotonic()
    if dst is not None:
        checked_path(dst, "dst")
    machine = Machine(device, threads, memory, allow_slow, model=chosen_model(model))
    with ExitStack() as stack, plain_errors("cannot read the archive"):
        copies, opened = [], None
        for path in (src, *([] if from_copy is None else [from_copy])):
            file, total = stack.enter_context(open_source(path))
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and not status.st_size:
                raise CorruptArchive(f"{path}: is empty")
            if total is None:
                raise UsageError(f"{path}: --salvage reads a regular file, not a stream")
            opened = opened or status
            copies.append(Copy(file, memory))
        for copy in copies:
            copy.look_at(set().union(*(other.places for other in copies)))
        header = _header(copies, from_copy)
        target = _target(src, dst)
        if target is not None:
            for source in (src, from_copy, machine.model):
                if source is not None:
                    check_output(target, source=Path(source), force=force)
            if check_target is not None:
                check_target(target)
        with open_output(target, force=force, seekable=False, sparse=True) as out:
            writer = _Writer(out, header.size, on_progress or no_progress, skip=skip_damaged)
            for piece in pieces(copies, header, machine):
                writer.take(piece)
            verified = writer.finish([copy.digest for copy in copies])
            out.commit(metadata_of(header, opened))
    return SalvageReport(
        str(src),
        target,
        body_of(header.method).label,
        header.size,
        time.monotonic() - began,
        verified,
        () if verified else tuple(writer.damage),
        tuple(_repaired(copies[0])),
    )


def _header(copies: list[Copy], from_copy: str | Path | None) -> Header:
    """The header of the first copy that has one; UsageError if two are of different archives."""
    headers = [copy.header for copy in copies if copy.header is not None]
    if not headers:
        raise CorruptArchive(f"header: damaged beyond repair, or this is no archive; {REMEDY}")
    if headers[0] != headers[-1]:
        raise UsageError(f"{from_copy}: is not a copy of the same archive: its header differs")
    return unpack_header(headers[0])


def _target(src: str | Path, dst: str | Path | None) -> Path | None:
    if dst is not None:
        return None if str(dst) == STDIN else Path(dst)
    path = Path(src)
    return path.with_name(path.name.removesuffix(SUFFIX) + SALVAGED)


def _repaired(copy: Copy) -> Iterator[str]:
    if copy.header_repaired:
        yield "header"
    for kind, section in copy.sections.items():
        if section.repaired and kind in list(Kind):
            yield Kind(kind).name.lower()


class _Writer:
    """Takes pieces in order; zeros for lost ones are held back until something follows."""

    def __init__(self, out: Output, size: int, progress: OnProgress, *, skip: bool) -> None:
        self._out, self._size, self._progress, self._skip = out, size, progress, skip
        self._hash, self._gap, self._any = sha256(), 0, size == 0
        self.damage: list[Damage] = []

    def take(self, piece: Piece) -> None:
        """Write the next piece of the original."""
        stop = piece.start + piece.size
        if piece.data is None or not piece.sure:
            self._note(Damage(piece.start, stop, piece.data is None))
        if piece.data is None:
            self._gap += piece.size
        else:
            self._fill()
            self._hash.update(piece.data)
            self._out.write(piece.data)
            self._any = True
        self._progress("decode", stop, self._size, "")

    def _note(self, new: Damage) -> None:
        last = self.damage[-1] if self.damage else None
        if last and (last.stop, last.lost) == (new.start, new.lost):
            self.damage[-1] = Damage(last.start, new.stop, new.lost)
        else:
            self.damage.append(new)

    def _fill(self) -> None:
        while self._gap and not self._skip:
            n = min(self._gap, READ_BLOCK_BYTES)
            self._out.write(bytes(n))
            self._gap -= n
        self._gap = 0

    def finish(self, digests: list[bytes]) -> bool:
        """Whether all is there and right; CorruptArchive if nothing is."""
        if not self._any:
            raise CorruptArchive(f"no part of the original could be recovered; {REMEDY}")
        self._fill()
        return not any(d.lost for d in self.damage) and self._hash.digest() in digests
