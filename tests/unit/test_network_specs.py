"""One description of a network: the page repeats it, and another family needs no other file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest

from mdlzip.archive.config_section import config_bytes, pack_config, unpack_config
from mdlzip.archive.cursor import Cursor
from mdlzip.archive.weights import pack_weights, unpack_weights
from mdlzip.archive.weights_head import read_mode, read_steps, read_vocabulary
from mdlzip.coding.weight_model import WeightEncoder
from mdlzip.config import ModelConfig
from mdlzip.errors import CorruptArchive, ExportRefused, UsageError
from mdlzip.networks import registry
from mdlzip.networks.none import NoNetwork
from mdlzip.networks.registry import (
    NetworkConfig,
    family_of,
    n_cells,
    site_specs,
    tensor_shapes,
    tensor_specs,
)
from mdlzip.networks.spec import (
    NO_AXIS,
    SYMBOL_AXIS,
    BandKind,
    BandSpec,
    Family,
    FieldSpec,
    SiteSpec,
    TensorSpec,
)
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.quantised.reorder import like_next_to_like
from mdlzip.symbols.layout import Layout
from tests.conftest import ROOT
from tests.weight_tools import PAPER, TINY, laplace_codes, random_network, same_network

PAGE = (ROOT / "docs" / "format-model.md").read_text()


def configurations() -> list[ModelConfig]:
    """All combinations of what decides which tensors there are."""
    kinds = (("rms", False), ("layer", False), ("layer", True))
    return [
        ModelConfig(16, 2, 2, 24, 8, conv, norm, "relu2", "rotary", biases, shared, match, merges)
        for (norm, shared), biases, conv, match, merges in product(
            kinds, (False, True), (0, 3), (0, 2), (0, 5)
        )
    ]


def table(*columns: str) -> list[list[str]]:
    """Cells of the rows of the page's table with these columns."""
    head = "| " + " | ".join(columns) + " |\n"
    assert PAGE.count(head) == 1, head
    rows = PAGE.split(head)[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


# --- the page ------------------------------------------------------------------------------------


def presence(c: ModelConfig) -> dict[str, bool]:
    return {
        "always": True,
        "layer norm": c.norm == "layer",
        "layer norm, shared": c.norm == "layer" and c.shared_norm,
        "layer norm, not shared": c.norm == "layer" and not c.shared_norm,
        "conv_width > 0": c.conv_width > 0,
        "biases": c.biases,
        "match_min > 0": c.match_min > 0,
    }


def shape_of(text: str, c: ModelConfig) -> tuple[int, ...]:
    """What a cell such as "(3 D, D)" means for `c`."""
    rows = 257 + c.n_merges if c.match_min or c.n_merges else 256
    letters = {"D": c.d_model, "F": c.d_ff, "M": c.n_merges, "H": rows, "conv_width": c.conv_width}
    sides = []
    for side in text.strip("()").split(","):
        terms = [
            np.prod([letters[word] if word in letters else int(word) for word in term.split()])
            for term in side.split("+")
        ]
        sides.append(int(sum(terms)))
    return tuple(sides)


def repeated(rows: list[list[str]], n_layers: int) -> Iterator[list[str]]:
    """The rows in stored order: those of a layer once for each layer."""
    of_layers = [row for row in rows if ".i." in row[0]]
    first = rows.index(of_layers[0])
    assert rows[first : first + len(of_layers)] == of_layers
    yield from rows[:first]
    for i in range(n_layers):
        yield from ([row[0].replace(".i.", f".{i}."), *row[1:]] for row in of_layers)
    yield from rows[first + len(of_layers) :]


@pytest.mark.parametrize("config", configurations(), ids=str)
def test_the_pages_tensors(config: ModelConfig) -> None:
    rows = table("tensor", "present with", "shape", "class", "largest code")
    present, expected = presence(config), []
    for name, condition, shape, kind, limit in repeated(rows, config.n_layers):
        if present[condition]:
            expected.append((name.strip("`"), shape_of(shape, config), kind, int(limit)))
    specs = tensor_specs(config).values()
    assert [(s.name, s.shape, s.kind, s.limit) for s in specs] == expected


def test_the_pages_sites() -> None:
    rows = table("site", "what is rounded there", "least exponent", "greatest exponent")
    expected = [
        (name.strip("`"), int(least), int(greatest))
        for name, _, least, greatest in repeated(rows, TINY.n_layers)
    ]
    sites = site_specs(TINY).values()
    assert [(s.name, s.least, s.greatest) for s in sites] == expected


def test_the_pages_kinds_of_bands() -> None:
    (kinds,) = table("number", *map(str, range(11)))
    assert kinds == ["kind", *(kind.name.lower() for kind in BandKind)]
    assert [int(kind) for kind in BandKind] == list(range(11))


@pytest.mark.parametrize("config", configurations(), ids=str)
def test_the_pages_bands(config: ModelConfig) -> None:
    expected: dict[str, list[tuple[str, ...]]] = {}
    for names, *band in table("tensor", "kind", "row axis", "column axis"):
        for name in re.findall("`(.*?)`", names):
            expected.setdefault(name, []).append(tuple(band))
    for name, spec in tensor_specs(config).items():
        layer = name.split(".")[1] if name.startswith("blocks.") else "?"
        wanted = [
            tuple(cell.replace(" i", f" {layer}") for cell in band)
            for band in expected[name.rsplit(".", 1)[-1]]
        ]
        found = [(b.kind.name.lower(), b.row_axis or "none", b.column_axis or "none")
                 for b in spec.bands]  # fmt: skip
        assert found == wanted, name
        assert {b.far for b in spec.bands} == {32 * (spec.by_symbol and spec.is_matrix)}


@pytest.mark.parametrize(
    ("config", "column"), [(TINY, "field"), (NoNetwork(), "field without a network")]
)
def test_the_pages_configuration_fields(config: NetworkConfig, column: str) -> None:
    rows = table("offset", "size", column, "allowed")
    found = [
        (int(offset), int(size), re.split("[ :]", field)[0]) for offset, size, field, _ in rows
    ]
    family, offset = family_of(config), 1
    expected = [(0, 1, "family")]
    for field in family.fields:
        expected.append((offset, field.size, field.name))
        offset += field.size
    assert found == [*expected, (offset, 2, "chunk_size"), (offset + 2, 4, "group_chunks")]
    assert config_bytes(config) == offset + 6
    assert f"exactly {offset + 6} bytes" in PAGE
    assert (
        f"| 0 | 1 | family: the construction of the network | {family.byte} {family.name} |" in PAGE
    )


# --- what training does with a tensor -------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, PAPER], ids=["ours", "paper"])
def test_roles(config: ModelConfig) -> None:
    """By shape and place alone: what a transformer's tensors are."""
    specs = tensor_specs(config).values()
    for spec in specs:
        hidden = spec.name.startswith("blocks.") and spec.kind == "matrix"
        assert spec.optimiser == ("muon" if hidden else "adam"), spec.name
        assert spec.prunable == spec.is_matrix == (hidden or spec.name in ("head", "embedding"))
        assert spec.adds_to_stream == (spec.is_matrix and spec.bands[0].kind in (
            BandKind.EMBEDDING, BandKind.OUT, BandKind.DOWN
        )), spec.name  # fmt: skip
        assert spec.bias_of == (spec.name.removesuffix("_bias") * spec.name.endswith("_bias"))


def test_families_have_names_and_bytes_of_their_own() -> None:
    families = registry.FAMILIES
    assert len({f.byte for f in families}) == len({f.name for f in families}) == len(families)


def test_no_other_file_lists_tensors() -> None:
    """A list of names of tensors outside the description would be a second description."""
    names = {
        spec.name.rsplit(".", 1)[-1] for c in (TINY, PAPER) for spec in tensor_specs(c).values()
    }
    one_of = "|".join(sorted(names))
    listed = re.compile(rf'"({one_of})",\s*"({one_of})"')
    found = {
        str(path.relative_to(ROOT)): match.group()
        for path in (ROOT / "mdlzip").rglob("*.py")
        if "networks" not in path.relative_to(ROOT / "mdlzip").parts[:1]
        and (match := listed.search(path.read_text()))
    }
    assert found == {}


# --- another family ------------------------------------------------------------------------------


@dataclass(frozen=True)
class OrderZero:
    """A table of logits, and hidden factors that it is the product of; no context."""

    width: int = 3
    smooth: bool = False
    n_merges: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 100:
            raise UsageError(f"width = {self.width} is outside 1..100")


def order_zero_tensors(c: OrderZero) -> tuple[TensorSpec, ...]:
    rows, factors = 257 + c.n_merges, "factors"
    table = BandSpec(0, rows, BandKind.HEAD, SYMBOL_AXIS, factors, far=32)
    scale = BandSpec(0, c.width, BandKind.UP, factors, "")
    offset = BandSpec(0, 1, BandKind.BIAS, "", factors)
    return (
        TensorSpec("scale", (c.width, 2), "matrix", (scale,)),
        TensorSpec("offset", (c.width,), "vector", (offset,), bias_of="scale"),
        TensorSpec("logits", (rows, c.width), "matrix", (table,), prunable=True),
    )


TOY = Family(
    "order-0", 77, OrderZero,
    (FieldSpec("width", 2), FieldSpec("n_merges", 2), FieldSpec("flags", 1, flags=("smooth",))),
    order_zero_tensors, lambda c: (SiteSpec("logits_in", least=-2, greatest=3),),
    lambda c: {"factors": 1},
)  # fmt: skip


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> IntegerNetwork:
    """A network of a family that is one line of the registry and nothing else."""
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, TOY))
    config, rng = OrderZero(9, smooth=True), np.random.default_rng(5)
    tensors = {
        name: QuantTensor(laplace_codes(rng, spec.shape, 0.6, 20.0), 40000 + i, i)
        for i, (name, spec) in enumerate(tensor_specs(config).items())
    }
    return IntegerNetwork(config, tensors, {"logits_in": -2})  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["coded", "coo"])
def test_another_familys_weights_are_packed(toy: IntegerNetwork, mode: str) -> None:
    assert tensor_shapes(toy.config) == {"scale": (9, 2), "offset": (9,), "logits": (257, 9)}
    assert n_cells(toy.config) == 18 + 9 + 257 * 9
    packed = pack_weights(toy, mode)
    assert sum(packed.ledger.values()) == len(packed.data)
    assert same_network(unpack_weights(packed.data, toy.config), toy)


def test_another_familys_axes_inform_its_bands(toy: IntegerNetwork) -> None:
    """Factors without a scale have no logits; the axis tells, so the logits take fewer bits."""
    dead, bits = np.arange(9) % 2 == 0, []
    specs = tensor_specs(toy.config)
    codes = {name: tensor.codes.copy() for name, tensor in toy.tensors.items()}
    codes["scale"][dead] = codes["logits"][:, dead] = 0
    for axis in ("factors", NO_AXIS):
        encoder = WeightEncoder()
        scale, logits = specs["scale"].bands[0], specs["logits"].bands[0]
        encoder.encode([replace(scale, row_axis=axis)], codes["scale"])
        before = sum(encoder.spent_bits)
        encoder.encode([replace(logits, column_axis=axis)], codes["logits"])
        bits.append(sum(encoder.spent_bits) - before)
    assert bits[0] < bits[1]


def test_another_familys_limits_hold(toy: IntegerNetwork) -> None:
    with pytest.raises(ExportRefused, match="a code exceeds 63"):
        QuantTensor(np.full((257, 9), 64, np.int8), 1, 0)
    for exponent in (-3, 4):
        outside = replace(toy, exponents={"logits_in": exponent})
        with pytest.raises(ExportRefused, match="logits_in"):
            pack_weights(outside)
        good = pack_weights(toy).data
        at = 1 + 32 + 3 * len(toy.tensors)
        bad = good[:at] + exponent.to_bytes(1, signed=True) + good[at + 1 :]
        with pytest.raises(CorruptArchive, match=r"logits_in is -?\d, outside -2\.\.3"):
            cursor = Cursor(bad, "weights section")
            read_mode(cursor), read_vocabulary(cursor, toy.config)
            read_steps(cursor, toy.config)


def test_another_familys_configuration_section(toy: IntegerNetwork) -> None:
    layout = Layout(1000, 64, 2)
    packed = pack_config(toy.config, layout)
    assert packed[0] == 77 and len(packed) == config_bytes(toy.config) == 1 + 5 + 6
    assert unpack_config(packed, 1000) == (toy.config, layout)
    with pytest.raises(CorruptArchive, match="width = 0 is outside"):
        unpack_config(packed[:1] + bytes(2) + packed[3:], 1000)
    with pytest.raises(CorruptArchive, match="flags have reserved bits"):
        unpack_config(packed[:5] + b"\x02" + packed[6:], 1000)


def test_another_familys_units_change_places(toy: IntegerNetwork) -> None:
    """Rows of `scale`, cells of its bias and columns of `logits` move together."""

    def units(network: IntegerNetwork) -> list[list[int]]:
        scale, offset, logits = (t.codes for t in network.tensors.values())
        return np.column_stack([scale, offset, logits.T]).tolist()

    before, after = units(toy), units(like_next_to_like(toy))
    assert before != after and sorted(before) == sorted(after)


def test_a_configuration_of_no_family_is_refused() -> None:
    with pytest.raises(TypeError, match="OrderZero is no family's configuration"):
        tensor_specs(OrderZero())


def test_exponents_outside_a_sites_range_are_not_written() -> None:
    network = random_network(TINY)
    low = replace(network, exponents={**network.exponents, "blocks.1.qk": -5})
    with pytest.raises(ExportRefused, match=r"blocks\.1\.qk"):
        pack_weights(low)
