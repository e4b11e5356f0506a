"""The passes over a file before training: what they find, their memory, what may go wrong."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from mdlzip.errors import Interrupted, MdlzipError
from mdlzip.symbols.column import Column
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import learn_merges, sample_of
from mdlzip.symbols.survey import present_in, take_survey
from mdlzip.symbols.tokenise import UNIT_BYTES, cut_group, tokenise
from mdlzip.symbols.tokens import Tokens, prepare
from mdlzip.symbols.vocabulary import Vocabulary, all_bytes
from mdlzip.training import data as training_data
from mdlzip.training.data import Batches
from tests.conftest import ROOT, cli_environment
from tests.symbol_tools import Held, expand, tokens_of

TEXT = np.frombuffer((ROOT / "docs" / "format.md").read_bytes(), np.uint8).copy()
STRINGS = Vocabulary(all_bytes(), learn_merges(TEXT, 100, 4, 1.0, 16))


def everything(tokens: Tokens) -> str:
    """A digest of all that is kept."""
    hasher = sha256()
    for group in range(tokens.layout.n_groups):
        symbols, ends = tokens.group(group)
        hasher.update(symbols.tobytes() + ends.tobytes() + bytes([tokens.crc32(group) & 255]))
    return hasher.hexdigest()


@pytest.mark.parametrize("vocabulary", [Vocabulary(), STRINGS], ids=["bytes", "strings"])
@pytest.mark.parametrize(
    ("n", "chunk_size", "group_chunks"),
    [
        (0, 64, 4), (1, 64, 4), (2, 64, 1), (64, 64, 1), (255, 64, 4), (256, 64, 4),
        (257, 64, 4), (30_000, 512, 128), (30_000, 33, 1), (3 * UNIT_BYTES + 77, 512, 4096),
        (6 * UNIT_BYTES, 500, 1100), (5 * UNIT_BYTES + 1, 16384, 16),
    ],
)  # fmt: skip
def test_every_group_is_there(
    vocabulary: Vocabulary, n: int, chunk_size: int, group_chunks: int
) -> None:
    data, layout = np.resize(TEXT, n), Layout(n, chunk_size, group_chunks)
    with tokens_of(data, layout, vocabulary) as tokens:
        n_symbols = n_chunks = 0
        for group in range(layout.n_groups):
            part = data[slice(*layout.group_span(group))]
            symbols, ends = tokens.group(group)
            expected, expected_ends = cut_group(vocabulary, part, chunk_size)
            assert symbols.dtype == np.int16 and np.array_equal(symbols, expected)
            assert np.array_equal(ends, expected_ends)
            assert tokens.crc32(group) == crc32(part.tobytes())
            n_symbols, n_chunks = n_symbols + len(symbols), n_chunks + len(ends)
        assert (tokens.n_symbols, tokens.n_chunks) == (n_symbols, n_chunks)
        spans = tokens.chunks.read(0, n_chunks)
        assert all(a["stop"] == b["start"] for a, b in pairwise(spans))
        whole = tokens.rows(spans["start"][:1], spans["stop"][-1:]) if n else np.zeros((1, 0), int)
        assert n > 100_000 or expand(vocabulary, whole[0]) == data.tobytes()


def test_threads_change_nothing() -> None:
    data, layout = np.resize(TEXT, 9 * UNIT_BYTES + 11), Layout(9 * UNIT_BYTES + 11, 512, 64)
    found = set()
    for threads in (1, 2, 7):
        with prepare(Held(data), layout, STRINGS, None, threads=threads) as tokens:
            found.add(everything(tokens))
    assert len(found) == 1


def test_the_survey_is_one_pass() -> None:
    reads: list[tuple[int, int]] = []

    class Watched(Held):
        def read(self, start: int, stop: int) -> np.ndarray:
            reads.append((start, stop))
            return super().read(start, stop)

    data = np.concatenate([np.resize(TEXT, 2 << 20), np.array([200, 7], np.uint8)])
    survey = take_survey(Watched(data))
    assert survey.digest == sha256(data.tobytes()).digest()
    assert np.array_equal(survey.present, np.bincount(data, minlength=256) > 0)
    assert np.array_equal(survey.present, present_in(data.tobytes()))
    assert reads == [(0, 1 << 20), (1 << 20, 2 << 20), (2 << 20, (2 << 20) + 2)]
    reads.clear()
    prepare(Watched(data), Layout(len(data), 512, 128), STRINGS, None, threads=2).close()
    reads.sort()
    assert reads[0][0] == 0 and reads[-1][1] == len(data)
    assert all(a[1] == b[0] for a, b in pairwise(reads))


HOSTILE = {
    "zeros": np.zeros(1 << 18, np.uint8),
    "alternating": np.tile(np.array([7, 9], np.uint8), 1 << 17),
    "runs": np.repeat(np.arange(64, dtype=np.uint8), 1 << 12),
    "ends of runs": np.tile(np.append(np.zeros(4095, np.uint8), 1), 1 << 6).astype(np.uint8),
    "noise of two": np.random.default_rng(0).integers(0, 2, 1 << 18, np.uint8),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_input_takes_much_longer_than_text(name: str) -> None:
    """Quadratic work would take thousands of times as long."""
    text = np.resize(TEXT, 1 << 18)

    def seconds(data: np.ndarray) -> float:
        began = time.thread_time()
        merges = learn_merges(data, 200, 2, 0.0, 255)
        tokenise(Vocabulary(all_bytes(), merges), data)
        return time.thread_time() - began

    seconds(text[:1000])
    assert min(seconds(HOSTILE[name]) for _ in range(2)) < 10 * seconds(text)


def test_the_sample_is_of_the_whole_file_and_its_size_is_bounded() -> None:
    data = np.repeat(np.arange(8, dtype=np.uint8), 1 << 20)
    sample = sample_of(Held(data))
    assert len(sample) == 2 << 20 and sample[0] == 0 and sample[-1] == 7
    assert len(sample_of(Held(data[:1000]))) == 1000
    # Ten in the sample are forty in the file.
    few = np.tile(np.frombuffer(b"ab.", np.uint8), 10)
    assert len(learn_merges(few, 9, 40, 0.0, 2, 4 * len(few))) > 0
    assert len(learn_merges(few, 9, 40, 0.0, 2)) == 0


def test_nothing_is_left_in_the_folder_and_a_stop_ends_the_work(tmp_path: Path) -> None:
    data, layout = np.resize(TEXT, 5 << 20), Layout(5 << 20, 512, 128)
    with prepare(Held(data), layout, STRINGS, tmp_path) as tokens:
        assert tokens.n_symbols > 1 << 20
        assert not os.listdir(tmp_path)
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        prepare(Held(data), layout, STRINGS, tmp_path, on_block=stop)
    assert seen == [(1 << 20, 5 << 20)]
    with pytest.raises(MdlzipError, match=r"missing: cannot keep the symbols of the input"):
        prepare(Held(data), layout, STRINGS, tmp_path / "missing")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    data, layout = np.resize(TEXT, 3 << 20), Layout(3 << 20, 512, 128)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(MdlzipError, match=r"cannot keep the symbols .* the size limit"):
            prepare(Held(data), layout, STRINGS, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_column_gives_back_what_was_appended(tmp_path: Path) -> None:
    column = Column(tmp_path, np.dtype([("a", "i8"), ("b", "u1")]))
    values = np.zeros(1000, column.dtype)
    values["a"], values["b"] = np.arange(1000) - 500, np.arange(1000) % 251
    for part in np.array_split(values, 7):
        column.append(part)
    column.flush()
    assert len(column) == 1000
    assert np.array_equal(column.read(3, 990), values[3:990])
    places = np.array([999, 0, 17, 17])
    assert np.array_equal(column.take(places), values[places])
    rows = column.rows(np.array([5, 7, 9]), np.array([8, 7, 10]))
    assert rows.shape == (3, 3) and np.array_equal(rows[0], values[5:8])
    assert not rows[1].view(np.uint8).any() and rows[2, 0] == values[9]
    with pytest.raises(MdlzipError, match="shorter"):
        column.read(999, 1001)
    column.close()


@pytest.mark.parametrize("most", [1, 7, 50, 10_000])
def test_an_epoch_holds_every_piece_once_whatever_is_shuffled_at_a_time(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "_MOST_SHUFFLED", most)
    tokens = tokens_of(TEXT[:6400], Layout(6400, 64, 16))
    batches, again = Batches(tokens, 256, 0), Batches(tokens, 256, 0)
    order = [batches._piece_at(i) for i in range(300)]
    for epoch in range(3):
        assert sorted(order[100 * epoch : 100 * (epoch + 1)]) == list(range(100))
    step = -(-100 // most)
    assert len({piece % step for piece in order[: -(-100 // step)]}) == 1
    assert [again._piece_at(i) for i in (299, 0, 150)] == [order[299], order[0], order[150]]
    assert order[:100] != order[100:200] or most == 1


PASSES = """
import resource, sys
from pathlib import Path
from mdlzip.corpus import open_corpus
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import learn_merges, sample_of
from mdlzip.symbols.survey import take_survey
from mdlzip.symbols.tokens import prepare
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of
from mdlzip.training.data import Batches

with open_corpus(Path(sys.argv[1])) as corpus:
    present = take_survey(corpus).present
    merges = learn_merges(sample_of(corpus), 2, 2, 0.0, 4, corpus.size)
    layout = Layout(corpus.size, 512, 128)
    with prepare(corpus, layout, Vocabulary(alphabet_of(present), merges), None) as tokens:
        batches = Batches(tokens, 4096, 0, least_match=2)
        for step in range(100):
            batches.batch(step)
        for group in range(0, layout.n_groups, 7):
            tokens.group(group)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Passes and batches of 8 and of 100 MiB; what is held of a chunk are 4 bytes of the order."""
    peaks = []
    for mebibytes in (8, 100):
        path = tmp_path / "zeros"
        path.touch()
        os.truncate(path, mebibytes << 20)
        done = subprocess.run(
            [sys.executable, "-c", PASSES, path],
            env=cli_environment(), capture_output=True, text=True, check=True, timeout=200,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 24, peaks
