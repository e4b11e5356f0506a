"""docs/format-model.md: configuration, tensors, sites, vocabulary and weights section."""

from itertools import pairwise
from math import prod
from types import SimpleNamespace

import numpy as np

from tests.second_decoder.fields import Fields, require
from tests.second_decoder.weights import WeightsStream

CONFIGURATION = [  # bytes, least and greatest value of each field
    ("family", 1, 0, 0), ("d_model", 2, 8, 4096), ("n_layers", 1, 1, 64), ("n_heads", 2, 1, 256),
    ("d_ff", 2, 8, 16384), ("window", 2, 0, 16384), ("conv_width", 1, 0, 8),
    ("match_min", 1, 0, 8), ("n_merges", 2, 0, 2048), ("layer_norm", 1, 0, 1), ("gelu", 1, 0, 1),
    ("sinusoidal", 1, 0, 1), ("flags", 1, 0, 3), ("chunk_size", 2, 16, 16384),
    ("group_chunks", 4, 1, 65536),
]  # fmt: skip
ALONE = [
    ("family", 1, 1, 1), ("n_merges", 2, 0, 2048), ("chunk_size", 2, 16, 16384),
    ("group_chunks", 4, 1, 65536),
]  # fmt: skip
SITES = ["attn_in", "qk", "v", "attn_out", "mlp_in", "mlp_act"]


def read_config(fields: Fields) -> SimpleNamespace:
    """The configuration section; to it come `shapes`, and later what read_model finds."""
    table = ALONE if fields.peek() == 1 else CONFIGURATION
    values = {name: fields.number(n, *range_) for name, n, *range_ in table}
    fields.end()
    if table is ALONE:
        return SimpleNamespace(**values, shapes={}, cells=0, n_layers=0)
    c = SimpleNamespace(**values, biases=values["flags"] & 1, shared=values["flags"] >> 1)
    even = c.d_model % (2 * c.n_heads) == 0
    require(even and c.match_min != 1 and c.layer_norm >= c.shared, "heads, match_min or norms")
    c.shapes = {name: shape for name, present, shape in tensor_table(c) if present}
    c.cells = sum(map(prod, c.shapes.values()))
    return c


def tensor_table(c: SimpleNamespace) -> list[tuple[str, int, tuple[int, ...]]]:
    """Names, presence and shapes of the tensors, in order."""
    d, f, w, symbols = c.d_model, c.d_ff, c.conv_width, 257 + c.n_merges
    table, one, two = [("embedding", 1, (symbols, d))], c.shared, c.layer_norm - c.shared
    for b in [f"blocks.{i}." for i in range(c.n_layers)]:
        table += [
            (b + "norm.gain", one, (d,)), (b + "norm.bias", one, (d,)),
            (b + "attn_norm.gain", two, (d,)), (b + "attn_norm.bias", two, (d,)),
            (b + "mlp_norm.gain", two, (d,)), (b + "mlp_norm.bias", two, (d,)),
            (b + "attn.conv", w, (w, d)), (b + "attn.qkv", 1, (3 * d, d)),
            (b + "attn.qkv_bias", c.biases, (3 * d,)), (b + "attn.out", 1, (d, d)),
            (b + "attn.out_bias", c.biases, (d,)), (b + "mlp.conv", w, (w, d)),
            (b + "mlp.up", 1, (f, d)), (b + "mlp.up_bias", c.biases, (f,)),
            (b + "mlp.down", 1, (d, f)), (b + "mlp.down_bias", c.biases, (d,)),
        ]  # fmt: skip
    rows = symbols if c.match_min or c.n_merges else 256
    table += [("final_norm.gain", c.layer_norm, (d,)), ("final_norm.bias", c.layer_norm, (d,))]
    table += [("head", 1, (rows, d)), ("head_bias", 1, (rows,)), ("match", c.match_min, (32,))]
    return table


def read_model(fields: Fields, c: SimpleNamespace) -> SimpleNamespace:
    """The weights section: `strings` and `in_use` by rank, `tensors`, `exponents` by site."""
    read_codes = (read_coded, read_plain)[fields.number(1, 0, 1)]
    bitmap = int.from_bytes(fields.take(32), "little")
    alphabet = [b for b in range(256) if bitmap >> b & 1]
    require(len(alphabet) >= 2, "alphabet: fewer than 2 values")
    c.in_use = [*alphabet, *range(257, 257 + c.n_merges)]
    c.strings = read_strings(fields, [bytes([b]) for b in alphabet], c)
    steps = {name: (fields.number(2, 1), fields.number(1, -40, 40)) for name in c.shapes}
    sites = [f"blocks.{i}.{site}" for i in range(c.n_layers) for site in SITES]
    sites += ["head_in"] if c.family == 0 else []
    c.exponents = {s: fields.number(1, -4 if s.endswith("qk") else -12, 12) for s in sites}
    c.tensors = {name: (codes, *steps[name]) for name, codes in read_codes(fields, c).items()}
    return c


def read_strings(fields: Fields, strings: list[bytes], c: SimpleNamespace) -> list[bytes]:
    """The merges, as strings that follow those of the alphabet."""
    bases, pairs = range(len(strings), len(strings) + c.n_merges), []
    largest = prod(base**2 for base in bases) - 1
    number = int.from_bytes(fields.take((largest.bit_length() + 7) // 8), "big")
    for base in reversed(bases):
        number, pair = divmod(number, base**2)
        pairs.append(divmod(pair, base))
    require(number == 0, "merges: a rest is left")
    c.pairs = pairs[::-1]
    for first, second in c.pairs:
        strings.append(strings[first] + strings[second])
        require(len(strings[-1]) <= min(255, c.chunk_size // 2), "merges: a string is too long")
    return strings


def read_plain(fields: Fields, c: SimpleNamespace) -> dict[str, np.ndarray]:
    tensors = {}
    for name, shape in c.shapes.items():
        n, codes = fields.number(4, 0, prod(shape)), np.zeros(prod(shape), int)
        cells = np.frombuffer(fields.take(4 * n), "<i4").tolist()
        values = np.frombuffer(fields.take(n), np.int8).tolist()
        require(all(a < b for a, b in pairwise([-1, *cells, codes.size])), f"{name}: cells")
        require(all(0 < abs(v) <= (127, 63)[len(shape) - 1] for v in values), f"{name}: codes")
        codes[cells] = values
        tensors[name] = codes.reshape(shape)
    fields.end()
    return tensors


def read_coded(fields: Fields, c: SimpleNamespace) -> dict[str, np.ndarray]:
    declared, positions = fields.varint(c.cells), fields.varint(2**48 - 1)
    require(positions <= fields.left(), "positions: more than the weights stream has bytes")
    stream = WeightsStream(fields.take(fields.left()))
    tensors = {name: stream.tensor(name, shape) for name, shape in c.shapes.items()}
    stream.end()
    found = sum(np.count_nonzero(codes) for codes in tensors.values())
    require(found == declared, "weights stream: other non-zero codes than declared")
    return tensors
