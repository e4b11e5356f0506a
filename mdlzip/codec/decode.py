"""From an archive back to the bytes: decompress, test, and the pass that verifies."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from mdlzip.archive.bodies.general import General
from mdlzip.archive.header import Header
from mdlzip.archive.reader import ArchiveReader
from mdlzip.archive.sections import harmless_name
from mdlzip.callbacks import OnProgress
from mdlzip.codec.fitting import Machine
from mdlzip.codec.models import chosen_model, load
from mdlzip.codec.options import (
    SUFFIX,
    DecompressReport,
    no_progress,
)
from mdlzip.codec.units import decoded_blocks
from mdlzip.corpus import STDIN, is_standard_stream
from mdlzip.errors import CorruptArchive, IsFolder, UsageError
from mdlzip.fileio import (
    Metadata,
    check_apart,
    check_output,
    check_removable,
    checked_path,
    is_stream,
    open_descriptor,
    open_output,
    open_stream,
    plain_errors,
    remove_if_same,
    restored_mode,
)
from mdlzip.limits import DEFAULT_MEMORY_BYTES

Sink = Callable[[bytes], object]


def decompress(
    src: str | Path,
    dst: str | Path | None = None,
    *,
    force: bool = False,
    memory: int = DEFAULT_MEMORY_BYTES,
    device: str = "auto",
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    remove_source: bool = False,
    stored_name: bool = False,
    allow_slow: bool = False,
    model: str | Path | None = None,
    check_target: Callable[[Path], None] | None = None,
) -> DecompressReport:
    """Give the original back, with its owner, permissions and time.

    src: path or "-" (stdin); dst: path, "-" (stdout), or None for the name the archive tells
    (stdout if it comes from stdin). stored_name: take that name even if it is hidden, looks like
    an option or holds invisible characters. allow_slow: decode even what costs time out of
    proportion to its size, see docs/security.md. model: the model file that the archive names, or
    what it is called in the model folder; None to look for it there. check_target: called with the
    output's path before anything is written; what it raises passes. Raises CorruptArchive,
    UnsupportedVersion, MissingModel, LimitExceeded, OutputExists, UsageError, MdlzipError.
    """
    began = time.monotonic()
    if dst is not None:
        checked_path(dst, "dst")
    machine = Machine(device, threads, memory, allow_slow, model=chosen_model(model))
    with open_source(src) as (file, total):
        opened = os.fstat(file.fileno()) if total is not None else None
        reader = ArchiveReader(file, total)
        target = _target(src, dst, reader.name, trusted=stored_name)
        source = None if is_standard_stream(src) else Path(src)
        if remove_source:
            if source is None or target is None or is_stream(target) or opened is None:
                raise UsageError("the archive is only removed if it and the output are files")
            check_removable(source)
        if target:
            check_output(target, source=source, force=force)
            check_apart([target], [] if machine.model is None else [machine.model])
            if check_target is not None:
                check_target(target)
        with open_output(target, force=force, seekable=False, sparse=True) as out:
            decode_archive(reader, out.write, machine, on_progress or no_progress)
            header = reader.header
            out.commit(metadata_of(header, opened))
        if remove_source and source and opened:
            remove_if_same(source, opened)
    seconds = time.monotonic() - began
    return DecompressReport(str(src), target, reader.body.label, header.size, seconds)


def metadata_of(header: Header, archive: os.stat_result | None) -> Metadata:
    """Time of the original, owner and group of the archive, permissions that neither forbids."""
    if not header.has_metadata:
        return Metadata()
    if archive is None:
        return Metadata(restored_mode(header.mode, None), header.mtime_ns)
    mode = restored_mode(header.mode, stat.S_IMODE(archive.st_mode))
    return Metadata(mode, header.mtime_ns, archive.st_uid, archive.st_gid)


def test(
    src: str | Path,
    *,
    memory: int = DEFAULT_MEMORY_BYTES,
    device: str = "auto",
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    allow_slow: bool = False,
    model: str | Path | None = None,
) -> None:
    """Decode the whole archive and throw the bytes away; raises what `decompress` would."""
    machine = Machine(device, threads, memory, allow_slow, model=chosen_model(model))
    with open_source(src) as (file, total):
        reader = ArchiveReader(file, total)
        decode_archive(reader, lambda block: None, machine, on_progress or no_progress)


@contextlib.contextmanager
def open_source(src: str | Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """The archive as a binary file, and its size if it is a regular file that tells it."""
    path = checked_path(src, "src")
    if str(src) == STDIN:
        yield sys.stdin.buffer, None
        return
    with plain_errors(f"{path}: cannot open"):
        if path.is_dir():
            raise IsFolder(f"{path}: is a folder, not an archive")
        file = open_stream(path)
    with file:
        status = os.fstat(file.fileno())
        regular = stat.S_ISREG(status.st_mode) and open_descriptor(path) is None
        yield file, status.st_size if regular and status.st_size else None


def decode_archive(
    reader: ArchiveReader,
    sink: Sink,
    machine: Machine,
    progress: OnProgress,
    phase: str = "decode",
) -> Header:
    """Feed the original to `sink` in order and check every checksum of the archive.

    The reader must be fresh. When this returns, the digest of what was fed to `sink` is the
    archive's; on CorruptArchive whatever `sink` got is worthless.
    """
    body = reader.body
    if isinstance(body, General):
        blocks = body.content(reader, machine.memory)
    else:
        blocks = learned_blocks(reader, machine)
    hasher, done, size = sha256(), 0, reader.header.size
    # Closed at once, whatever happens: threads that work ahead must not outlive their reader.
    with closing(blocks), plain_errors("cannot read the archive"):
        for block in blocks:
            hasher.update(block)
            sink(block)
            done += len(block)
            progress(phase, done, size, "")
    if hasher.digest() != reader.digest:
        raise CorruptArchive("footer: SHA-256 of the decoded bytes differs from the stored one")
    return reader.header


def learned_blocks(reader: ArchiveReader, machine: Machine) -> Generator[bytes]:
    """Decoded bytes in order, see `decoded_blocks`."""
    network, fit = load(reader, machine)
    yield from decoded_blocks(reader, network, fit)


def _target(
    src: str | Path, dst: str | Path | None, name: str | None, *, trusted: bool
) -> Path | None:
    """Where the original goes; None for stdout."""
    if dst is not None:
        return None if str(dst) == STDIN else Path(dst)
    if is_standard_stream(src):
        return None
    path = Path(src)
    if name is not None and (trusted or harmless_name(name)) and _encodable(name):
        return path.with_name(name)
    if path.name.endswith(SUFFIX) and path.name != SUFFIX:
        return path.with_name(path.name.removesuffix(SUFFIX))
    if name is None:
        raise UsageError(f"{path}: the name does not end in {SUFFIX}; give the output's with -o")
    raise UsageError(
        f"{path}: holds the name {name!r}, which is not taken unasked; give the output's with -o,"
        " or -N for that one"
    )


def _encodable(name: str) -> bool:
    """Whether the system's encoding of file names has all characters of `name`."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
