"""Weights as a safetensors file of COO tensors that any program can read, and back.

For each tensor NAME: `NAME.indices` int32 [ndim, nnz] in row-major order without repeats,
`NAME.values` int8 [nnz], `NAME.scale` float64 [1] (weight = value * scale) and `NAME.step` int32
[2], the same scale exactly: mantissa * 2**-exponent. The model's shape, chunk_size, group_chunks,
the activation exponents and the vocabulary (alphabet and merges, hexadecimal, as in the weights
section; all byte values if the alphabet is missing) are metadata strings.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from mdlzip import limits
from mdlzip.archive.weights_head import alphabet_bitmap, bitmap_alphabet
from mdlzip.config import ModelConfig
from mdlzip.errors import CorruptArchive, ExportRefused, UsageError
from mdlzip.networks.registry import site_specs, tensor_specs
from mdlzip.networks.spec import TensorSpec
from mdlzip.quantised.memory import weights_memory_bytes
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.resources import check_memory
from mdlzip.symbols.vocabulary import (
    Vocabulary,
    all_bytes,
    merges_bytes,
    pack_merges,
    unpack_merges,
)

FORMAT = "mdlzip weights 1"
PARTS = {"indices": "I32", "values": "I8", "scale": "F64", "step": "I32"}
_IMPORTED_COPIES = 2  # of the largest tensor's entries while it is checked, as in an export
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_BITMAP = re.compile(r"[0-9a-f]{64}")
_HEXADECIMAL = re.compile(r"[0-9a-f]*")


def export_safetensors(
    network: IntegerNetwork, path: Path, *, chunk_size: int, group_chunks: int
) -> None:
    """Write `network` to `path`; chunk_size and group_chunks are needed to code with it again."""
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    for name, tensor in network.tensors.items():
        places = np.nonzero(tensor.codes)
        arrays[f"{name}.indices"] = np.array(places, dtype=np.int32)
        arrays[f"{name}.values"] = tensor.codes[places]
        arrays[f"{name}.scale"] = np.array([tensor.step], dtype=np.float64)
        arrays[f"{name}.step"] = np.array([tensor.mantissa, tensor.exponent], dtype=np.int32)
    metadata = {f.name: _text(getattr(network.config, f.name)) for f in fields(ModelConfig)}
    metadata |= {"format": FORMAT, "chunk_size": str(chunk_size)}
    metadata |= {"group_chunks": str(group_chunks)}
    metadata |= {"exponents": " ".join(map(str, network.exponents.values()))}
    metadata |= {"alphabet": alphabet_bitmap(network.alphabet).hex()}
    metadata |= {"merges": pack_merges(network.vocabulary).hex()}
    save_file(arrays, path, metadata=metadata)


def import_safetensors(path: Path, memory: int | None = None) -> tuple[IntegerNetwork, int, int]:
    """The network in a file of `export_safetensors`, chunk_size and group_chunks.

    The file may come from anyone: CorruptArchive names what is wrong. OSError if it is unreadable.
    Shapes are compared with the model's before a tensor is read, and what they take with `memory`
    (bytes, None for no limit): LimitExceeded.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return _Import(path, file).read(memory)
    except SafetensorError as error:
        raise CorruptArchive(f"{path}: not a safetensors file ({error})") from error


def _text(value: int | bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Import:
    """One reading of an open safetensors file."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path = path
        self._file = file
        self._metadata: dict[str, str] = file.metadata() or {}

    def read(self, memory: int | None) -> tuple[IntegerNetwork, int, int]:
        """Metadata first, then every tensor."""
        if self._metadata.get("format") != FORMAT:
            raise self._fail(f"metadata format is not {FORMAT!r}")
        config = self._config()
        chunk_size = self._integer("chunk_size", limits.MIN_CHUNK_SIZE, limits.MAX_CHUNK_SIZE)
        group_chunks = self._integer("group_chunks", 1, limits.MAX_GROUP_CHUNKS)
        exponents, vocabulary = self._exponents(config), self._vocabulary(config)
        specs = tensor_specs(config)
        wanted = {f"{name}.{part}" for name in specs for part in PARTS}
        for name in sorted(wanted ^ set(self._file.keys())):
            raise self._fail(f"tensor {name} is {'missing' if name in wanted else 'unknown'}")
        nnz = max(self._nnz(spec) for spec in specs.values())
        check_memory(weights_memory_bytes(config, nnz=_IMPORTED_COPIES * nnz), memory)
        tensors = {name: self._tensor(spec) for name, spec in specs.items()}
        return IntegerNetwork(config, tensors, exponents, vocabulary), chunk_size, group_chunks

    def _fail(self, reason: str) -> CorruptArchive:
        return CorruptArchive(f"{self._path}: {reason}")

    def _string(self, key: str) -> str:
        if key not in self._metadata:
            raise self._fail(f"metadata lacks {key}")
        return self._metadata[key]

    def _integer(self, key: str, low: int, high: int) -> int:
        text = self._string(key)
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise self._fail(f"metadata {key} = {text!r} is not an integer in {low}..{high}")
        return int(text)

    def _config(self) -> ModelConfig:
        values: dict[str, Any] = {}
        for field in fields(ModelConfig):
            text = self._string(field.name)
            if isinstance(field.default, bool):
                if text not in ("true", "false"):
                    raise self._fail(f"metadata {field.name} = {text!r} is not true or false")
                values[field.name] = text == "true"
            elif isinstance(field.default, int):
                values[field.name] = self._integer(field.name, 0, limits.MAX_D_FF)
            else:
                values[field.name] = text
        try:
            return ModelConfig(**values)
        except UsageError as error:
            raise self._fail(f"metadata: {error}") from error

    def _exponents(self, config: ModelConfig) -> dict[str, int]:
        sites = site_specs(config).values()
        texts = self._string("exponents").split(" ")
        if len(texts) != len(sites):
            raise self._fail(f"metadata exponents has {len(texts)} numbers instead of {len(sites)}")
        exponents = {}
        for site, text in zip(sites, texts, strict=True):
            if not _INTEGER.fullmatch(text) or not site.allows(int(text)):
                raise self._fail(
                    f"activation exponent {text!r} of {site.name} is outside"
                    f" {site.least}..{site.greatest}"
                )
            exponents[site.name] = int(text)
        return exponents

    def _alphabet(self) -> np.ndarray:
        if "alphabet" not in self._metadata:
            return all_bytes()
        text = self._metadata["alphabet"]
        if not _BITMAP.fullmatch(text):
            raise self._fail(f"metadata alphabet = {text[:80]!r} is not 64 hexadecimal digits")
        alphabet = bitmap_alphabet(bytes.fromhex(text))
        if alphabet.size < limits.MIN_ALPHABET:
            raise self._fail(f"metadata alphabet has {alphabet.size} byte values")
        return alphabet

    def _vocabulary(self, config: ModelConfig) -> Vocabulary:
        alphabet = self._alphabet()
        text = self._string("merges") if config.n_merges else ""
        digits = 2 * merges_bytes(alphabet.size, config.n_merges)
        if len(text) != digits or not _HEXADECIMAL.fullmatch(text):
            raise self._fail(f"metadata merges is not {digits} hexadecimal digits")
        try:
            return unpack_merges(bytes.fromhex(text), alphabet, config.n_merges)
        except ExportRefused as error:
            raise self._fail(f"metadata merges: {error}") from error

    def _part(self, name: str, part: str, shape: tuple[int, ...]) -> np.ndarray:
        piece = self._file.get_slice(f"{name}.{part}")
        found, dtype = tuple(piece.get_shape()), piece.get_dtype()
        if dtype != PARTS[part] or found != shape:
            raise self._fail(
                f"{name}.{part} is {dtype} {list(found)} instead of {PARTS[part]} {list(shape)}"
            )
        return np.asarray(self._file.get_tensor(f"{name}.{part}"))

    def _nnz(self, spec: TensorSpec) -> int:
        extent = self._file.get_slice(f"{spec.name}.values").get_shape()
        if len(extent) != 1 or extent[0] > spec.n_cells:
            raise self._fail(f"{spec.name}.values has shape {extent} for {spec.n_cells} cells")
        return int(extent[0])

    def _tensor(self, spec: TensorSpec) -> QuantTensor:
        name, shape, nnz = spec.name, spec.shape, self._nnz(spec)
        indices = self._part(name, "indices", (len(shape), nnz)).astype(np.int64)
        values = self._part(name, "values", (nnz,))
        bounds = np.array(shape, dtype=np.int64)[:, None]
        if (indices < 0).any() or (indices >= bounds).any():
            raise self._fail(f"{name}.indices leave the shape {list(shape)}")
        places = np.ravel_multi_index(tuple(indices), shape)
        if (places[1:] <= places[:-1]).any():
            raise self._fail(f"{name}.indices are not in row-major order without repeats")
        limit = spec.limit
        if nnz and ((values == 0).any() or np.abs(values.astype(np.int16)).max() > limit):
            raise self._fail(f"{name}.values are not 1..{limit} in size")
        codes = np.zeros(shape, dtype=np.int8)
        codes.ravel()[places] = values
        mantissa, exponent = (int(v) for v in self._part(name, "step", (2,)))
        try:
            tensor = QuantTensor(codes, mantissa, exponent)
        except ExportRefused as error:
            raise self._fail(f"{name}.step: {error}") from error
        if self._part(name, "scale", (1,))[0] != tensor.step:
            raise self._fail(f"{name}.scale is not mantissa * 2**-exponent of {name}.step")
        return tensor
