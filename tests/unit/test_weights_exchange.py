"""Weights as safetensors: exact both ways, readable by anyone, and hostile files refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mdlzip.archive.exchange import export_safetensors, import_safetensors
from mdlzip.errors import CorruptArchive
from tests.weight_tools import PAPER, TINY, random_network, same_network

Arrays = dict[str, np.ndarray]
Metadata = dict[str, str]


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    export_safetensors(random_network(), path, chunk_size=256, group_chunks=32)
    return path


@pytest.mark.parametrize("config", [TINY, PAPER])
@pytest.mark.parametrize("density", [0.0, 0.2])
def test_round_trip(tmp_path: Path, config: object, density: float) -> None:
    network = random_network(config, density=density)  # type: ignore[arg-type]
    path = tmp_path / "weights.safetensors"
    export_safetensors(network, path, chunk_size=512, group_chunks=128)
    back, chunk_size, group_chunks = import_safetensors(path)
    assert same_network(back, network) and (chunk_size, group_chunks) == (512, 128)


def test_anyone_can_rebuild_a_tensor(exported: Path) -> None:
    network, arrays = random_network(), load_file(exported)
    tensor = network.tensors["blocks.0.mlp.up"]
    indices, values = arrays["blocks.0.mlp.up.indices"], arrays["blocks.0.mlp.up.values"]
    assert indices.dtype == np.int32 and indices.shape == (2, tensor.nnz)
    dense = np.zeros(tensor.codes.shape)
    dense[tuple(indices)] = values * arrays["blocks.0.mlp.up.scale"]
    assert np.array_equal(dense, tensor.codes * tensor.step)


Change = Callable[[Arrays, Metadata], None]
HEAD = "head"


def array(name: str, value: np.ndarray) -> Change:
    def change(arrays: Arrays, metadata: Metadata) -> None:
        arrays[name] = value

    return change


def text(key: str, value: str | None) -> Change:
    def change(arrays: Arrays, metadata: Metadata) -> None:
        if value is None:
            del metadata[key]
        else:
            metadata[key] = value

    return change


def entries(indices: list[tuple[int, int]], values: list[int]) -> Change:
    def change(arrays: Arrays, metadata: Metadata) -> None:
        arrays["head.indices"] = np.array(indices, np.int32).reshape(-1, 2).T.copy()
        arrays["head.values"] = np.array(values, np.int8)

    return change


def missing(arrays: Arrays, metadata: Metadata) -> None:
    del arrays["head.step"]


def far_too_long(arrays: Arrays, metadata: Metadata) -> None:
    arrays["head.values"] = np.ones(257 * 16 + 1, np.int8)


HOSTILE: dict[str, tuple[Change, str]] = {
    "format": (text("format", "mdlzip weights 2"), "metadata format"),
    "no format": (text("format", None), "metadata format"),
    "no d_model": (text("d_model", None), "metadata lacks d_model"),
    "d_model text": (text("d_model", "sixteen"), "metadata d_model = 'sixteen'"),
    "d_model huge": (text("d_model", "9" * 30), "metadata d_model"),
    "d_model other digits": (text("d_model", "١٦"), "metadata d_model"),
    "d_model other": (text("d_model", "8"), "leave the shape|cells"),
    "d_model too small": (text("d_model", "2"), "d_model = 2 is outside"),
    "norm": (text("norm", "batch"), "norm must be one of"),
    "biases": (text("biases", "yes"), "metadata biases = 'yes'"),
    "chunk size": (text("chunk_size", "1"), "metadata chunk_size = '1'"),
    "group": (text("group_chunks", "0"), "metadata group_chunks = '0'"),
    "exponent count": (text("exponents", "1 2"), "exponents has 2 numbers"),
    "exponent range": (text("exponents", " ".join(["13"] * 13)), "exponent '13'"),
    "alphabet short": (text("alphabet", "ff" * 31), "is not 64 hexadecimal digits"),
    "alphabet long": (text("alphabet", "ff" * 33), "is not 64 hexadecimal digits"),
    "alphabet text": (text("alphabet", "xy" * 32), "is not 64 hexadecimal digits"),
    "alphabet empty": (text("alphabet", "00" * 32), "alphabet has 0 byte values"),
    "alphabet of one": (text("alphabet", "00" * 31 + "80"), "alphabet has 1 byte values"),
    "missing tensor": (missing, "tensor head.step is missing"),
    "extra tensor": (array("evil.values", np.ones(1, np.int8)), "tensor evil.values is unknown"),
    "index repeat": (entries([(1, 2), (1, 2)], [1, 1]), "not in row-major order"),
    "index order": (entries([(1, 2), (0, 3)], [1, 1]), "not in row-major order"),
    "index negative": (entries([(-1, 2)], [1]), "leave the shape"),
    "row outside": (entries([(257, 2)], [1]), "leave the shape"),
    "column outside": (entries([(0, 16)], [1]), "leave the shape"),
    "value zero": (entries([(0, 1)], [0]), "values are not 1..63"),
    "value large": (entries([(0, 1)], [64]), "values are not 1..63"),
    "too many values": (far_too_long, "for 4112 cells"),
    "values 2-d": (array("head.values", np.ones((1, 1), np.int8)), "head.values has shape"),
    "values dtype": (array("head.values", np.ones(1, np.float32)), "head."),
    "indices dtype": (array("head.indices", np.zeros((2, 1), np.int64)), "head.indices is I64"),
    "indices shape": (array("head.indices", np.zeros((1, 1), np.int32)), "head.indices is I32"),
    "scale nan": (array("head.scale", np.array([np.nan])), "head.scale is not mantissa"),
    "scale other": (array("head.scale", np.array([0.5])), "head.scale is not mantissa"),
    "scale dtype": (array("head.scale", np.ones(1, np.float32)), "head.scale is F32"),
    "mantissa": (array("head.step", np.array([0, 1], np.int32)), "head.step: step mantissa 0"),
    "exponent": (array("head.step", np.array([1, 41], np.int32)), "head.step: step exponent"),
}


def test_a_file_without_alphabet_knows_all_byte_values(exported: Path) -> None:
    arrays = load_file(exported)
    with safe_open(exported, framework="numpy") as file:
        metadata = dict(file.metadata())
    del metadata["alphabet"]
    save_file(arrays, exported, metadata=metadata)
    assert import_safetensors(exported)[0].alphabet.tolist() == list(range(256))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file(name: str, exported: Path) -> None:
    change, message = HOSTILE[name]
    arrays = load_file(exported)
    with safe_open(exported, framework="numpy") as file:
        metadata = dict(file.metadata())
    change(arrays, metadata)
    save_file(arrays, exported, metadata=metadata)
    with pytest.raises(CorruptArchive, match=message):
        import_safetensors(exported)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, b"\xff" * 64, b"{}", b"\x02" + b"\0" * 7 + b"{}"]
)
def test_not_a_safetensors_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptArchive):
        import_safetensors(path)


def test_no_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        import_safetensors(tmp_path / "nothing")


def test_cut_file(exported: Path) -> None:
    data = exported.read_bytes()
    for n in (7, 100, len(data) // 2, len(data) - 1):
        exported.write_bytes(data[:n])
        with pytest.raises(CorruptArchive):
            import_safetensors(exported)
