"""Strings as symbols: learning them, cutting a group, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mdlzip
from mdlzip.archive.exchange import export_safetensors, import_safetensors
from mdlzip.archive.weights import pack_weights, unpack_weights
from mdlzip.codec import CompressOptions
from mdlzip.errors import CorruptArchive, ExportRefused, UsageError
from mdlzip.quantised import selftest
from mdlzip.quantised.predictor import Predictor
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.survey import present_in
from mdlzip.symbols.tokenise import cut_group, tokenise
from mdlzip.symbols.vocabulary import (
    FIRST_MERGE,
    START_SYMBOL,
    Vocabulary,
    all_bytes,
    alphabet_of,
    merges_bytes,
    pack_merges,
    unpack_merges,
)
from mdlzip.training.data import IGNORE, Batches
from tests.archive_tools import decode_all, encode_group
from tests.symbol_tools import expand, tokens_of
from tests.weight_tools import TINY, random_network, same_network

ROOT = Path(__file__).resolve().parents[2]
TEXT = np.frombuffer((ROOT / "LICENSE").read_bytes(), np.uint8)


def of(data: np.ndarray, most: int = 60, longest: int = 16) -> Vocabulary:
    merges = learn_merges(data, most, 4, 1.0, longest)
    return Vocabulary(alphabet_of(present_in(data.tobytes())), merges)


def plain_learning(data: list[int], most: int) -> list[tuple[int, int]]:
    """Pairs by their number, the first in symbol order of equals; "aaa" holds one pair."""
    merges = []
    for i in range(most):
        counts: dict[tuple[int, int], int] = {}
        at = 0
        while at + 1 < len(data):
            pair = (data[at], data[at + 1])
            counts[pair] = counts.get(pair, 0) + 1
            alike = at + 2 < len(data) and data[at] == data[at + 1] == data[at + 2]
            if alike:  # the pair that overlaps with this one is not counted
                at += 1
            at += 1
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 2:
            break
        merges.append(best)
        out, at = [], 0
        while at < len(data):
            if at + 1 < len(data) and (data[at], data[at + 1]) == best:
                out.append(FIRST_MERGE + i)
                at += 1
            else:
                out.append(data[at])
            at += 1
        data = out
    return merges


@pytest.mark.parametrize("seed", range(5))
def test_merges_are_those_of_a_plain_search(seed: int) -> None:
    data = np.random.default_rng(seed).choice([97, 98, 99], 300, p=[0.6, 0.3, 0.1])
    found = learn_merges(data.astype(np.uint8), 20, 2, 0.0, 255)
    assert [tuple(pair) for pair in found.tolist()] == plain_learning(data.tolist(), 20)


def test_real_text_becomes_shorter_and_comes_back() -> None:
    vocabulary = of(TEXT)
    symbols = tokenise(vocabulary, TEXT)[0]
    assert expand(vocabulary, symbols) == TEXT.tobytes()
    assert len(symbols) < 0.7 * len(TEXT)
    assert 2 < vocabulary.longest <= 16
    assert of(TEXT, longest=3).longest == 3


def test_pairs_that_meet_by_chance_are_not_merged() -> None:
    noise = np.random.default_rng(0).choice([65, 67, 71, 84], 200_000).astype(np.uint8)
    assert len(learn_merges(noise, 50, 2, 1.2, 16)) == 0
    assert len(learn_merges(noise, 50, 2, 0.0, 16)) == 50
    assert len(learn_merges(TEXT, 50, 1e6, 0.0, 16)) == 0
    assert len(learn_merges(TEXT[:1], 50, 2, 0.0, 16)) == 0


@pytest.mark.parametrize("chunk_size", [32, 512])
def test_no_chunk_is_longer_than_its_size_and_each_begins_with_a_symbol(chunk_size: int) -> None:
    vocabulary = of(TEXT)
    symbols, ends = cut_group(vocabulary, TEXT, chunk_size)
    assert np.array_equal(symbols, tokenise(vocabulary, TEXT)[0])
    assert ends[-1] == len(symbols)
    sizes = [int(vocabulary.lengths[piece].sum()) for piece in np.split(symbols, ends[:-1])]
    assert sum(sizes) == len(TEXT)
    assert max(sizes) <= chunk_size
    assert min(sizes[:-1]) > chunk_size - vocabulary.longest


def test_without_merges_chunks_are_of_equal_size() -> None:
    symbols, ends = cut_group(Vocabulary(), TEXT[:100], 32)
    assert ends.tolist() == [32, 64, 96, 100]
    assert np.array_equal(symbols, TEXT[:100])


@pytest.mark.parametrize("most", [0, 1, 60])
def test_merges_as_a_number(most: int) -> None:
    vocabulary = of(TEXT, most)
    packed = pack_merges(vocabulary)
    assert len(vocabulary.merges) == most
    assert len(packed) == merges_bytes(vocabulary.alphabet.size, most)
    back = unpack_merges(packed, vocabulary.alphabet, most)
    assert np.array_equal(back.merges, vocabulary.merges)
    if most:
        with pytest.raises(ExportRefused, match="too large"):
            unpack_merges(b"\xff" * len(packed), vocabulary.alphabet, most)


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ([(97, 99)], "merge 0 joins symbols that are not known"),
        ([(97, START_SYMBOL)], "merge 0 joins symbols that are not known"),
        ([(97, FIRST_MERGE)], "merge 0 joins symbols that are not known"),
        ([(97, 65535)], "merge 0 joins symbols that are not known"),
        ([(97, 98), *((FIRST_MERGE + i,) * 2 for i in range(7))], "merge 7 stands for more than"),
        ([(97, 98)] * 2049, "at most 2048 pairs"),
    ],
)
def test_bad_merges_are_refused(merges: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ExportRefused, match=message):
        Vocabulary(np.array([97, 98], np.uint8), np.array(merges, np.uint16))


def test_batches_hold_every_symbol_once_an_epoch() -> None:
    vocabulary, layout = of(TEXT), Layout(len(TEXT), 64, 16)
    batches = Batches(tokens_of(TEXT, layout, vocabulary), 4 * 64, 0)
    assert batches.tokens.bytes_per_symbol > 1.4
    seen = []
    for step in range(batches.n_chunks // batches.batch_pieces):
        symbols, targets, *_ = batches.batch(step)
        for x, y in zip(symbols.numpy(), targets.numpy(), strict=True):
            used = x[y != IGNORE]
            assert np.array_equal(vocabulary.symbols[y[y != IGNORE]], used)
            seen.append(expand(vocabulary, used))
    assert len(b"".join(seen)) >= len(TEXT) - 64 * batches.batch_pieces
    whole = TEXT.tobytes()
    assert all(piece in whole for piece in seen)


def network_and_group() -> tuple[Predictor, Layout, bytes]:
    config = selftest.CONFIGS[0]
    vocabulary = of(TEXT[:1000], 20)
    network = replace(
        selftest.random_network(replace(config, n_merges=len(vocabulary.merges))),
        vocabulary=vocabulary,
    )
    predictor, layout = Predictor(network, 64), Layout(1000, 64, 16)
    return (
        network,
        layout,
        encode_group(predictor, *cut_group(vocabulary, TEXT[:1000], 64)),
    )


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\0\0\0\0\x01\0", "0 chunks"),
        (b"\xff\xff\xff\xff\x01\0", "do not fit"),
        (b"\x11\0\0\0\0\0", "last of 0 bytes"),
        (b"\x11\0\0\0\x41\0", "last of 65 bytes"),
        (b"\x11\0\0", "too short"),
    ],
)
def test_a_group_of_impossible_chunks_is_refused(head: bytes, message: str) -> None:
    network, layout, coded = network_and_group()
    assert decode_all(network, layout, [(0, coded)])[0] == TEXT[:1000].tobytes()
    bad = head + coded[6:] if len(head) == 6 else head
    with pytest.raises(CorruptArchive, match=message):
        decode_all(network, layout, [(0, bad)])


def test_the_last_chunk_has_exactly_the_bytes_it_says() -> None:
    """One byte fewer would end with the same symbol, so the group's bytes would be right."""
    network, _, _ = network_and_group()
    vocabulary = network.vocabulary
    size = next(
        n
        for n in range(900, 1000)
        if vocabulary.lengths[cut_group(vocabulary, TEXT[:n], 64)[0][-1]] > 1
    )
    layout, coded = (
        Layout(size, 64, 16),
        encode_group(Predictor(network, 64), *cut_group(vocabulary, TEXT[:size], 64)),
    )
    assert decode_all(network, layout, [(0, coded)])[0] == TEXT[:size].tobytes()
    shorter = coded[:4] + bytes([coded[4] - 1]) + coded[5:]
    with pytest.raises(CorruptArchive, match="of them in its last chunk"):
        decode_all(network, layout, [(0, shorter)])


def test_a_stream_of_other_symbols_never_leaves_its_chunk() -> None:
    network, layout, coded = network_and_group()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(20):
        stream = rng.integers(0, 256, len(coded), dtype=np.uint8).tobytes()
        try:
            plain = decode_all(network, layout, [(0, coded[:6] + stream)])[0]
            outcomes.add(len(plain))
        except CorruptArchive as error:
            outcomes.add(str(error).split(":")[0])
    assert outcomes <= {1000, "unit 0", "coded group"}


def test_a_string_may_take_half_a_chunk_at_most() -> None:
    merges = np.array([(97, 97), (257, 257), (258, 258), (259, 257)], np.uint16)
    network = selftest.random_network(replace(selftest.CONFIGS[0], n_merges=4))
    network = replace(network, vocabulary=Vocabulary(all_bytes(), merges))
    Predictor(network, 20)
    with pytest.raises(ExportRefused, match="half a chunk"):
        Predictor(network, 16)


def test_archives_with_merges_come_back(tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.write_bytes((ROOT / "docs" / "format.md").read_bytes())
    options = CompressOptions(
        device="cpu", threads=1, steps=4, preset="nano", fallback=False,
        overrides=("train.merge_count=10.0",),
    )  # fmt: skip
    report = mdlzip.compress(source, options=options)
    assert report.config is not None and report.config.n_merges > 100
    mdlzip.decompress(f"{source}.mdlz", tmp_path / "back", device="cpu", threads=1)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    with mdlzip.open(f"{source}.mdlz") as archive:
        assert archive.read(5000, 300) == source.read_bytes()[5000:5300]


@pytest.mark.parametrize("data", [bytes(4000), b"ab" * 900, b"a"])
def test_chunks_of_very_few_symbols(tmp_path: Path, data: bytes) -> None:
    """Half a chunk may be one symbol: the planner's measurements must not need more positions."""
    source = tmp_path / "f"
    source.write_bytes(data)
    options = CompressOptions(
        device="cpu", threads=1, steps=3, preset="nano", fallback=False, chunk_size=16,
    )  # fmt: skip
    mdlzip.compress(source, options=options)
    mdlzip.decompress(f"{source}.mdlz", tmp_path / "back", device="cpu", threads=1)
    assert (tmp_path / "back").read_bytes() == data


def test_the_number_of_merges_is_not_the_users() -> None:
    with pytest.raises(UsageError, match=r"set train\.vocabulary instead"):
        CompressOptions(steps=1, fallback=False, overrides=("model.n_merges=5",))


@pytest.mark.parametrize("mode", ["coded", "coo"])
def test_weights_carry_the_merges(tmp_path: Path, mode: str) -> None:
    network = random_network(replace(TINY, n_merges=9), seed=2)
    packed = pack_weights(network, mode).data
    assert same_network(unpack_weights(packed, network.config), network)
    with pytest.raises(CorruptArchive, match="merges"):
        unpack_weights(packed[:35], network.config)
    path = tmp_path / "w"
    export_safetensors(network, path, chunk_size=64, group_chunks=4)
    assert same_network(import_safetensors(path)[0], network)
