"""A few bytes that ask for much time: refused at once, or decoded in well under a second."""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mdlzip
from mdlzip.codec.contexts import choose_context
from mdlzip.config import ModelConfig, load_preset, preset_names
from mdlzip.errors import CorruptArchive, LimitExceeded
from mdlzip.networks.none import NoNetwork
from mdlzip.quantised.memory import n_cells
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.work import allowed_operations, check_operations, decode_operations
from mdlzip.symbols.context import MODES, Context
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.vocabulary import Vocabulary
from tests import second_decoder
from tests.archive_tools import decode, random_network
from tests.conftest import RunCli
from tests.hostile.test_headers import config, learned, section
from tests.random_archives import archive_of, random_archive

SECONDS = 0.9  # of CPU, on a slow machine that does other things as well
PLAIN = ModelConfig(d_model=8, n_layers=1, d_ff=8, window=1, conv_width=0, match_min=0)


def shape(**fields: int | str) -> ModelConfig:
    return ModelConfig(**{**vars(PLAIN), **fields})  # type: ignore[arg-type]


# Name, model, bytes of the original, chunk size; each of them with all weights zero.
SMALL = [
    ("tables of 16,384 positions for one byte", shape(d_model=256), 1, 16384),
    ("sinusoids for one byte", shape(d_model=256, positions="sinusoidal"), 1, 16384),
    ("caches of 16,384 positions for one byte", shape(d_model=128, window=0), 1, 16384),
    ("64 layers for one byte", shape(n_layers=64, d_model=32, d_ff=32), 1, 512),
    ("256 heads for one byte", shape(d_model=512, n_heads=256, d_ff=8, window=0), 1, 16384),
    ("hash tables for one byte", shape(match_min=2), 1, 16384),
    ("a vocabulary of 2,304 symbols for one byte", shape(n_merges=2048), 1, 512),
]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """Loading compiled code is not what is measured."""
    for name in ("warm", "gelu"):
        more = {"activation": "gelu", "norm": "layer"} if name == "gelu" else {}
        with pytest.raises(CorruptArchive):
            decode(random_archive(shape(match_min=2, conv_width=2, **more), Layout(40, 64, 1)))


def zeros(model: ModelConfig, layout: Layout) -> bytes:
    pairs = [(i % 256, i // 256) for i in range(model.n_merges)]
    merges = np.array(pairs, np.uint16).reshape(-1, 2)
    network = random_network(1, model, 0.0, Vocabulary(merges=merges))
    return archive_of(network, layout)


@pytest.mark.parametrize(("what", "model", "size", "chunk"), SMALL, ids=[s[0] for s in SMALL])
def test_small_bombs_fizzle_out(what: str, model: ModelConfig, size: int, chunk: int) -> None:
    archive = zeros(model, Layout(size, chunk, 1))
    assert len(archive) < 8000
    began = time.process_time()
    with pytest.raises((CorruptArchive, LimitExceeded)):
        decode(archive)
    assert time.process_time() - began < SECONDS


LARGE = [
    ("67 million zero weights", {"d_model": 4096, "d_ff": 8}, 1),
    ("64 layers of a million", {"d_model": 128, "n_layers": 64, "d_ff": 4096}, 1),
    ("2,048 strings of width 4,096", {"d_model": 4096, "d_ff": 8, "n_merges": 2048}, 1),
    ("64 layers one after the other", {"d_model": 8, "n_layers": 64, "d_ff": 8}, 4000),
    ("attention over 16,384 positions", {"d_model": 64, "n_layers": 64, "window": 0}, 16384),
    ("a large model for a kilobyte", {"d_model": 2048, "n_layers": 4, "d_ff": 8192}, 1000),
]


@pytest.mark.parametrize(("what", "fields", "size"), LARGE, ids=[c[0] for c in LARGE])
@pytest.mark.parametrize("pipe", [False, True])
def test_large_bombs_are_refused_at_once(
    what: str, fields: dict[str, int], size: int, pipe: bool
) -> None:
    payload = config(chunk_size=16384, n_heads=1, **fields)
    weights = section(3, b"\0" + b"\xff" * 32 + bytes(900))
    archive = learned(weights, size=size, config_payload=payload, tail=bytes(2000))
    began = time.process_time()
    with pytest.raises(LimitExceeded, match=r"operations for \d+ bytes.*--allow-slow"):
        decode(archive, pipe=pipe, memory=64 << 30)
    assert time.process_time() - began < 0.1


COPIES = [
    ("tables that are copied for 16 bytes", 24, Context("reference", references=(7,))),
    ("tables that are made for 16 bytes", 24, Context("group")),
    ("a wave for 16 bytes", 8, Context("solid", waves=(1,) * 40_000)),
]


@pytest.mark.parametrize(("what", "bits", "context"), COPIES, ids=[c[0] for c in COPIES])
def test_what_units_start_from_is_counted(what: str, bits: int, context: Context) -> None:
    """Each of 40,000 units would cost far more than its few bytes account for."""
    layout, context = Layout(640_000, 16, 1), replace(context, table_bits=(bits,) * 3)
    layers = 64 if context.mode == "solid" else 1
    network = random_network(1, shape(n_layers=layers), 0.0)
    archive = archive_of(network, layout, context=context)
    began = time.process_time()
    with pytest.raises(LimitExceeded, match=r"operations for 640000 bytes.*--allow-slow"):
        decode(archive, memory=64 << 30)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("length", [9, 16, 17, 18, 64])
@pytest.mark.parametrize("alone", [False, True], ids=["with a network", "experts alone"])
def test_a_string_longer_than_half_a_chunk(length: int, alone: bool, tmp_path: Path) -> None:
    """Chunks that each end before they begin could be billions."""
    merges = [(97, 97), *((256 + n, 97) for n in range(1, length - 1))]
    vocabulary = Vocabulary(np.array([97, 98], np.uint8), np.array(merges, np.uint16))
    network = random_network(1, shape(n_merges=len(merges)), 0.0, vocabulary)
    if alone:
        network = IntegerNetwork(NoNetwork(len(merges)), {}, {}, vocabulary)
    cut = struct.pack("<IH", (1 << 32) - 1, 1) + b"\1"
    archive = archive_of(network, Layout(100, 16, 20), context=Context("group"), coded=cut)
    (tmp_path / "a.mdlz").write_bytes(archive)
    for read in (decode, lambda data: decode(data, pipe=True), second_decoder.decode):
        with pytest.raises(
            (CorruptArchive, second_decoder.Refused), match=r"half a chunk|too long"
        ):
            read(archive)
    with pytest.raises(CorruptArchive, match="half a chunk"):
        mdlzip.inspect(tmp_path / "a.mdlz")


def test_who_wants_it_all_the_same_gets_it(cli: RunCli, tmp_path: Path) -> None:
    model = shape(d_model=512, d_ff=8)
    (tmp_path / "a.mdlz").write_bytes(zeros(model, Layout(1, 16, 1)))
    for command in (["test"], ["decompress", "-f", "-o", "out"], ["export", "-f", "-o", "w"]):
        refused = cli(*command, "a.mdlz")
        assert refused.returncode == 5 and b"--allow-slow" in refused.stderr
        done = cli(*command, "--allow-slow", "a.mdlz")
        # All groups of these archives decode to other bytes than their checksums say.
        assert done.returncode == (0 if command[0] == "export" else 3), done.stderr
    with pytest.raises(LimitExceeded):
        mdlzip.open(tmp_path / "a.mdlz")
    with mdlzip.open(tmp_path / "a.mdlz", allow_slow=True) as opened:
        assert opened.size == 1


def test_list_tells_the_price(cli: RunCli, tmp_path: Path) -> None:
    model = shape(d_model=512, d_ff=8)
    (tmp_path / "a.mdlz").write_bytes(zeros(model, Layout(1, 16, 1)))
    price = decode_operations(model, Layout(1, 16, 1))
    assert mdlzip.inspect(tmp_path / "a.mdlz").decode_operations == price
    assert f"work to decode: {price:.2g} operations" in cli("list", "-v", "a.mdlz").stdout.decode()


def test_the_price_follows_the_measure() -> None:
    """Twice the layers, weights or bytes: about twice the operations."""
    layout = Layout(10**6, 512, 128)
    one, two = load_preset("base").model, load_preset("large").model
    ratio = decode_operations(two, layout) / decode_operations(one, layout)
    assert ratio == pytest.approx(n_cells(two) / n_cells(one), rel=0.5)
    longer = decode_operations(one, Layout(10**7, 512, 128))
    assert longer == pytest.approx(10 * decode_operations(one, layout), rel=0.1)


@pytest.mark.parametrize(
    "context", [Context("group", (8, 8, 8)), Context("solid", (8, 8, 8), waves=(16,))]
)
def test_few_lanes_are_counted(context: Context) -> None:
    """A network that is asked for one lane at a time is asked as often as there are symbols."""
    model, layout = load_preset("nano").model, Layout(10**6, 512, 128)
    one_lane = replace(context, lane_chunks=65536)
    calls = [decode_operations(model, layout, each) for each in (context, one_lane)]
    assert calls[1] > 1.5 * calls[0]


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("size", [200, 23_290, 10**6, 10**9])
def test_every_preset_may_be_used_for_any_file(name: str, size: int) -> None:
    """A network that is hardly trained has some bits for each of its weights."""
    model = load_preset(name).model
    weight_bytes = n_cells(model) // 16
    for chunk, group in ((512, 128), (16, 1), (16384, 4), (16384, 1)):
        layout = Layout(size, chunk, group)
        if layout.n_groups > 10**6:
            continue  # takes long to count
        for mode in MODES:
            context = choose_context(mode, layout)
            check_operations(model, layout, weight_bytes, context=context)
            if mode != "chunk":
                check_operations(NoNetwork(), layout, 40, context=context)


def test_what_is_allowed_grows_with_the_original_and_the_weights() -> None:
    assert allowed_operations(1000, 10) < allowed_operations(2000, 10)
    assert allowed_operations(1000, 10) < allowed_operations(1000, 20)
