"""A seeded random network and the digest that every machine must compute from it."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np

from mdlzip.coding.range_coder import RangeCoder, constricted
from mdlzip.coding.weight_model import WeightDecoder, WeightEncoder
from mdlzip.config import ModelConfig
from mdlzip.networks.none import NoNetwork
from mdlzip.networks.registry import activation_sites, tensor_specs
from mdlzip.process.kernels import is_compiled
from mdlzip.quantised.coders import Coders, Strict
from mdlzip.quantised.cuts import pack_cut
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.quantised.predictor import Predictor, shifted
from mdlzip.quantised.prepared import count_table
from mdlzip.quantised.unit_decoder import UnitDecoder
from mdlzip.quantised.unit_work import encode_chunks
from mdlzip.quantised.workers import one_thread_each
from mdlzip.symbols.context import GROUP, Context, Grid
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokenise import cut_group
from mdlzip.symbols.vocabulary import Vocabulary, all_bytes

CONFIGS = (
    ModelConfig(d_model=32, n_layers=2, d_ff=64, window=16),
    ModelConfig(
        d_model=32,
        n_layers=1,
        n_heads=2,
        d_ff=64,
        window=0,
        conv_width=0,
        norm="layer",
        activation="gelu",
        positions="sinusoidal",
        biases=True,
        shared_norm=True,
        match_min=0,
    ),
)
# Configuration, alphabet and number of merges: both families, and a head whose 37 rows fit no
# kernel's block.
CASES = (
    (CONFIGS[0], all_bytes(), 0),
    (CONFIGS[1], all_bytes(), 0),
    (CONFIGS[0], all_bytes()[3::7], 0),
    (CONFIGS[0], all_bytes()[97:101], 0),  # four letters: matches everywhere
    (CONFIGS[0], all_bytes()[97:101], 7),
)
# What is learned from the letters of the last case. Given, not learned: no decoder needs those
# kernels, and where no machine code is kept they would take seconds to compile.
_MERGES = ((99, 100), (97, 98), (99, 98), (97, 100), (100, 98), (97, 99), (97, 97))
EXPECTED_EXPERTS = "07d620634d0ed40a698eb838469798bd4e51b5df38d7eaf846096589e8d62fb6"
EXPECTED_CODER = "ffd80c7b800fde078dd817eecb6aabad9565ceec7a96fb2be811fed958184ad0"
EXPECTED_WEIGHTS = "9d9e69beb42e837ba75bfa1b50b47552b0c4d8b51fcf0998bacb7f74e8a038a9"
EXPECTED = "f177a819f4e3d2c74de6faab3196a08f836798a9dec9b7c9f93bfbc2992690e3"


def _uniform(n: int, seed: int) -> np.ndarray:
    """n integers 0..2**31 - 1 from a linear congruential generator: needs no library's promise."""
    out, state = np.empty(n, np.int64), seed
    for i in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        out[i] = state >> 33
    return out


def random_network(config: ModelConfig, seed: int = 1) -> IntegerNetwork:
    """A network of bell-shaped random codes with steps that keep its activations alive."""
    tensors = {}
    for index, (name, spec) in enumerate(tensor_specs(config).items()):
        size = spec.n_cells
        draws = _uniform(3 * size, seed * 1000 + index).reshape(3, size)
        codes = (draws % 15 - 7).sum(axis=0)  # bell-shaped, |code| <= 21
        codes = codes.reshape(spec.shape).astype(np.int8)
        # Steps of about 0.4 for what is added to the stream, smaller for wide matrices.
        exponent = 20 if spec.is_matrix and spec.by_symbol else 22
        tensors[name] = QuantTensor(codes, 40000 + 97 * index, exponent)
    exponents = dict.fromkeys(activation_sites(config), 4)
    merges = np.array([(97, 98 + i % 3) for i in range(config.n_merges)], np.uint16).reshape(-1, 2)
    return IntegerNetwork(config, tensors, exponents, Vocabulary(merges=merges))


def digest(predictor: Predictor, symbols: np.ndarray, positions_per_call: int) -> str:
    """SHA-256 of all logit gaps of `symbols` (B, T), asked for so many positions at a time."""
    previous = shifted(symbols)
    state = predictor.new_state(len(symbols))
    parts = [
        predictor.forward(previous[:, t : t + positions_per_call], state).astype("<u2")
        for t in range(0, previous.shape[1], positions_per_call)
    ]
    return sha256(np.concatenate(parts, axis=1).tobytes()).hexdigest()


def self_test(device: str = "cpu") -> str:
    """Run 4 KiB through every case, in parallel and stepwise, and back; one digest.

    On one thread of the CPU: work as small as this only makes threads wait for each other. Raises
    AssertionError if the stepwise predictor or the coder disagrees with the parallel one.
    """
    with one_thread_each():
        return _digest_of_cases(device)


def _digest_of_cases(device: str) -> str:
    whole = sha256()
    for config, alphabet, n_merges in CASES:
        chunks = alphabet[_uniform(4096, 7) % alphabet.size].reshape(16, 256)
        merges = np.array(_MERGES[:n_merges], np.uint16).reshape(-1, 2)
        vocabulary = Vocabulary(alphabet, merges)
        config = replace(config, n_merges=len(merges))
        network = replace(random_network(config), vocabulary=vocabulary)
        predictor = Predictor(network, 256, device=device)
        # What is asked of the predictor alone needs no whole chunks: symbols of any kind.
        symbols = vocabulary.symbols[_uniform(4096, 7) % vocabulary.n_symbols].reshape(16, 256)
        parallel = digest(predictor, symbols, 256)
        assert digest(predictor, symbols, 1) == parallel, "stepwise differs from parallel"
        flat, ends = cut_group(vocabulary, chunks.ravel(), 256)
        coder = Strict(vocabulary, len(ends), 256)
        encode_chunks(predictor, vocabulary, coder, flat, np.diff(ends, prepend=0))
        coded = pack_cut(vocabulary, flat, ends) + coder.finish()
        decoder = UnitDecoder(network, vocabulary, Layout(4096, 256, 16), device=device, threads=1)
        decoded = list(decoder.decode([(0, coded)]))
        assert decoded[0][1] == chunks.tobytes(), "the coder does not give the bytes back"
        whole.update(parallel.encode())
        whole.update(coded)
    return whole.hexdigest()


def weights_self_test() -> str:
    """Code the weights of a random network and decode them; SHA-256 of the stream.

    Raises AssertionError if the decoder does not give the weights back.
    """
    tensors, specs = random_network(CONFIGS[0]).tensors, tensor_specs(CONFIGS[0])
    encoder = WeightEncoder()
    for name, tensor in tensors.items():
        encoder.encode(specs[name].bands, tensor.codes)
    stream = encoder.finish()
    decoder = WeightDecoder(stream)
    for name, tensor in tensors.items():
        decoded = decoder.decode(specs[name].bands, specs[name].shape)
        same = np.array_equal(decoded, tensor.codes)
        assert same, f"the coder of weights does not give {name} back"
    return sha256(stream).hexdigest()


def coder_self_test() -> str:
    """Code symbols of random counts and decode them; SHA-256 of the stream.

    Raises AssertionError if constriction writes another stream, or the symbols do not come back.
    """
    n, v = 2000, 300
    counts, one_chunk = count_table(), np.zeros(1, np.int64)
    gaps = (_uniform(n * v, 3) % len(counts)).astype(np.uint16).reshape(n, v)
    ranks = _uniform(n, 5) % v
    table, strings, lengths = counts.astype(np.int32), np.zeros((v, 1), np.uint8), np.ones(v, "i4")
    encoder = RangeCoder(strings, lengths, table, 1, n)
    encoder.encode_lines(one_chunk, ranks[None], np.array([n]), gaps[None])
    stream = encoder.finish()
    assert stream == constricted(ranks, counts[gaps]), "constriction writes another stream"
    decoder = RangeCoder(strings, lengths, table, 1, n, stream)
    decoded = [decoder.step(one_chunk, row[None])[0] for row in gaps]
    assert np.array_equal(decoded, ranks), "the range coder does not give the symbols back"
    assert decoder.is_spent, "the range coder does not see the end of the stream"
    return sha256(stream).hexdigest()


def experts_are_compiled() -> bool:
    """Whether their kernel need not be compiled first, which takes some fifteen seconds."""
    coder = Coders(Context(GROUP, (10, 12, 10)), Vocabulary(), 256).new(np.zeros(1, np.int64)).group
    one = np.zeros(1, np.int64)
    gaps = np.zeros((1, 256), np.uint16)
    rows = gaps, coder.counts, one, one, one, one, one
    return is_compiled(coder.kernel, *coder.arguments, *rows, *coder.tail)


def experts_self_test() -> str:
    """Code 8 KiB with the experts, beside a network and alone, and back; SHA-256 of the streams.

    Raises AssertionError if the bytes do not come back.
    """
    letters = all_bytes()[97:101]
    words = [bytes(letters[_uniform(3 + i, i) % 4]) for i in range(30)]
    text = b"".join(words[i % 30] for i in _uniform(2000, 9))[:8192]
    vocabulary = Vocabulary(letters, np.array(_MERGES, np.uint16).reshape(-1, 2))
    config = replace(CONFIGS[0], n_merges=len(_MERGES))
    beside = replace(random_network(config), vocabulary=vocabulary)
    alone = IntegerNetwork(NoNetwork(len(_MERGES)), {}, {}, vocabulary)
    layout, whole = Layout(len(text), 256, 32), sha256()
    context = Context(GROUP, (10, 12, 10), lane_chunks=4, grid=Grid(16, 2))
    for network in (beside, alone):
        predictor = Predictor(network, 256) if network.tensors else None
        flat, ends = cut_group(vocabulary, np.frombuffer(text, np.uint8), 256)
        coder = Coders(context, vocabulary, 256).new(256 * np.arange(len(ends)))
        counts = np.diff(ends, prepend=0)
        encode_chunks(predictor, vocabulary, coder, flat, counts, lane_chunks=4)
        coded = pack_cut(vocabulary, flat, ends) + coder.finish()
        decoder = UnitDecoder(
            network if network.tensors else None, vocabulary, layout, context, threads=1
        )
        decoded = list(decoder.decode([(0, coded)]))
        assert decoded[0][1] == text, "the experts do not give the bytes back"
        whole.update(coded)
    return whole.hexdigest()
