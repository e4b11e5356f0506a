"""The weights section: both modes, the ledger, and one message per broken rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mdlzip.archive.cursor import put_varint
from mdlzip.archive.weights import (
    pack_weights,
    unpack_weights,
)
from mdlzip.archive.weights_head import weights_summary
from mdlzip.errors import CorruptArchive, ExportRefused, UsageError
from mdlzip.networks.registry import activation_sites, tensor_shapes
from mdlzip.symbols.vocabulary import Vocabulary
from tests.archive_tools import weights_source
from tests.weight_tools import PAPER, TINY, random_network, same_network

MODES = ("coded", "coo")
BITMAP = 32
STEPS = 1 + BITMAP + 3 * len(tensor_shapes(TINY))  # offset of the activation exponents
HEAD = STEPS + len(activation_sites(TINY))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("config", [TINY, PAPER])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.9])
def test_round_trip_and_ledger(mode: str, config: object, density: float) -> None:
    network = random_network(config, density=density)  # type: ignore[arg-type]
    packed = pack_weights(network, mode)
    assert list(packed.ledger) == ["positions", "values", "scales"]
    assert sum(packed.ledger.values()) == len(packed.data)
    assert min(packed.ledger.values()) >= 0
    assert same_network(unpack_weights(memoryview(packed.data), network.config), network)
    summary = weights_summary(weights_source(packed.data), network.config)
    assert (summary.nnz, summary.ledger) == (network.nnz, packed.ledger)


def test_packing_is_a_function_of_the_network() -> None:
    assert pack_weights(random_network()).data == pack_weights(random_network()).data


def test_coded_is_smaller_than_coo() -> None:
    network = random_network()
    assert len(pack_weights(network).data) < len(pack_weights(network, "coo").data) / 3


def test_unknown_mode_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="weights must be one of coded, coo"):
        pack_weights(random_network(), "csr")


def test_activation_exponent_out_of_range_is_refused() -> None:
    network = random_network()
    exponents = {**network.exponents, "head_in": 13}
    with pytest.raises(ExportRefused, match="head_in"):
        pack_weights(replace(network, exponents=exponents))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("values", [(0, 255), (7, 8), (97, 98, 100), range(256)])
def test_the_alphabet_is_a_bitmap(mode: str, values: tuple[int, ...]) -> None:
    network = replace(random_network(), vocabulary=Vocabulary(np.array(values, np.uint8)))
    data = pack_weights(network, mode).data
    bits = int.from_bytes(data[1 : 1 + BITMAP], "little")
    assert [b for b in range(256) if bits >> b & 1] == list(values)
    assert unpack_weights(data, TINY).alphabet.tolist() == list(values)


def test_an_alphabet_may_become_another_but_not_too_small() -> None:
    good = bytearray(pack_weights(random_network()).data)
    good[1 : 1 + BITMAP] = bytes(BITMAP - 1) + b"\xc0"
    assert unpack_weights(bytes(good), TINY).alphabet.tolist() == [254, 255]


Damage = Callable[[bytearray], bytes]


def put(offset: int, value: bytes) -> Damage:
    def damage(data: bytearray) -> bytes:
        data[offset : offset + len(value)] = value
        return bytes(data)

    return damage


SHARED: dict[str, tuple[Damage, str]] = {
    "empty": (lambda data: b"", "mode needs 1 bytes"),
    "mode": (put(0, b"\2"), "mode is 2"),
    "no alphabet": (put(1, bytes(BITMAP)), "alphabet has 0 byte values"),
    "alphabet of one": (put(1, bytes(BITMAP - 1) + b"\x80"), "alphabet has 1 byte values"),
    "cut alphabet": (lambda data: bytes(data[:BITMAP]), "alphabet needs 32 bytes"),
    "mantissa": (put(1 + BITMAP, b"\0\0"), "step mantissa of embedding is 0"),
    "exponent": (put(3 + BITMAP, b"\x29"), "step exponent of embedding is 41"),
    "activation": (put(STEPS, b"\xf3"), "activation exponent of blocks.0.attn_in is -13"),
    "cut steps": (lambda data: bytes(data[:STEPS]), "activation exponent of blocks.0.attn_in"),
}
CODED: dict[str, tuple[Damage, str]] = {
    "cut notes": (lambda data: bytes(data[:HEAD]), "number of non-zeros"),
    "too many non-zeros": (put(HEAD, b"\xff\xff\x7f"), "number of non-zeros is 2097151"),
    "positions past the end": (
        lambda data: bytes(data[:HEAD]) + b"\1" + put_varint(5) + b"abcd",
        "bytes for positions is 5, but 4 bytes follow",
    ),
    "zero at the end": (lambda data: bytes(data) + b"\0", "end in a zero byte"),
    "bytes at the end": (lambda data: bytes(data) + b"abcdefgh", "bytes after the last weight"),
    "other non-zeros": (put(HEAD, b"\x85"), "but declares"),
}


@pytest.mark.parametrize("name", [*SHARED, *CODED])
def test_damaged_coded_section(name: str) -> None:
    damage, message = (SHARED | CODED)[name]
    data = damage(bytearray(pack_weights(random_network()).data))
    with pytest.raises(CorruptArchive, match=message):
        unpack_weights(data, TINY)


def coo_of(places: list[int], values: list[int], nnz: int | None = None) -> Damage:
    """Give the embedding (4,112 cells) other entries."""

    def damage(data: bytearray) -> bytes:
        old = int.from_bytes(data[HEAD : HEAD + 4], "little")
        count = len(places) if nnz is None else nnz
        entries = np.array(places, "<i4").tobytes() + np.array(values, np.int8).tobytes()
        rest = bytes(data[HEAD + 4 + 5 * old :])
        return bytes(data[:HEAD]) + count.to_bytes(4, "little") + entries + rest

    return damage


COO: dict[str, tuple[Damage, str]] = {
    "nnz over cells": (coo_of([], [], 4113), "is 4113, more than its 4112 cells"),
    "nnz huge": (coo_of([], [], 2**32 - 1), "more than its 4112 cells"),
    "repeat": (coo_of([5, 5], [1, 1]), "indices of embedding do not rise strictly"),
    "order": (coo_of([5, 4], [1, 1]), "indices of embedding do not rise strictly"),
    "negative": (coo_of([-1, 4], [1, 1]), "indices of embedding do not rise strictly"),
    "outside": (coo_of([5, 4112], [1, 1]), "indices of embedding do not rise strictly"),
    "zero value": (coo_of([5, 6], [1, 0]), "values of embedding are not 1..63"),
    "large value": (coo_of([5], [64]), "values of embedding are not 1..63"),
    "smallest value": (coo_of([5], [-128]), "values of embedding are not 1..63"),
    "more bytes": (lambda data: bytes(data) + b"\0", "1 unread bytes"),
    "cut": (lambda data: bytes(data[:-1]), "values of match needs"),
}


@pytest.mark.parametrize("name", [*SHARED, *COO])
def test_damaged_coo_section(name: str) -> None:
    damage, message = (SHARED | COO)[name]
    data = damage(bytearray(pack_weights(random_network(), "coo").data))
    with pytest.raises(CorruptArchive, match=message):
        unpack_weights(data, TINY)


@pytest.mark.parametrize("mode", MODES)
def test_the_summary_refuses_what_it_reads(mode: str) -> None:
    data = pack_weights(random_network(), mode).data
    for cut in (0, 1, BITMAP, STEPS, HEAD):
        with pytest.raises(CorruptArchive):
            weights_summary(weights_source(data[:cut]), TINY)
    with pytest.raises(CorruptArchive, match="alphabet"):
        weights_summary(weights_source(data[:1] + bytes(BITMAP) + data[1 + BITMAP :]), TINY)
