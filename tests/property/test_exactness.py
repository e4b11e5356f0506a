"""Exact prediction: one digest whatever the threads, batch shape, carrier or instruction set."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdlzip.config import ModelConfig
from mdlzip.errors import CorruptArchive, ExportRefused
from mdlzip.quantised import selftest
from mdlzip.quantised.int8_products import usable_kinds
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.quantised.predictor import Predictor, shifted
from mdlzip.quantised.reorder import like_next_to_like
from mdlzip.quantised.unit_decoder import UnitDecoder
from mdlzip.symbols.context import GROUP, MODES, REFERENCE, SOLID, STRICT, Context, Units
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.vocabulary import Vocabulary
from tests.archive_tools import decode_all, encode_all
from tests.symbol_tools import tokens_of

OURS, PAPER = selftest.CONFIGS
MORE = (
    ModelConfig(d_model=24, n_layers=1, n_heads=3, d_ff=40, window=5, conv_width=2),
    ModelConfig(d_model=16, n_layers=1, d_ff=24, window=0, conv_width=4, activation="gelu"),
    ModelConfig(
        d_model=16, n_layers=2, n_heads=2, d_ff=24, window=7, norm="layer", biases=True,
        positions="sinusoidal", activation="relu2",
    ),
)  # fmt: skip
ALL = (OURS, PAPER, *MORE)
CHUNK = 96
COMPILED_ANEW = {"NUMBA_CACHE_DIR": "{tmp}", "NUMBA_OPT": "1"}
AVX2 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+popcnt,+sse4.2,+ssse3"


def symbols(batch: int, length: int = CHUNK, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, length), dtype=np.uint8)


def gaps(predictor: Predictor, data: np.ndarray, per_call: int) -> np.ndarray:
    previous, state = shifted(data), predictor.new_state(len(data))
    parts = [
        np.asarray(predictor.forward(previous[:, t : t + per_call], state)).astype(np.int64)
        for t in range(0, data.shape[1], per_call)
    ]
    return np.concatenate(parts, axis=1)


@pytest.fixture(params=ALL, ids=lambda c: f"{c.norm}-{c.activation}-{c.positions}-w{c.window}")
def network(request: pytest.FixtureRequest) -> IntegerNetwork:
    return selftest.random_network(request.param)


def test_the_networks_under_test_say_something(network: IntegerNetwork) -> None:
    found = gaps(Predictor(network, CHUNK), symbols(4), CHUNK)
    assert found.std() > 5, "flat predictions would make every other test here vacuous"
    assert len(np.unique(found[:, 1:], axis=1)) > 1


PRODUCTS = [
    *(("cpu", kind) for kind in usable_kinds()),
    *(("torch", carrier) for carrier in ("int8", "float32", "float64", "int64")),
]


@pytest.mark.parametrize(("kernels", "products"), PRODUCTS)
def test_all_products_agree(network: IntegerNetwork, kernels: str, products: str) -> None:
    data = symbols(3)
    reference = gaps(Predictor(network, CHUNK), data, CHUNK)
    found = gaps(Predictor(network, CHUNK, products=products, kernels=kernels), data, CHUNK)
    assert np.array_equal(found, reference)


@pytest.mark.parametrize("kernels", ["cpu", "torch"])
@pytest.mark.parametrize("per_call", [1, 5, 64])
def test_stepwise_is_parallel(network: IntegerNetwork, kernels: str, per_call: int) -> None:
    data, predictor = symbols(2), Predictor(network, CHUNK, kernels=kernels)
    assert np.array_equal(gaps(predictor, data, per_call), gaps(predictor, data, CHUNK))


@pytest.mark.parametrize("batch", [1, 7, 64, 512])
def test_batch_shape_changes_nothing(network: IntegerNetwork, batch: int) -> None:
    data = symbols(512, 24)
    predictor = Predictor(network, 24)
    rows = [gaps(predictor, data[i : i + batch], 24) for i in range(0, 512, batch)]
    assert np.array_equal(np.concatenate(rows), gaps(predictor, data, 24))


def test_threads_change_no_byte(network: IntegerNetwork) -> None:
    data = symbols(1, 5000)[0]
    layout = Layout(len(data), CHUNK, 8)
    one = encode_all(network, tokens_of(data, layout), threads=1)
    two = encode_all(network, tokens_of(data, layout), threads=2)
    assert one == two
    for threads in (1, 2):
        decoded = decode_all(network, layout, enumerate(one), threads=threads)
        assert b"".join(decoded) == data.tobytes()


def test_intra_op_threads_change_nothing(network: IntegerNetwork) -> None:
    data, found = symbols(64, 32), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(gaps(Predictor(network, 32, kernels="torch"), data, 32))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


@pytest.mark.parametrize(
    "settings_",
    [
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", **COMPILED_ANEW},
        {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": AVX2, **COMPILED_ANEW},
    ],
    ids=lambda s: s["NUMBA_CPU_NAME"],
)
def test_instruction_sets_agree(settings_: dict[str, str], tmp_path: object) -> None:
    code = "from mdlzip.quantised.selftest import self_test; print(self_test())"
    environment = os.environ | {k: v.format(tmp=tmp_path) for k, v in settings_.items()}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == selftest.EXPECTED, done.stderr


def test_self_test_digest() -> None:
    assert selftest.self_test() == selftest.EXPECTED
    assert selftest.coder_self_test() == selftest.EXPECTED_CODER
    assert selftest.experts_self_test() == selftest.EXPECTED_EXPERTS


def some(size: int, seed: int = 5) -> np.ndarray:
    """An alphabet of that many byte values."""
    return np.sort(np.random.default_rng(seed).permutation(256)[:size]).astype(np.uint8)


@pytest.mark.parametrize("kernels", ["cpu", "torch"])
@pytest.mark.parametrize("size", [2, 3, 37, 100, 255])
def test_an_alphabet_selects_among_the_logits(
    network: IntegerNetwork, size: int, kernels: str
) -> None:
    """Gaps are those of all symbols, measured from the best one that is left."""
    alphabet, data = some(size), symbols(3)
    whole = Predictor(network, CHUNK)
    part = Predictor(replace(network, vocabulary=Vocabulary(alphabet)), CHUNK, kernels=kernels)
    full, found = gaps(whole, data, CHUNK)[..., alphabet], gaps(part, data, CHUNK)
    best = full.min(axis=-1, keepdims=True)
    known = full < whole.last_gap  # gaps beyond are cut off
    assert found.shape == (*data.shape, size)
    assert known.any()
    assert np.array_equal(found[known], (full - best)[known])
    assert np.array_equal(gaps(part, data, 7), found)


@pytest.mark.parametrize(("kernels", "products"), PRODUCTS)
def test_all_products_agree_on_an_alphabet(
    network: IntegerNetwork, kernels: str, products: str
) -> None:
    net, data = replace(network, vocabulary=Vocabulary(some(37))), symbols(3)
    reference = gaps(Predictor(net, CHUNK), data, CHUNK)
    found = gaps(Predictor(net, CHUNK, products=products, kernels=kernels), data, CHUNK)
    assert np.array_equal(found, reference)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(2, 256), seed=st.integers(0, 2**20), n=st.integers(1, 700),
    group_chunks=st.integers(1, 5),
)  # fmt: skip
def test_any_alphabet_gives_the_bytes_back(size: int, seed: int, n: int, group_chunks: int) -> None:
    alphabet = some(size, seed)
    data = alphabet[np.random.default_rng(seed).integers(0, size, n)]
    net, layout = (
        replace(selftest.random_network(OURS), vocabulary=Vocabulary(alphabet)),
        Layout(n, 48, group_chunks),
    )
    coded = encode_all(net, tokens_of(data, layout, net.vocabulary))
    back = b"".join(decode_all(net, layout, enumerate(coded)))
    assert back == data.tobytes()


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(2, 5), seed=st.integers(0, 2**20), n=st.integers(1, 700),
    group_chunks=st.integers(1, 5), most=st.integers(1, 40), longest=st.integers(2, 24),
)  # fmt: skip
def test_any_vocabulary_gives_the_bytes_back(
    size: int, seed: int, n: int, group_chunks: int, most: int, longest: int
) -> None:
    alphabet = some(size, seed)
    data = alphabet[np.random.default_rng(seed).integers(0, size, n)]
    merges = learn_merges(data, most, 2, 0.0, longest)
    config = replace(OURS, n_merges=len(merges))
    net = selftest.random_network(config)
    net, layout = replace(net, vocabulary=Vocabulary(alphabet, merges)), Layout(n, 48, group_chunks)
    coded = encode_all(net, tokens_of(data, layout, net.vocabulary))
    back = b"".join(decode_all(net, layout, enumerate(coded)))
    assert back == data.tobytes()
    alone = decode_all(net, layout, [(len(coded) - 1, coded[-1])])
    assert alone[0] == data[slice(*layout.group_span(len(coded) - 1))].tobytes()


@st.composite
def contexts(draw: st.DrawFn, layout: Layout) -> Context:
    """Any context that a file of this cut may have."""
    mode = draw(st.sampled_from(MODES))
    bits = draw(st.tuples(*[st.integers(8, 11)] * 3))
    groups = range(layout.n_groups)
    if mode == REFERENCE:
        chosen = draw(st.sets(st.sampled_from(groups), min_size=1))
        return Context(mode, bits, references=tuple(sorted(chosen)))
    if mode == SOLID:
        inner = draw(st.sets(st.sampled_from(groups))) - {0}
        edges = [0, *sorted(inner), layout.n_groups]
        return Context(mode, bits, waves=tuple(b - a for a, b in pairwise(edges)))
    return Context(mode, bits) if mode == GROUP else STRICT


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(), size=st.integers(2, 9), seed=st.integers(0, 2**20), n=st.integers(1, 900),
    chunk_size=st.integers(16, 80), group_chunks=st.integers(1, 5), most=st.integers(0, 30),
)  # fmt: skip
def test_any_context_gives_the_bytes_back(
    data: st.DataObject, size: int, seed: int, n: int, chunk_size: int, group_chunks: int, most: int
) -> None:
    """Threads change no byte, and a unit needs none but those that it builds on."""
    alphabet, layout = some(size, seed), Layout(n, chunk_size, group_chunks)
    context = data.draw(contexts(layout))
    plain = alphabet[np.random.default_rng(seed).integers(0, size, n) % (1 + np.arange(n) % size)]
    merges = learn_merges(plain, most, 2, 0.0, min(12, chunk_size // 2))
    net = selftest.random_network(replace(OURS, n_merges=len(merges)))
    net = replace(net, vocabulary=Vocabulary(alphabet, merges))
    tokens = tokens_of(plain, layout, net.vocabulary)
    coded = encode_all(net, tokens, context, threads=1)
    assert encode_all(net, tokens, context, threads=2) == coded
    units = Units(layout, context)
    spans = [[slice(*layout.group_span(g)) for g in units.groups(u)] for u in range(len(units))]
    expected = [b"".join(plain[span].tobytes() for span in unit) for unit in spans]
    for threads in (1, 2):
        assert decode_all(net, layout, enumerate(coded), context, threads) == expected
    needed = {REFERENCE: [0], SOLID: [*range(len(units) - 1)]}.get(context.mode, [])
    wanted = dict.fromkeys([*needed, len(units) - 1])
    found = decode_all(net, layout, ((u, coded[u]) for u in wanted), context)
    assert found == [expected[u] for u in wanted]


@pytest.mark.parametrize("mode", [GROUP, REFERENCE, SOLID])
def test_large_units_are_the_same_on_all_threads(mode: str) -> None:
    """Units of many chunks, which threads share; tiles of other sizes change nothing either."""
    text = "".join(f"{i} of {i * i % 997}, {'left' if i % 3 else 'right'}\n" for i in range(1200))
    data = np.frombuffer(text.encode(), np.uint8)
    layout = Layout(len(data), 64, 96)
    waves = (1, layout.n_groups - 1) if mode == SOLID else ()
    context = Context(mode, (12, 14, 12), (0, 2) if mode == REFERENCE else (), waves)
    merges = learn_merges(data, 60, 2, 1.0, 16)
    vocabulary = Vocabulary(np.unique(data), merges)
    net = selftest.random_network(replace(OURS, n_merges=len(merges)))
    net = replace(net, vocabulary=vocabulary)
    tokens = tokens_of(data, layout, vocabulary)
    one, two, three = (encode_all(net, tokens, context, threads=n) for n in (1, 2, 3))
    assert one == two == three
    units = Units(layout, context)
    for threads, tile in ((1, 512), (2, 512), (2, 32), (3, 7)):
        decoder = UnitDecoder(net, vocabulary, layout, context, threads=threads, tile_chunks=tile)
        found = {}
        for unit, plain in decoder.decode(enumerate(one)):
            parts = io.BytesIO(plain)
            for group in units.groups(unit):
                start, stop = layout.group_span(group)
                found[group] = parts.read(stop - start)
        assert b"".join(found[g] for g in range(layout.n_groups)) == data.tobytes()


def test_a_fault_on_one_thread_ends_the_others() -> None:
    """A unit that three tiles share is damaged: an error or other bytes, and nobody waits."""
    data = np.frombuffer(b"".join(b"%d, %d\n" % (i, i * i) for i in range(900)), np.uint8)
    layout, vocabulary = Layout(len(data), 64, 96), Vocabulary(np.unique(data))
    context = Context(SOLID, (12, 14, 12), waves=(layout.n_groups,))
    net = replace(selftest.random_network(OURS), vocabulary=vocabulary)
    coded = encode_all(net, tokens_of(data, layout, vocabulary), context)[0]
    errors = 0
    for place in range(4, len(coded), 97):
        wrong = bytearray(coded)
        wrong[place] ^= 16
        decoder = UnitDecoder(net, vocabulary, layout, context, threads=2, tile_chunks=40)
        try:
            assert dict(decoder.decode([(0, wrong)]))[0] != data.tobytes()
        except CorruptArchive:
            errors += 1
    assert errors


@pytest.mark.parametrize("kernels", ["cpu", "torch"])
def test_a_state_goes_on_with_some_of_its_chunks(network: IntegerNetwork, kernels: str) -> None:
    predictor, data = Predictor(network, CHUNK, kernels=kernels), symbols(5)
    whole = gaps(predictor, data, CHUNK)
    rows = np.array([True, False, True, True, False])
    previous, state = shifted(data), predictor.new_state(5)
    predictor.forward(previous[:, :50], state)
    predictor.narrow(state, rows)
    rest = predictor.forward(previous[rows, 50:], state)
    assert np.array_equal(np.asarray(rest).astype(np.int64), whole[rows, 50:])


def test_a_byte_outside_the_alphabet_is_refused() -> None:
    net = replace(
        selftest.random_network(OURS), vocabulary=Vocabulary(np.array([97, 98], np.uint8))
    )
    data = np.frombuffer(b"ab" * 70, np.uint8).copy()
    layout = Layout(len(data), 48, 2)
    good = tokens_of(data, layout, net.vocabulary)
    assert len(encode_all(net, good)) == layout.n_groups
    for place in (0, 47, 48, len(data) - 1):
        bad = data.copy()
        bad[place] = 0  # also what pads the last chunk
        with pytest.raises(ExportRefused, match="byte value 0 is not in the alphabet"):
            encode_all(net, tokens_of(bad, layout, net.vocabulary))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees(network: IntegerNetwork) -> None:
    data = symbols(64)
    reference = gaps(Predictor(network, CHUNK), data, CHUNK)
    assert np.array_equal(gaps(Predictor(network, CHUNK, device="cuda"), data, CHUNK), reference)
    assert selftest.self_test("cuda") == selftest.EXPECTED


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20), exponent=st.integers(-3, 10), scale=st.integers(-4, 4),
    batch=st.integers(1, 5), per_call=st.integers(1, 30), config=st.sampled_from(ALL),
)  # fmt: skip
def test_twins_agree_on_odd_networks(
    seed: int, exponent: int, scale: int, batch: int, per_call: int, config: ModelConfig
) -> None:
    """Saturated, tiny and lopsided networks: the fused kernels and int64 never part."""
    base = selftest.random_network(config, seed)
    tensors = {
        n: QuantTensor(t.codes, t.mantissa, t.exponent - scale * (n != "embedding"))
        for n, t in base.tensors.items()
    }
    net = replace(base, tensors=tensors, exponents=dict.fromkeys(base.exponents, exponent))
    data = symbols(batch, 30, seed)
    try:
        fused = gaps(Predictor(net, 30), data, per_call)
    except ExportRefused:
        return  # a bound was broken and noticed
    plain = gaps(Predictor(net, 30, kernels="torch", products="int64"), data, 30)
    assert np.array_equal(fused, plain)


def test_a_carrier_that_cannot_hold_the_sums_is_refused() -> None:
    config = ModelConfig(d_model=32, n_layers=1, d_ff=4096, window=8, conv_width=0)
    net = selftest.random_network(config)
    down = net.tensors["blocks.0.mlp.down"]
    full = QuantTensor(np.full_like(down.codes, 63), down.mantissa, down.exponent)
    net = replace(net, tensors={**net.tensors, "blocks.0.mlp.down": full})
    with pytest.raises(ExportRefused, match="not exact in float32"):
        Predictor(net, 8, kernels="torch", products="float32")
    wide = gaps(Predictor(net, 8, kernels="torch"), symbols(2, 8), 8)  # float64 by itself
    for kind in usable_kinds():
        assert np.array_equal(wide, gaps(Predictor(net, 8, products=kind), symbols(2, 8), 8))


def test_chunks_do_not_see_each_other(network: IntegerNetwork) -> None:
    data = symbols(3, 24)
    predictor = Predictor(network, 24)
    alone = gaps(predictor, data[1:2], 24)
    data[0], data[2] = 0, 255
    assert np.array_equal(gaps(predictor, data, 24)[1:2], alone)


def test_the_future_is_not_seen(network: IntegerNetwork) -> None:
    data = symbols(1, 40)
    predictor = Predictor(network, 40)
    before = gaps(predictor, data, 40)
    data[0, 20] ^= 0xFF
    after = gaps(predictor, data, 40)
    assert np.array_equal(before[:, :21], after[:, :21])
    assert not np.array_equal(before[:, 21:], after[:, 21:])


def test_another_order_of_units_predicts_the_same(network: IntegerNetwork) -> None:
    data, reordered = symbols(4), like_next_to_like(network)
    assert any(
        not np.array_equal(reordered.tensors[name].codes, tensor.codes)
        for name, tensor in network.tensors.items()
    ), "nothing was moved"
    reference = gaps(Predictor(network, CHUNK), data, CHUNK)
    assert np.array_equal(gaps(Predictor(reordered, CHUNK), data, CHUNK), reference)
