"""Many files as one set to train on, and a part of them that training never sees."""

from __future__ import annotations

import glob
import os
import stat
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from mdlzip.codec.records import MAX_RECORD_BYTES
from mdlzip.corpus import Corpus, corpus_in
from mdlzip.errors import UsageError
from mdlzip.fileio import check_apart, is_same, open_stream, plain_errors, temporary_folder
from mdlzip.limits import READ_BLOCK_BYTES

_BLOCK_BYTES = 1 << 16  # held out together, where files are few
_FEW = 2  # files for each that is held out


@dataclass
class TrainingSet:
    """A context manager.

    seen: what to train on; held_out: what not. seen_ends, held_out_ends: int64, where their records
    end; None where files are not cut into records. n_files, n_records: all of them together.
    """

    seen: Corpus
    held_out: Corpus
    seen_ends: np.ndarray | None
    held_out_ends: np.ndarray | None
    n_files: int
    n_records: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for corpus in (self.seen, self.held_out):
            corpus.__exit__(*exc)


def gather(
    sources: Sequence[str | Path],
    *,
    lines: bool,
    held_out: float,
    without: Sequence[Path] = (),
) -> TrainingSet:
    """Read files, folders with all that is below them, and patterns such as "logs/*.json".

    lines: each line is a record, its newline included; empty ones are left out. held_out: about
    this share of the files (of the lines; of pieces of 64 KiB where files are few) is held out.
    without: outputs, which are left out where a folder or pattern holds them. Raises UsageError if
    there is nothing to train on or an output is named as a source, MdlzipError.
    """
    files = list(_files(sources, without))
    every = round(1 / held_out) if held_out else 0
    parts = _lines(files) if lines else _blocks(files, every)
    with ExitStack() as stack:
        copies = [stack.enter_context(_copy()) for _ in range(2)]
        ends = array("q"), array("q")
        sizes = [0, 0]
        n_parts = 0
        for number, part in parts:
            held = every > 0 and number % every == every - 1
            with plain_errors(f"cannot keep the sources in {temporary_folder()}"):
                copies[held].write(part)
            sizes[held] += len(part)
            if lines:
                ends[held].append(sizes[held])
            n_parts += 1
        if not sizes[0]:
            raise UsageError(f"there is nothing to train on in {', '.join(map(str, sources))}")
        seen, kept = (corpus_in(copy, "sources") for copy in copies)
        stack.pop_all()
    cut = [np.array(e, np.int64) if lines else None for e in ends]
    return TrainingSet(seen, kept, cut[0], cut[1], len(files), n_parts if lines else 0)


def _copy() -> BinaryIO:
    with plain_errors(f"cannot make a temporary file in {temporary_folder()}"):
        return tempfile.TemporaryFile()


def _files(sources: Sequence[str | Path], without: Sequence[Path]) -> Iterator[Path]:
    """Each file once, in the order of the sources, those of a folder by name."""
    seen: set[tuple[int, int]] = set()
    for source in sources:
        for path in _expanded(source, without):
            check_apart(without, [path])
            with plain_errors(f"{path}: cannot read"):
                status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path}: is not a regular file")
            if (key := (status.st_dev, status.st_ino)) not in seen:
                seen.add(key)
                yield path


def _expanded(source: str | Path, without: Sequence[Path]) -> Iterable[Path]:
    path = Path(source)
    if not str(source):
        raise UsageError("the name of a file or folder is empty")
    if path.is_dir():
        return _below(path, without)
    if not path.exists() and glob.has_magic(str(source)):
        found = sorted(glob.glob(str(source), recursive=True))
        if not found:
            raise UsageError(f"{source}: no file has a name like this")
        paths = [path for path in map(Path, found) if not _is_one_of(path, without)]
        return [f for p in paths for f in (_below(p, without) if p.is_dir() else [p])]
    return [path]


def _is_one_of(path: Path, others: Sequence[Path]) -> bool:
    return any(is_same(path, other) for other in others)


def _below(folder: Path, without: Sequence[Path]) -> list[Path]:
    """All regular files in a folder and those in it; links are not followed."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not _is_one_of(Path(place, f), without))
        paths = [Path(place, name) for name in sorted(names)]
        regular = [path for path in paths if stat.S_ISREG(path.lstat().st_mode)]
        found += [path for path in regular if not _is_one_of(path, without)]
    return found


def _lines(files: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    """(Number, line) of all lines that are not empty; a longer one than a record may be is cut."""
    number = 0
    for path in files:
        with plain_errors(f"{path}: cannot read"), open_stream(path) as file:
            while line := file.readline(MAX_RECORD_BYTES - 1):
                if line != b"\n":
                    yield number, line if line.endswith(b"\n") else line + b"\n"
                    number += 1


def _blocks(files: Sequence[Path], every: int) -> Iterator[tuple[int, bytes]]:
    """(Number, bytes); what has the same number is held out together or not at all."""
    by_file = len(files) >= _FEW * every
    number = 0
    for index, path in enumerate(files):
        with plain_errors(f"{path}: cannot read"), open_stream(path) as file:
            while block := file.read(READ_BLOCK_BYTES if by_file else _BLOCK_BYTES):
                yield (index if by_file else number), block
                number += 1
