"""Records: each by itself, the same bytes however many go together, hardly more than they must."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mdlzip
from mdlzip.codec.records import MAX_RECORD_BYTES, Codec
from mdlzip.coding.range_streams import RangeStreams
from mdlzip.errors import CorruptArchive, MissingFile, MissingModel, UsageError, WrongType
from mdlzip.quantised.predictor import Predictor, shifted
from mdlzip.quantised.prepared import count_table
from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.tokenise import tokenise
from mdlzip.symbols.vocabulary import Vocabulary, all_bytes
from tests.archive_tools import TINY, random_network
from tests.model_tools import TEXT, make_model

LINES = [
    b'{"user": %d, "action": "%s", "ms": %d}' % (n * 37 % 101, action, n * n % 997)
    for n, action in enumerate([b"open", b"close", b"read", b"write"] * 12)
]
ODD = [
    b"", b"\n", b"a\n", b"\0" * 40, b"a", bytes(range(256)), b"x" * 255, b"x" * 256, b"x" * 700,
    LINES[0] * 9, b"\n".join(LINES),
]  # fmt: skip


def with_merges() -> Vocabulary:
    sample = np.frombuffer(b"\n".join(LINES), np.uint8)
    return Vocabulary(all_bytes(), learn_merges(sample, 40, 3, 0.0, 8))


@pytest.fixture(scope="module", params=["bytes", "merges"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file; its chunks are short, so that some records are cut into pieces."""
    vocabulary = with_merges() if request.param == "merges" else Vocabulary()
    config = replace(TINY, n_merges=len(vocabulary.merges), match_min=3)
    network = random_network(config=config, vocabulary=vocabulary)
    folder = tmp_path_factory.mktemp("records")
    return make_model(folder / "m.mdlm", network, chunk_size=256, context="chunk")


def test_every_record_comes_back_alone_and_together(model: Path) -> None:
    codec, records = Codec(model, threads=2), LINES + ODD
    coded = codec.encode_many(records)
    assert codec.decode_many(coded) == records
    assert [codec.encode(record) for record in records] == coded
    assert [codec.decode(one) for one in coded] == records
    assert Codec(model, threads=1).encode_many(records[::-1]) == coded[::-1]
    assert codec.encode_many([]) == codec.decode_many([]) == []
    assert codec.encode(memoryview(LINES[0])) == codec.encode(bytearray(LINES[0])) == coded[0]


def test_overhead_is_at_most_a_byte(model: Path) -> None:
    """Against what the counts of the predictor say that each record costs."""
    from mdlzip.codec.fitting import Machine
    from mdlzip.codec.models import read_model, survey_model

    network, codec = read_model(survey_model(model), Machine("cpu")), Codec(model)
    predictor, vocabulary = Predictor(network, 256), network.vocabulary
    for line in LINES:
        symbols = tokenise(vocabulary, np.frombuffer(line + b"\n", np.uint8))[0][None]
        gaps = predictor.forward(shifted(symbols), predictor.new_state(1))[0]
        counts = count_table()[gaps]
        ranks = vocabulary.ranks[symbols[0]]
        ideal = np.log2(counts.sum(1) / counts[np.arange(len(ranks)), ranks]).sum() / 8
        coded = codec.encode(line)
        assert len(coded) <= min(np.ceil(ideal) + 1, len(line) + 2)


def test_streams_are_the_shortest() -> None:
    """One byte less decodes to something else, and none ends in a zero."""
    rng, v = np.random.default_rng(3), 50
    counts = count_table().astype(np.int32)
    lengths = np.arange(30)
    gaps = rng.integers(0, 400, (30, 30, v)).astype(np.uint16)
    ranks = rng.integers(0, v, (30, 30))
    coder, rows = RangeStreams.encoder(counts, v, lengths), np.arange(30)
    coder.encode_lines(rows, ranks, lengths, gaps)
    streams = coder.finish()

    def decoded(streams: list[bytes]) -> list[list[int]]:
        decoder, out = RangeStreams.decoder(counts, v, streams), [[] for _ in streams]
        for t in range(30):
            going = rows[lengths > t]
            for row, rank in zip(going, decoder.decode(going, gaps[going, t]), strict=True):
                out[row].append(int(rank))
        return out

    want = [row[:n].tolist() for row, n in zip(ranks, lengths, strict=True)]
    assert decoded(streams) == want
    assert not any(stream.endswith(b"\0") for stream in streams)
    assert streams[0] == b""
    for i, stream in enumerate(streams):
        if stream:
            shorter = [*streams[:i], stream[:-1], *streams[i + 1 :]]
            try:
                assert decoded(shorter)[i] != want[i]
            except CorruptArchive:
                pass


def test_threads_share_a_codec(model: Path) -> None:
    codec, failures = Codec(model, threads=2), []

    def work(seed: int) -> None:
        mine = LINES[seed:] + LINES[:seed]
        if codec.decode_many(codec.encode_many(mine)) != mine:
            failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_bytes_that_the_model_does_not_know(tmp_path: Path) -> None:
    known = Vocabulary(np.array(sorted(set(b"".join(LINES) + TEXT)), np.uint8))
    network = replace(random_network(), vocabulary=known)
    codec = Codec(make_model(tmp_path / "m.mdlm", network, context="chunk"))
    for record in (b"\xff", "größer".encode(), LINES[0] + b"\t"):
        assert codec.encode(record) == b"\xff\0" + record
        assert codec.decode(codec.encode(record)) == record
    assert codec.decode(codec.encode(LINES[0])) == LINES[0]


@pytest.mark.parametrize(
    "coded",
    [
        b"\xff",  # nothing behind it
        b"\xff\x80",  # a length that does not end
        b"\xff\x80\x00",  # ... in more bytes than it needs
        b"\xff\xff\xff\xff\x0f\x11",  # far more than a record may have
        b"\xff\xff\x7f\x05ab",  # a piece that is not there
        b"\xff\x81\x04\xff\xff\xff\x7f",
    ],
)
def test_no_encoders_bytes_are_refused(model: Path, coded: bytes) -> None:
    with pytest.raises(CorruptArchive, match="record"):
        Codec(model).decode(coded)


def test_any_bytes_are_refused_or_decoded(model: Path) -> None:
    """Nothing but CorruptArchive comes out, and never more than was declared."""
    codec, rng = Codec(model), np.random.default_rng(1)
    for _ in range(300):
        coded = rng.bytes(int(rng.integers(0, 40)))
        if rng.random() < 0.5:
            coded = bytes([255, rng.integers(0, 128), *coded])
        try:
            plain = codec.decode(coded)
        except CorruptArchive:
            continue
        if coded.startswith(b"\xff"):
            assert len(plain) == (coded[1] or len(coded) - 2)
        else:
            assert b"\n" not in plain and len(plain) < 256


def test_misuse(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(model)
    with pytest.raises(WrongType, match="must be bytes"):
        codec.encode("text")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="1,048,576 are the most"):
        codec.encode(bytes(MAX_RECORD_BYTES + 1))
    monkeypatch.setenv("MDLZIP_MODELS", str(tmp_path))
    with pytest.raises(MissingModel, match="neither a file nor a model"):
        Codec("nothing")
    with pytest.raises(MissingFile, match="no such file"):
        Codec(tmp_path / "nothing.mdlm")
    assert mdlzip.Codec is Codec
