"""The pages of the format suffice: a decoder written from them does what mdlzip does."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdlzip.archive.config_section import pack_config
from mdlzip.archive.weights import pack_weights
from mdlzip.coding.weight_model import WeightEncoder
from mdlzip.config import ModelConfig
from mdlzip.errors import ExportRefused
from mdlzip.networks.registry import tensor_specs
from mdlzip.quantised import predictor as first
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.vocabulary import Vocabulary
from tests.hostile.test_headers import ALL_CASES, BIG, Case, learned
from tests.hostile.test_headers import config as raw_config
from tests.second_decoder import Refused, Undecoded, decode
from tests.second_decoder.fields import Fields
from tests.second_decoder.model import read_config, read_model
from tests.second_decoder.predictor import Predictor
from tests.second_decoder.weights import WeightsStream
from tests.weight_tools import PAPER, TINY, random_network

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "second_decoder"
GOLDEN = ROOT / "tests" / "golden"
MOST_CODE_LINES = 1165


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code: neither blank, comment nor docstring."""
    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*ignored, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


def test_it_is_short_and_stands_alone() -> None:
    files = sorted(FOLDER.glob("*.py"))
    assert len(files) >= 5
    assert sum(len(code_lines(path.read_text())) for path in files) <= MOST_CODE_LINES
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.module and not node.level
                names = [node.module]
            for name in names:
                own = name == "tests.second_decoder" or name.startswith("tests.second_decoder.")
                assert own or name.split(".")[0] in {*sys.stdlib_module_names, "numpy"}, (
                    path,
                    name,
                )


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tests.second_decoder", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)


def test_the_command() -> None:
    found = run(str(GOLDEN / "v1-learned-smallest.mdlz"))
    assert (found.returncode, found.stdout, found.stderr) == (0, b"abba", b"")
    for arguments, message in [
        ([], b"usage"),
        ([str(GOLDEN / "absent")], b"No such file"),
        ([str(GOLDEN / "SHA256")], b"no mdlzip archive"),
    ]:
        found = run(*arguments)
        assert found.returncode == 1 and found.stdout == b""
        assert message in found.stderr and found.stderr.count(b"\n") == 1


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.rule)
def test_it_refuses_what_mdlzip_refuses(case: Case) -> None:
    with pytest.raises(Refused):
        decode(case.data)


@pytest.mark.parametrize("name", ["stored", "xz", "general", "learned-smallest", "learned-alone"])
def test_it_refuses_damage(name: str) -> None:
    archive = (GOLDEN / f"v1-{name}.mdlz").read_bytes()
    digest = 8 * (len(archive) - 32)  # takes the predictor, if there is one, each time
    for bit in [*range(digest), *range(digest, 8 * len(archive), 51)]:
        damaged = bytearray(archive)
        damaged[bit // 8] ^= 1 << bit % 8
        if name == "general" and bit >= digest - 32:
            continue  # it cannot tell the checksums of an original that it does not decode
        with pytest.raises(Refused) as refusal:
            decode(bytes(damaged))
        newer = bit // 8 == 4 and refusal.type is Undecoded
        assert refusal.type is Refused or newer, f"bit {bit}"
    for length in range(len(archive)):
        with pytest.raises(Refused):
            decode(archive[:length])
    with pytest.raises(Refused):
        decode(archive + b"\0")


def test_what_it_does_not_decode_it_says() -> None:
    with pytest.raises(Undecoded, match="zstd payload"):
        decode((GOLDEN / "v1-general.mdlz").read_bytes())
    archive = (GOLDEN / "v1-learned-smallest.mdlz").read_bytes()
    with pytest.raises(Undecoded, match="told to"):
        decode(archive, limit=1000)
    with pytest.raises(Refused):
        decode(learned(config_payload=raw_config(**BIG)))


# --- the weights stream --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "density", "size"),
    [
        (replace(TINY, d_model=8, n_heads=1, d_ff=12), 0.3, 4),
        (replace(TINY, d_model=8, n_heads=1, d_ff=12, conv_width=1, n_merges=5), 0.05, 30),
        (replace(PAPER, d_model=8, n_heads=1, d_ff=10), 0.9, 20),
        (replace(PAPER, d_model=8, n_heads=1, d_ff=24, shared_norm=False), 0.5, 60),
    ],
)
def test_it_reads_the_same_weights(config: ModelConfig, density: float, size: float) -> None:
    network = random_network(config, density=density, size=size)
    encoder, specs = WeightEncoder(), tensor_specs(config)
    for name, tensor in network.tensors.items():
        encoder.encode(specs[name].bands, tensor.codes)
    stream = encoder.finish()
    second = WeightsStream(stream)
    for name, spec in specs.items():
        assert np.array_equal(second.tensor(name, spec.shape), network.tensors[name].codes), name
    assert second.at >= len(stream)


@pytest.mark.parametrize("mode", ["coded", "coo"])
@pytest.mark.parametrize("config", [replace(TINY, n_merges=9, d_ff=8), replace(PAPER, d_ff=8)])
def test_it_reads_the_same_model(config: ModelConfig, mode: str) -> None:
    config = replace(config, d_model=8, n_heads=2)
    network = random_network(config, seed=3)
    model = read(network, mode)
    assert model.strings == [
        bytes(network.vocabulary.strings[s, : network.vocabulary.lengths[s]])
        for s in network.vocabulary.symbols
    ]
    assert model.in_use == network.vocabulary.symbols.tolist()
    assert model.exponents == network.exponents
    for name, tensor in network.tensors.items():
        codes, mantissa, exponent = model.tensors[name]
        assert np.array_equal(codes, tensor.codes), name
        assert (mantissa, exponent) == (tensor.mantissa, tensor.exponent)


def read(network: IntegerNetwork, mode: str = "coded", chunk_size: int = 64) -> Any:
    """The second decoder's model of a network's sections."""
    layout = Layout(1000, chunk_size, 1)
    config = read_config(Fields(pack_config(network.config, layout), "configuration"))
    return read_model(Fields(pack_weights(network, mode).data, "weights"), config)


# --- the predictor -------------------------------------------------------------------------------

FAMILIES = {
    "rms": ModelConfig(8, 1, 1, 8, 3, 3, match_min=2),
    "layer": ModelConfig(8, 1, 2, 8, 0, 2, norm="layer", biases=True, match_min=0),
    "paper": ModelConfig(
        12, 2, 2, 8, 5, 0, "layer", "gelu", "sinusoidal", True, True, match_min=3
    ),
}  # fmt: skip


def extreme_networks(config: ModelConfig, seeds: range) -> Iterator[IntegerNetwork]:
    """Networks whose steps and exponents reach from dull to far too large."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        network = random_network(config, seed, density=0.7, size=12.0)
        spread = rng.choice([2, 6, 14])
        tensors = {}
        for name, spec in tensor_specs(config).items():
            tensor, middle = network.tensors[name], 22 if spec.optimiser == "muon" else 20
            exponent = int(np.clip(middle + rng.integers(-spread, spread + 1), -40, 40))
            if rng.random() < 0.02:
                exponent = int(rng.integers(-40, 41))
            tensors[name] = replace(tensor, exponent=exponent)
        low = -4 if rng.random() < 0.5 else 2
        exponents = {site: int(rng.integers(low, 13)) for site in network.exponents}
        vocabulary = Vocabulary(np.arange(97, 103, dtype=np.uint8))
        yield replace(network, tensors=tensors, exponents=exponents, vocabulary=vocabulary)


def first_counts(network: IntegerNetwork, symbols: np.ndarray, kernels: str) -> np.ndarray | None:
    """mdlzip's counts at every position of chunks `symbols` (B, T); None for a refused model."""
    try:
        predictor = first.Predictor(network, 64, kernels=kernels)
    except ExportRefused:
        return None
    gaps = predictor.forward(first.shifted(symbols), predictor.new_state(len(symbols)))
    return predictor.count_table[np.asarray(gaps).astype(np.int64)]


def second_counts(network: IntegerNetwork, symbols: np.ndarray) -> np.ndarray | None:
    model = read(network, "coo")
    try:
        predictor = Predictor(model)
    except Refused:
        return None
    predictor.start(len(symbols))
    columns = first.shifted(symbols).T.tolist()
    return np.stack([predictor.counts(before) for before in columns], axis=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_predicts_the_same_and_refuses_the_same_models(family: str) -> None:
    rng = np.random.default_rng(1)
    symbols = rng.integers(97, 100, (3, 20)).astype(np.int16)
    outcomes = []
    for network in extreme_networks(FAMILIES[family], range(40)):
        found = second_counts(network, symbols)
        for kernels in ("cpu", "torch"):
            expected = first_counts(network, symbols, kernels)
            assert (found is None) == (expected is None)
            assert found is None or np.array_equal(found, expected)
        outcomes.append(found is not None)
    assert 5 <= sum(outcomes) <= 36, sum(outcomes)
