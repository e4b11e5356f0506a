from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mdlzip.corpus import open_corpus
from mdlzip.errors import MdlzipError, UsageError


@pytest.mark.parametrize("n", [0, 1, 511, 512, 513, (1 << 20) + 7])
def test_data_are_the_files_bytes(tmp_path: Path, n: int) -> None:
    data = np.random.default_rng(n).bytes(n)
    (tmp_path / "f").write_bytes(data)
    with open_corpus(tmp_path / "f") as corpus:
        assert corpus.size == n
        assert corpus.read(0, n).dtype == np.uint8
        assert corpus.read(0, n).tobytes() == data
        assert corpus.read(n // 3, n // 2).tobytes() == data[n // 3 : n // 2]
        assert b"".join(corpus.blocks()) == data


def test_metadata(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    path.chmod(0o4750)
    os.utime(path, ns=(7, 1_600_000_000_000_000_001))
    with open_corpus(str(path)) as corpus:
        assert corpus.name == "f"
        assert corpus.mode == 0o750
        assert corpus.mtime_ns == 1_600_000_000_000_000_001


def test_stdin_is_spooled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"piped")))
    with open_corpus("-") as corpus:
        assert corpus.read(0, corpus.size).tobytes() == b"piped"
        assert corpus.name is None
        assert corpus.mode is None


def test_named_pipe_is_spooled(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(b"z" * 3_000_000))
    writer.start()
    with open_corpus(fifo) as corpus:
        assert corpus.size == 3_000_000
    writer.join(10)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tar"):
        open_corpus(tmp_path)
    with pytest.raises(UsageError, match="regular file"):
        open_corpus("/dev/zero")
    with pytest.raises(MdlzipError, match="no such file"):
        open_corpus(tmp_path / "missing")


def test_a_change_while_working_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    with open_corpus(path) as corpus:
        corpus.check_unchanged()
        with path.open("ab") as file:
            file.write(b"d")
        with pytest.raises(MdlzipError, match="changed"):
            corpus.check_unchanged()


def test_a_file_cut_short_while_it_is_read_is_an_error_and_no_signal(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3 << 20))
    with open_corpus(path) as corpus:
        blocks = corpus.blocks()
        assert len(next(blocks)) == 1 << 20
        os.truncate(path, (1 << 20) + 5)
        with pytest.raises(MdlzipError, match="f: changed while it was being compressed"):
            list(blocks)


def test_only_the_very_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    with open_corpus(path) as corpus:
        (tmp_path / "g").write_bytes(b"new")
        (tmp_path / "g").replace(path)
        with pytest.raises(MdlzipError, match="replaced"):
            corpus.remove_source()
    assert path.read_bytes() == b"new"
    with open_corpus(path) as corpus:
        corpus.remove_source()
    assert not path.exists()
