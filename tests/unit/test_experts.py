"""The experts: what is coded comes back, whatever the vocabulary, the text and the stream."""

from __future__ import annotations

import itertools
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from mdlzip.errors import CorruptArchive, UsageError
from mdlzip.experts import tables as k
from mdlzip.experts.group import GroupCoder, Known
from mdlzip.experts.state import Memory, Symbols
from mdlzip.symbols.context import NO_GRID, Grid
from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.survey import present_in
from mdlzip.symbols.tokenise import cut_group
from mdlzip.symbols.vocabulary import FIRST_MERGE, Vocabulary, alphabet_of, no_merges

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "format.md").read_bytes()
COUNTS = np.array([1 + (1 << 22) // (i + 1) ** 3 for i in range(400)], np.int32)
BITS = (10, 12, 10)
GOLDEN = (297, 251882938)  # length and CRC-32 of the stream of `test_the_stream_is_fixed`


def vocabulary_of(data: bytes, most: int = 200) -> Vocabulary:
    values = np.frombuffer(data, np.uint8)
    alphabet = alphabet_of(present_in(values.tobytes()))
    return Vocabulary(alphabet, learn_merges(values, most, 4, 1.0, 16))


def nothing_known() -> Known:
    return Known(Memory.fresh(*BITS), np.zeros(0, np.int16))


def cut(vocabulary: Vocabulary, data: bytes, chunk_size: int) -> list[np.ndarray]:
    flat, ends = cut_group(vocabulary, np.frombuffer(data, np.uint8), chunk_size)
    ranks = Symbols.of(vocabulary).rank[flat].astype(np.int64)
    return np.split(ranks, ends[:-1]) if len(ends) else []


def gaps_at(rank: int, size: int, seed: int) -> np.ndarray:
    """What a network might say: the right symbol is near the top, mostly."""
    gaps = ((np.arange(size) * 37 + rank * 11 + seed * 101) % len(COUNTS)).astype(np.uint16)
    gaps[rank] //= 8
    return gaps - gaps.min()


def run(
    vocabulary: Vocabulary,
    chunks: list[np.ndarray],
    chunk_size: int,
    known: Known,
    stream: bytes | None = None,
    seed: int | None = None,
    lane_chunks: int = 1,
    grid: Grid = NO_GRID,
) -> tuple[bytes, GroupCoder]:
    """Encode `chunks`, or decode `stream` and compare with them."""
    order = Symbols.of(vocabulary)
    places = origins(len(chunks), chunk_size)
    coder = GroupCoder(
        order, COUNTS, known, places, chunk_size, stream, lane_chunks=lane_chunks, grid=grid
    )
    longest = max((len(c) for c in chunks), default=0)
    for first, t in itertools.product(range(min(lane_chunks, len(chunks))), range(longest)):
        rows = np.array([b for b, c in enumerate(chunks) if len(c) > t])
        rows = rows[rows % lane_chunks == first]
        if not len(rows):
            continue
        ranks = np.array([chunks[b][t] for b in rows])
        gaps = None
        if seed is not None:
            size = len(order.place)
            made = [gaps_at(int(order.place[r]), size, seed + t) for r in ranks]
            gaps = np.array(made, np.uint16)
        coded = coder.step(rows, gaps, ranks.copy())
        np.testing.assert_array_equal(coded, ranks)
    return (b"" if stream is not None else coder.finish()), coder


def origins(n: int, chunk_size: int) -> np.ndarray:
    """Of n chunks from somewhere in the original on."""
    return 1002 + chunk_size * np.arange(n)


def plain(coder: GroupCoder) -> bytes:
    return coder.text()


@pytest.mark.parametrize("seed", [None, 7], ids=["alone", "with a network"])
@pytest.mark.parametrize("chunk_size", [64, 512, 4096])
def test_text_comes_back(chunk_size: int, seed: int | None) -> None:
    data = TEXT[:6000]
    vocabulary = vocabulary_of(data)
    chunks = cut(vocabulary, data, chunk_size)
    stream, encoder = run(vocabulary, chunks, chunk_size, nothing_known(), seed=seed)
    _, decoder = run(vocabulary, chunks, chunk_size, nothing_known(), stream, seed)
    assert plain(encoder) == plain(decoder) == data
    assert len(stream) < len(data) / 2
    for a, b in zip(
        encoder.after().memory._arrays(), decoder.after().memory._arrays(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(encoder.known_text, decoder.known_text)


@pytest.mark.parametrize("lane_chunks", [1, 3, 65536])
def test_all_at_once_is_what_one_by_one_is(lane_chunks: int) -> None:
    """Without a network whole rounds are coded in one call; small calls change nothing."""
    data = TEXT[:6000]
    vocabulary = vocabulary_of(data)
    chunks = cut(vocabulary, data, 256)
    stream, coder = run(vocabulary, chunks, 256, nothing_known(), lane_chunks=lane_chunks)
    _, decoder = run(vocabulary, chunks, 256, nothing_known(), stream, lane_chunks=lane_chunks)
    assert plain(coder) == plain(decoder) == data
    order, n, places = Symbols.of(vocabulary), len(chunks), origins(len(chunks), 256)
    counts = np.array([len(c) for c in chunks])
    once = GroupCoder(order, COUNTS, nothing_known(), places, 256, lane_chunks=lane_chunks)
    again = GroupCoder(order, COUNTS, nothing_known(), places, 256, stream, lane_chunks=lane_chunks)
    spent = 0.0
    for first in range(min(lane_chunks, n)):
        rows = np.arange(first, n, lane_chunks)
        costs = np.zeros(int(counts[rows].sum()), np.float32)
        once.encode(rows, np.concatenate([chunks[b] for b in rows]), counts[rows], costs)
        again.decode(rows, coder.fill()[rows])
        spent += float(costs.sum())
    assert once.finish() == stream
    assert again.text() == data and again.is_spent
    assert abs(spent / 8 - len(stream)) < 8


STEPS = np.random.default_rng(2).integers(-9, 10, (96, 200))
IMAGE = (STEPS.cumsum(0).cumsum(1) // 8 + 9000).astype("<u2")


def test_what_stands_above_is_seen_in_a_grid() -> None:
    """Samples of two bytes in rows: what is near in the plane tells them."""
    data = IMAGE.tobytes()
    vocabulary = vocabulary_of(data, 0)
    chunks, sizes = cut(vocabulary, data, 4096), {}
    for grid in (NO_GRID, Grid(400, 1), Grid(400, 2), Grid(401, 2)):
        stream, coder = run(vocabulary, chunks, 4096, nothing_known(), lane_chunks=99, grid=grid)
        again = run(vocabulary, chunks, 4096, nothing_known(), stream, lane_chunks=99, grid=grid)
        assert plain(coder) == plain(again[1]) == data
        sizes[grid] = len(stream)
    assert min(sizes, key=lambda grid: sizes[grid]) == Grid(400, 2)
    assert sizes[Grid(400, 2)] < 0.75 * sizes[NO_GRID]


def test_a_lane_goes_on_from_chunk_to_chunk() -> None:
    """What the chunk before ended with predicts how the next one begins."""
    vocabulary = vocabulary_of(TEXT)
    chunks = cut(vocabulary, TEXT, 128)
    sizes = [len(run(vocabulary, chunks, 128, nothing_known(), lane_chunks=n)[0]) for n in (1, 999)]
    assert sizes[1] < 0.93 * sizes[0]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 9, 17, 64, 255, 256, 257, 1000, 2304])
def test_vocabularies_of_all_sizes(size: int) -> None:
    alphabet = np.arange(min(size, 256), dtype=np.uint8)
    pairs = [divmod(i, 256) for i in range(size - len(alphabet))]
    merges = np.array(pairs, np.uint16).reshape(-1, 2) if pairs else no_merges()
    vocabulary = Vocabulary(alphabet, merges)
    rng = np.random.Generator(np.random.PCG64(size))
    every = np.append(rng.permutation(size), rng.integers(0, size, 300))
    chunks = [every[i : i + 97] for i in range(0, len(every), 97)]
    for seed in (None, size):
        stream, _ = run(vocabulary, chunks, 256, nothing_known(), seed=seed)
        run(vocabulary, chunks, 256, nothing_known(), stream, seed)


def test_equal_strings_are_different_symbols() -> None:
    vocabulary = Vocabulary(
        np.array([97, 98], np.uint8),
        np.array([[97, 97], [FIRST_MERGE, 97], [97, FIRST_MERGE]], np.uint16),
    )
    order = Symbols.of(vocabulary)
    strings = [bytes(s[:n]) for s, n in zip(order.strings, order.lengths, strict=True)]
    assert strings == sorted(strings) == [b"a", b"aa", b"aaa", b"aaa", b"b"]
    chunks = [np.array([2, 3, 3, 2, 4, 0, 1] * 5)]
    stream, _ = run(vocabulary, chunks, 256, nothing_known())
    run(vocabulary, chunks, 256, nothing_known(), stream)


def test_no_chunk_and_one_symbol() -> None:
    vocabulary = vocabulary_of(b"ab", 0)
    assert run(vocabulary, [], 16, nothing_known())[0] == b""
    one = [np.array([1])]
    stream, _ = run(vocabulary, one, 16, nothing_known())
    assert len(stream) <= 1
    run(vocabulary, one, 16, nothing_known(), stream)


def test_the_stream_is_fixed() -> None:
    """What a change of one bit anywhere would break: archives of other versions."""
    data = "".join(
        f"{i}\t{i * i % 97} of {i % 7}, {'left' if i % 3 else 'right'}\n" for i in range(150)
    )
    vocabulary = vocabulary_of(data.encode(), 60)
    chunks = cut(vocabulary, data.encode(), 512)
    stream, _ = run(vocabulary, chunks, 512, nothing_known(), seed=1)
    assert (len(stream), crc32(stream)) == GOLDEN


def test_known_text_helps_and_a_copy_stays_as_it_was() -> None:
    vocabulary = vocabulary_of(TEXT[:16000])
    first, second = (cut(vocabulary, TEXT[i : i + 8000], 512) for i in (0, 8000))
    alone, _ = run(vocabulary, second, 512, nothing_known())
    _, coder = run(vocabulary, first, 512, nothing_known())
    known = coder.after()
    streams = [
        run(vocabulary, second, 512, Known(known.memory.copy(), known.text))[0] for _ in range(2)
    ]
    assert streams[0] == streams[1]
    assert len(streams[0]) < 0.97 * len(alone)


def test_a_long_repeat_costs_next_to_nothing() -> None:
    data = TEXT[:12000]
    vocabulary = vocabulary_of(data)
    chunks = cut(vocabulary, data, 16384)
    once, coder = run(vocabulary, chunks, 16384, nothing_known())
    for most in (0.04, 0.02):
        again, coder = run(vocabulary, chunks, 16384, coder.after())
        assert len(again) < most * len(once)


@pytest.mark.parametrize(
    "stream", [b"", b"\0" * 50, b"\xff" * 400, bytes(range(256)) * 4], ids=["0", "00", "ff", "up"]
)
@pytest.mark.parametrize("chunk_size", [16, 300])
def test_hostile_streams_end(stream: bytes, chunk_size: int) -> None:
    """Any bytes decode to symbols of the vocabulary; a chunk is full after its bytes."""
    vocabulary = vocabulary_of(TEXT[:8000], 500)
    order = Symbols.of(vocabulary)
    coder = GroupCoder(order, COUNTS, nothing_known(), origins(5, chunk_size), chunk_size, stream)
    steps = 0
    try:
        while len(rows := np.flatnonzero(coder.fill() < chunk_size)):
            ranks = coder.step(rows, None)
            assert ((0 <= ranks) & (ranks < vocabulary.n_symbols)).all()
            steps += 1
            assert steps <= chunk_size
    except CorruptArchive as error:
        assert "goes beyond its chunk" in str(error)
    assert (coder.fill() <= chunk_size).all()


def test_random_streams_end() -> None:
    vocabulary = vocabulary_of(TEXT[:8000], 500)
    order = Symbols.of(vocabulary)
    outcomes = set()
    for seed in range(20):
        stream = np.random.Generator(np.random.PCG64(seed)).bytes(300)
        coder = GroupCoder(order, COUNTS, nothing_known(), origins(3, 64), 64, stream)
        try:
            for _ in range(64):
                coder.step(np.flatnonzero(coder.fill() < 64), None)
            outcomes.add("full")
        except CorruptArchive:
            outcomes.add("refused")
        assert (coder.fill() <= 64).all()
    assert "refused" in outcomes


def test_tables() -> None:
    squash = k.squash_table()
    assert squash.min() == 26 and squash.max() == k.ONE - 26
    assert (np.diff(squash) >= 0).all() and squash[k.ODDS_LIMIT] == k.ONE // 2
    t = k.tables().astype(np.int64)
    stretch = t[k.STRETCH : k.STRETCH_LOW]
    np.testing.assert_array_less(
        np.abs(squash[stretch + k.ODDS_LIMIT] / k.ONE - (np.arange(4096) + 0.5) / 4096), 2e-3
    )
    maps = k.first_maps()
    assert len(maps) == k.N_MAPS and (maps >> k.COUNT_BITS).min() > 0


def test_known_text_that_cannot_be_numbered_is_refused() -> None:
    """Nothing is allocated before: pages of zeros that nobody touches take no memory."""
    order = Symbols.of(vocabulary_of(b"ab", 0))
    memory = Memory.fresh(8, 8, 8)
    long = Known(memory, np.zeros((1 << 31) - 32, np.int16))
    for stream, error in ((b"", CorruptArchive), (None, UsageError)):
        with pytest.raises(error, match="known text of 2147483648 places"):
            GroupCoder(order, COUNTS, long, origins(2, 16), 16, stream)


@pytest.mark.parametrize("bits", [(7, 12, 10), (10, 25, 10), (10, 12, -1)])
def test_other_table_sizes_are_refused(bits: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        Memory.fresh(*bits)
