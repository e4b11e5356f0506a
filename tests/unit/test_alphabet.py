"""The byte values a network knows: which ones, what is refused, and that archives carry them."""

from __future__ import annotations

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import constriction
import numpy as np
import pytest

import mdlzip
from mdlzip.codec import CompressOptions, export_weights, import_weights, read_network
from mdlzip.errors import ExportRefused, UsageError
from mdlzip.quantised import memory, selftest, tables
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.predictor import Predictor, shifted
from mdlzip.resources import learned_program_bytes
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokenise import cut_group
from mdlzip.symbols.vocabulary import Vocabulary, all_bytes, alphabet_of
from tests.archive_tools import compressible, decode_all, encode_group, random_network

OPTIONS = CompressOptions(device="cpu", threads=1, chunk_size=64, group_chunks=3, fallback=False)


def present(*values: int) -> np.ndarray:
    return np.bincount(np.array(values, int), minlength=256) > 0


def knowing(data: bytes) -> IntegerNetwork:
    return replace(random_network(), vocabulary=Vocabulary(alphabet_of(present(*data))))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), [0, 1]),
        ((0,), [0, 1]),
        ((97,), [96, 97]),
        ((255,), [254, 255]),
        ((9, 3, 200), [3, 9, 200]),
        (tuple(range(256)), list(range(256))),
    ],
)
def test_the_alphabet_of_a_file(values: tuple[int, ...], expected: list[int]) -> None:
    alphabet = alphabet_of(present(*values))
    assert alphabet.dtype == np.uint8
    assert alphabet.tolist() == expected
    ranks = Vocabulary(alphabet).ranks
    assert [int(np.flatnonzero(ranks == i)[0]) for i in range(len(expected))] == expected
    assert np.count_nonzero(ranks < 0) == 257 - len(expected)


def test_all_values_are_the_default() -> None:
    assert np.array_equal(random_network().alphabet, all_bytes())


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [
        (np.array([], np.uint8), "less than 2"),
        (np.array([7], np.uint8), "less than 2"),
        (np.array([7, 7], np.uint8), "rise strictly"),
        (np.array([8, 7], np.uint8), "rise strictly"),
        (np.array([7, 8], np.int64), "vector of uint8"),
        (np.array([[7, 8]], np.uint8), "vector of uint8"),
    ],
)
def test_other_alphabets_are_refused(alphabet: np.ndarray, message: str) -> None:
    with pytest.raises(ExportRefused, match=message):
        Vocabulary(alphabet)


def test_the_coded_stream_is_that_of_the_page() -> None:
    """Counts and ranks made here, from the logits of all byte values, give the same bytes."""
    alphabet = np.array([5, 97, 98, 101, 250], np.uint8)
    network = selftest.random_network(selftest.CONFIGS[0])
    head = network.tensors["head"]
    flatter = replace(head, exponent=head.exponent + 2)  # so that no gap is cut off
    network = replace(network, tensors=network.tensors | {"head": flatter})
    ranks = np.random.default_rng(2).integers(0, 5, (3, 20)).astype(np.int32)
    symbols = alphabet[ranks]

    whole = Predictor(network, 20)
    gaps = np.asarray(whole.forward(shifted(symbols), whole.new_state(3))).astype(int)
    assert gaps.max() < whole.last_gap
    logits = -gaps[..., alphabet]
    exps = tables.exp_table(22, 64)
    counts = 1.0 + exps[logits.max(axis=-1, keepdims=True) - logits]
    coder = constriction.stream.queue.RangeEncoder()
    model = constriction.stream.model.Categorical(perfect=False)
    lengths = [20, 20, 7]
    for t in range(20):
        n = sum(t < length for length in lengths)
        coder.encode(ranks[:n, t].copy(), model, np.ascontiguousarray(counts[:n, t]))
    expected = coder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")

    part = Predictor(replace(network, vocabulary=Vocabulary(alphabet)), 20)
    assert encode_group(part, *cut_group(part.vocabulary, symbols.ravel()[:47], 20)) == expected


@pytest.mark.parametrize("weights", ["coded", "coo"])
@pytest.mark.parametrize("data", [b"a" * 200, b"\xff\0" * 99, compressible(700)])
def test_archives_hold_the_alphabet(tmp_path: Path, data: bytes, weights: str) -> None:
    source, network = tmp_path / "f", knowing(data)
    source.write_bytes(data)
    mdlzip.compress(source, options=replace(OPTIONS, weights=weights), network=network)
    assert np.array_equal(read_network(f"{source}.mdlz")[0].alphabet, network.alphabet)
    mdlzip.decompress(f"{source}.mdlz", tmp_path / "back", device="cpu", threads=1)
    assert (tmp_path / "back").read_bytes() == data


def test_fewer_values_cost_fewer_bits(tmp_path: Path) -> None:
    data = compressible(3000)
    source = tmp_path / "f"
    source.write_bytes(data)
    ledgers = [
        mdlzip.compress(source, options=replace(OPTIONS, force=True), network=network).ledger
        for network in (random_network(), knowing(data))
    ]
    assert ledgers[1]["data"] < ledgers[0]["data"]
    assert ledgers[1]["scales"] == ledgers[0]["scales"]


def test_a_file_with_other_values_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    known, other = tmp_path / "known", tmp_path / "other"
    known.write_bytes(compressible(500))
    other.write_bytes(compressible(500) + b"\n")
    archive = mdlzip.compress(known, options=OPTIONS, network=knowing(compressible(500))).path
    export_weights(archive, tmp_path / "w")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UsageError, match="other: holds byte value 10, which the given weights"):
        import_weights(tmp_path / "w", other, tmp_path / "a.mdlz", OPTIONS)
    assert sorted(os.listdir(tmp_path)) == before
    import_weights(tmp_path / "w", known, tmp_path / "a.mdlz", OPTIONS)
    again = mdlzip.inspect(tmp_path / "a.mdlz").ledger
    assert again["data"] == mdlzip.inspect(archive).ledger["data"]


@pytest.mark.parametrize("size", [2, 256])
def test_decoding_stays_below_the_memory_predicted(size: int) -> None:
    network = replace(random_network(), vocabulary=Vocabulary(all_bytes()[:size]))
    layout = Layout(512 * 32, 32, 512)
    predictor = Predictor(network, layout.chunk_size)
    coded = encode_group(
        predictor, *cut_group(network.vocabulary, np.zeros(512 * 32, np.uint8), 32)
    )
    decode_all(network, layout, [(0, coded)])  # compiles, where no machine code is kept yet
    tracemalloc.start()
    decode_all(network, layout, [(0, coded)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    need = memory.decode_memory_bytes(network.config, layout, 1, vocabulary=network.vocabulary)
    assert peak < need - learned_program_bytes()
