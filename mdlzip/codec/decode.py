"""From an archive back to the bytes: decompress, test, and the pass that verifies."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from zlib import crc32

from mdlzip.archive.general import content
from mdlzip.archive.header import Header, Method
from mdlzip.archive.reader import ArchiveReader
from mdlzip.chunks import Layout
from mdlzip.codec.fitting import Fit, Machine, load
from mdlzip.codec.options import SUFFIX, DecompressReport, Progress, no_progress
from mdlzip.corpus import STDIN
from mdlzip.errors import CorruptArchive, ExportRefused, MdlzipError, UsageError
from mdlzip.fileio import check_output, is_stream, open_output, plain_errors
from mdlzip.limits import DEFAULT_MEMORY_BYTES
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.resources import check_process, resident_bytes, torch_is_loaded

if TYPE_CHECKING:
    from mdlzip.quantised.groups import GroupDecoder

Sink = Callable[[bytes], object]


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
    allow_slow: bool = False,
) -> DecompressReport:
    """Give the original back, with its permissions and time.

    src: path or "-" (stdin); dst: path, "-" (stdout), or None for the name the archive tells
    (stdout if it comes from stdin). allow_slow: decode even what costs time out of proportion to
    its size, see docs/security.md. Raises CorruptArchive, UnsupportedVersion, LimitExceeded,
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
            machine = Machine(device, threads, memory, allow_slow)
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
    allow_slow: bool = False,
) -> None:
    """Decode the whole archive and throw the bytes away; raises what `decompress` would."""
    with open_source(src) as (file, total):
        reader = ArchiveReader(file, total)
        machine = Machine(device, threads, memory, allow_slow)
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
        blocks = content(reader, machine.memory)
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
    """Decoded groups in order, each checked against the index.

    On a file the container is checked from end to end before the first group is decoded, since
    decoding may take hours; on a pipe the index comes last and so does its check.
    """
    network, fit = load(reader, machine)
    known = reader.scan().crcs if reader.total is not None else None
    frames = reader.frames()
    crcs = array("I")
    with closing(group_decoder(network, reader.layout, fit).decode(frames)) as groups:
        for group, plain in groups:
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


def group_decoder(network: IntegerNetwork, layout: Layout, fit: Fit) -> GroupDecoder:
    """What decodes groups of the archive; CorruptArchive if no encoder made such a network."""
    loaded, before = torch_is_loaded(), resident_bytes()
    from mdlzip.quantised.groups import GroupDecoder

    machine = fit.machine
    device = pick_device(machine.device)
    now = resident_bytes()
    if not loaded and before and now:
        check_process(fit.memory_bytes, machine.memory, before, now)
    try:
        return GroupDecoder(
            network,
            layout,
            device=device,
            threads=machine.threads,
            tile_chunks=machine.tile_chunks,
        )
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
