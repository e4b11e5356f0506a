"""From an archive back to the bytes: decompress, test, and the pass that verifies."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from mdlzip.archive.header import Header, Method
from mdlzip.archive.payload import check_memory
from mdlzip.archive.reader import ArchiveReader
from mdlzip.chunks import Layout
from mdlzip.codec.options import SUFFIX, DecompressReport, Progress, no_progress
from mdlzip.corpus import STDIN
from mdlzip.errors import CorruptArchive, ExportRefused, MdlzipError, UsageError
from mdlzip.fileio import check_output, is_stream, open_output, plain_errors
from mdlzip.limits import DEFAULT_MEMORY_BYTES
from mdlzip.process.cores import thread_count
from mdlzip.quantised.network import IntegerNetwork

Sink = Callable[[bytes], object]


@dataclass(frozen=True)
class Machine:
    """Where and with how much decoding may run; memory: bytes, None for no limit."""

    device: str = "auto"
    threads: int | None = None
    memory: int | None = DEFAULT_MEMORY_BYTES


def decompress(
    src: str | Path,
    dst: str | Path | None = None,
    *,
    force: bool = False,
    memory: int = DEFAULT_MEMORY_BYTES,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Progress | None = None,
    remove_source: bool = False,
) -> DecompressReport:
    """Give the original back, with its permissions and time.

    src: path or "-" (stdin); dst: path, "-" (stdout), or None for the name the archive tells
    (stdout if it comes from stdin). Raises CorruptArchive, UnsupportedVersion, LimitExceeded,
    OutputExists, UsageError, MdlzipError.
    """
    began = time.monotonic()
    with open_source(src) as (file, total):
        reader = ArchiveReader(file, total)
        target = _target(src, dst, reader.name)
        source = None if str(src) == STDIN else Path(src)
        if remove_source and (source is None or target is None or is_stream(target)):
            raise UsageError("the archive is only removed if it and the output are files")
        if target:
            check_output(target, source=source, force=force)
        with open_output(target, force=force, seekable=False) as out:
            machine = Machine(device, threads, memory)
            decode_archive(reader, out.write, machine, on_progress or no_progress)
            header = reader.header
            known = header.has_metadata
            out.commit(header.mode if known else None, header.mtime_ns if known else None)
        if remove_source and source:
            _remove_archive(source, file)
    seconds = time.monotonic() - began
    return DecompressReport(str(src), target, header.method.label, header.size, seconds)


def test(
    src: str | Path,
    *,
    memory: int = DEFAULT_MEMORY_BYTES,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Decode the whole archive and throw the bytes away; raises what `decompress` would."""
    with open_source(src) as (file, total):
        reader = ArchiveReader(file, total)
        machine = Machine(device, threads, memory)
        decode_archive(reader, lambda block: None, machine, on_progress or no_progress)


@contextlib.contextmanager
def open_source(src: str | Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """The archive as a binary file, and its size if it is a regular file."""
    if str(src) == STDIN:
        yield sys.stdin.buffer, None
        return
    path = Path(src)
    with plain_errors(f"{path}: cannot open"):
        if path.is_dir():
            raise UsageError(f"{path}: is a folder, not an archive")
        file = path.open("rb")
    with file:
        status = os.fstat(file.fileno())
        yield file, status.st_size if stat.S_ISREG(status.st_mode) else None


def decode_archive(
    reader: ArchiveReader,
    sink: Sink,
    machine: Machine,
    progress: Progress,
    phase: str = "decode",
) -> Header:
    """Feed the original to `sink` in order and check every checksum of the archive.

    The reader must be fresh. When this returns, the digest of what was fed to `sink` is the
    archive's; on CorruptArchive whatever `sink` got is worthless.
    """
    if reader.header.method is Method.LEARNED:
        blocks = learned_blocks(reader, machine)
    else:
        blocks = reader.content(machine.memory)
    hasher, done, size = sha256(), 0, reader.header.size
    with plain_errors("cannot read the archive"):
        for block in blocks:
            hasher.update(block)
            sink(block)
            done += len(block)
            progress(phase, done, size, "")
    if hasher.digest() != reader.digest:
        raise CorruptArchive("footer: SHA-256 of the decoded bytes differs from the stored one")
    return reader.header


def learned_blocks(reader: ArchiveReader, machine: Machine) -> Iterator[bytes]:
    """Decoded groups in order, each checked against the index.

    On a file the container is checked from end to end before the first group is decoded, since
    decoding may take hours; on a pipe the index comes last and so does its check.
    """
    machine = fitted(reader, machine)
    known = reader.scan().crcs if reader.total is not None else None
    network = unpack(reader)
    frames = reader.frames()
    crcs = array("I")
    for group, plain in decoded_groups(network, reader.layout, frames, machine):
        start, stop = reader.layout.group_span(len(crcs))
        if group != len(crcs) or len(plain) != stop - start:
            raise MdlzipError(f"internal error: group {group} decoded to {len(plain)} bytes")
        crcs.append(crc32(plain))
        if known is not None:
            _check_groups(crcs[-1:], known[group : group + 1], group)
        yield plain
    if len(crcs) != reader.layout.n_groups or any(True for _ in frames):
        raise MdlzipError(f"internal error: {len(crcs)} groups decoded")
    _check_groups(crcs, reader.finish().crcs, 0)


def decoded_groups(
    network: IntegerNetwork,
    layout: Layout,
    coded: Iterable[tuple[int, bytes]],
    machine: Machine,
) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each coded group; CorruptArchive if no encoder made such a network."""
    from mdlzip.quantised.groups import decode_groups

    device = pick_device(machine.device)
    try:
        yield from decode_groups(network, layout, coded, device=device, threads=machine.threads)
    except ExportRefused as error:
        raise CorruptArchive(f"weights section: {error}") from error


def pick_device(name: str) -> str:
    """A device to code on: "auto" is the GPU if there is one; UsageError for an unknown one."""
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["not available"])[0]
        raise UsageError(f"device {name}: {reason}") from None
    return name


def _check_groups(found: array[int], expected: array[int], first: int) -> None:
    if found == expected:
        return
    bad = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    raise CorruptArchive(
        f"group {first + bad}: decodes to other bytes than were compressed;"
        " the archive is damaged or was made by a program that predicts differently"
    )


def unpack(reader: ArchiveReader) -> IntegerNetwork:
    """The network of a learned archive whose reader stands before the weights."""
    from mdlzip.archive.weights import unpack_weights

    try:
        return unpack_weights(reader.weights(), reader.config)
    except ExportRefused as error:
        raise CorruptArchive(f"weights section: {error}") from error


def fitted(reader: ArchiveReader, machine: Machine) -> Machine:
    """The machine with as many of its threads as the memory limit has room for.

    Raises LimitExceeded if not even one has. Looks at the headers alone.
    """
    threads = thread_count(machine.threads)
    while threads > 1 and predicted_memory(reader, threads) > (machine.memory or sys.maxsize):
        threads -= 1
    check_memory(predicted_memory(reader, threads), machine.memory)
    return replace(machine, threads=threads)


def predicted_memory(reader: ArchiveReader, threads: int | None = None) -> int:
    """Bytes that decoding will need at its peak with `threads` (None: one per usable core)."""
    from mdlzip.quantised.memory import decode_memory_bytes

    return int(decode_memory_bytes(reader.config, reader.layout, thread_count(threads)))


def _target(src: str | Path, dst: str | Path | None, name: str | None) -> Path | None:
    """Where the original goes; None for stdout."""
    if dst is not None:
        return None if str(dst) == STDIN else Path(dst)
    if str(src) == STDIN:
        return None
    path = Path(src)
    if name is not None:
        return path.with_name(name)
    if path.name.endswith(SUFFIX) and path.name != SUFFIX:
        return path.with_name(path.name.removesuffix(SUFFIX))
    raise UsageError(f"{path}: the name does not end in {SUFFIX}; give the output's with -o")


def _remove_archive(path: Path, file: BinaryIO) -> None:
    with plain_errors(f"{path}: cannot remove"):
        now, opened = os.stat(path), os.fstat(file.fileno())
        if (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino):
            raise MdlzipError(f"{path}: was replaced meanwhile, so it is not removed")
        path.unlink()
