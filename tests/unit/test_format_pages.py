"""The tables of docs/format*.md against the code, and the page of vectors against its script."""

from __future__ import annotations

import itertools
import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from mdlzip import limits
from mdlzip.archive.bodies import BODIES
from mdlzip.archive.header import HEADER_BYTES
from mdlzip.archive.sections import Kind
from mdlzip.coding import weight_tables
from mdlzip.coding.binary_coder import squash_table, stretch_table
from mdlzip.coding.weight_model import WeightEncoder
from mdlzip.config import ModelConfig
from mdlzip.experts import tables as k
from mdlzip.matches import Matcher
from mdlzip.networks.spec import CHANNEL_AXIS, NO_AXIS, SYMBOL_AXIS, BandKind, BandSpec
from mdlzip.quantised import kernels_torch, prepared, tables
from mdlzip.quantised.kernels_cpu import rsqrt
from tests.golden import make_vectors

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("format*.md"))
FREE = {"DEFAULT_MEMORY_BYTES", "READ_BLOCK_BYTES"}  # of limits.py, not of the format

CONFIGS = [
    ModelConfig(16, n_layers, 2, 24, 8, w, norm, "relu2", "rotary", biases, shared, match, merges)
    for n_layers, w, (norm, shared), biases, match, merges in itertools.product(
        (1, 3), (0, 1, 4), (("rms", False), ("layer", False), ("layer", True)), (False, True),
        (0, 5), (0, 7),
    )
]  # fmt: skip


def table(page: str, *columns: str) -> list[list[str]]:
    """The rows of the table with these columns, without back quotes."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    start = lines.index("| " + " | ".join(columns) + " |") + 2
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]


def test_pages_are_there_and_wrapped() -> None:
    assert {p.name for p in PAGES} == {
        f"format{part}.md" for part in ("", "-data", "-experts", "-model", "-predictor", "-vectors")
    }
    for page in PAGES:
        for n, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 100 or line.startswith("|"), f"{page.name}:{n}"


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (DOCS / target).is_file(), f"{page.name}: {target}"


def test_limits() -> None:
    found = {name: int(value) for name, value, _ in table("format.md", "name", "value", "limits")}
    names = {name for name in vars(limits) if name.isupper()} - FREE
    assert found == {name: getattr(limits, name) for name in names}


def test_sections_and_header() -> None:
    rows = table("format.md", "kind", "section", "in methods", "payload at most, bytes")
    kinds = {int(row[0]): row[1].split(" ")[0] for row in rows if row[0].isdigit()}
    assert kinds == {kind.value: kind.name.lower() for kind in Kind}
    sizes = [int(row[1]) for row in table("format.md", "offset", "size", "field")[:7]]
    assert sum(sizes) == HEADER_BYTES
    method = table("format.md", "offset", "size", "field")[2][2]
    for body in BODIES:
        assert f"{body.number} {body.label}" in method


# --- the weights stream --------------------------------------------------------------------------


def text_of(page: str) -> str:
    """The page as one line."""
    return " ".join((DOCS / page).read_text(encoding="utf-8").split())


def test_first_weights_and_the_constant() -> None:
    t, page = weight_tables, text_of("format-model.md")
    first = t.FIRST_WEIGHT // t.N_MAGNITUDE, t.FIRST_WEIGHT // t.N_SIGN
    assert (
        f"All {t.N_INPUTS} weights of a set are at first {first[0]} in the sets A of magn" in page
    )
    assert f"itudes, {first[1]} in the sets A of signs, and 0 in the sets B" in page
    assert f"N being {t.N_MAGNITUDE} for magnitudes and {t.N_SIGN} for signs" in page
    assert f"weight {t.N_MAGNITUDE} in magnitudes and weight {t.N_SIGN} in signs" in page
    state = t.new_state()
    assert (state.weights[: t.SIGN_SET_A, : t.N_INPUTS] == first[0]).all()
    assert (state.weights[t.SIGN_SET_A : t.MAGNITUDE_SET_B, : t.N_INPUTS] == first[1]).all()
    assert (state.weights[t.MAGNITUDE_SET_B :] == 0).all()


def test_contexts() -> None:
    page = (DOCS / "format-model.md").read_text(encoding="utf-8")
    sizes = [
        len(re.findall(r"^\| \d+ \|", part, re.M)) for part in page.split("| j | numbers |")[1:]
    ]
    assert sizes == [weight_tables.N_MAGNITUDE, weight_tables.N_SIGN]


def test_bounds_of_the_predictor() -> None:
    def below(number: int) -> str:
        assert number == 1 << number.bit_length() - 1
        return f"below 2^{number.bit_length() - 1}"

    assert [bound for _, bound in table("format-predictor.md", "what", "bound")] == [
        f"at least -{prepared.MAX_FIXED_LEFT_SHIFT}",
        below(prepared.MAX_GAIN) + " in magnitude",
        below(prepared.MAX_TAP) + " in magnitude",
        below(prepared.MAX_CONVOLUTION),
        f"-{prepared.MAX_LEFT_SHIFT} to {prepared.MAX_RIGHT_SHIFT}",
        below(prepared.MAX_PRODUCT),
        f"at most {prepared.MAX_RIGHT_SHIFT}",
    ]
    assert prepared.MAX_NORM_BIAS == prepared.MAX_TAP


# --- vectors -------------------------------------------------------------------------------------


def test_the_page_of_vectors_is_what_the_script_makes() -> None:
    assert make_vectors.PAGE.read_text(encoding="utf-8") == make_vectors.page()


def test_tables_are_those_of_mdlzip() -> None:
    stretches = k.tables()
    ours = {
        "EXP(22, 64)": tables.exp_table(22, 64),
        "EXP(15, 128)": tables.exp_table(15, 128),
        "EXP(10, 128)": tables.exp_table(10, 128),
        "ROT(8), t < 16": tables.rotation_table(16, 8),
        "ROT(64), t < 512": tables.rotation_table(512, 64),
        "POS(8), t < 16": tables.position_table(16, 8),
        "POS(64), t < 512": tables.position_table(512, 64),
        "GELU": tables.gelu_table(),
        "RSQ, i >= 64": tables.rsqrt_table()[64:],
        "squash, x >= -12288": squash_table(),
        "stretch": stretch_table(),
        "coarse, v < 32768": weight_tables._levels(1),
        "fine, v < 32768": weight_tables._levels(2),
        "experts: squash, x >= -3072": k.squash_table(),
        "experts: stretch(16 i + 8), i < 4096": stretches[k.STRETCH_LOW : k.PACE],
        "experts: stretch(1024 i + 512), 64 <= i < 4032": stretches[k.STRETCH :][64:4032],
    }
    rows = table(
        "format-vectors.md", "table", "entries", "first", "last", "SHA-256, first 16 digits"
    )
    assert [row[0] for row in rows] == list(ours)
    for name, n, first, last, digest in rows:
        entries = ours[name].ravel().astype("<i8")
        assert (len(entries), sha256(entries.tobytes()).hexdigest()[:16]) == (int(n), digest)
        assert entries[:5].tolist() == [int(v) for v in first.split()]
        assert entries[-3:].tolist() == [int(v) for v in last.split()]


def test_reciprocal_square_roots() -> None:
    for v, r, s in table("format-vectors.md", "v", "r", "s"):
        assert tuple(rsqrt(int(v), tables.rsqrt_table())) == (int(r), int(s))


BANDS = {
    "embedding": BandSpec(0, 2, BandKind.EMBEDDING, SYMBOL_AXIS, CHANNEL_AXIS, far=32),
    "head_bias": BandSpec(0, 1, BandKind.BIAS, NO_AXIS, SYMBOL_AXIS),
}


def test_the_weights_stream_is_mdlzips() -> None:
    encoder, decoder = WeightEncoder(), make_vectors.TracingStream(make_vectors.STREAM)
    for name, shape in make_vectors.STREAM_TENSORS.items():
        encoder.encode((BANDS[name],), decoder.tensor(name, shape).astype(np.int8))
    assert encoder.finish() == make_vectors.STREAM


def test_matches_are_mdlzips() -> None:
    text = make_vectors.MATCHED
    previous = np.array([[256, *text[:-1].encode()]], np.int16)
    symbols, lengths = Matcher(1, 64, 2).advance(previous)
    expected = [
        (chr(symbol) if length else "", int(length))
        for symbol, length in zip(symbols[0], lengths[0], strict=True)
    ]
    assert make_vectors.matched(text, 2, 64) == expected


@pytest.mark.parametrize("name", ["learned-tiny-ours", "learned-tiny-paper"])
def test_each_step_is_mdlzips(name: str) -> None:
    """mdlzip's own norm, convolution, attention and MLP take the page's inputs to its outputs."""
    predictor, _ = make_vectors.traced(name)
    c, e, tensors = predictor.m, predictor.m.exponents, predictor.m.tensors
    p, steps = "blocks.0.", predictor.steps[: make_vectors.POSITION + 1]

    def at(label: str) -> torch.Tensor:
        return torch.tensor([[step[label] for step in steps]])

    def row(name: str) -> torch.Tensor:
        found = predictor.rows.get(name)
        return (
            torch.zeros((0, c.d_model), dtype=torch.int64) if found is None else torch.tensor(found)
        )

    def product(
        name: str, codes: torch.Tensor, f: int
    ) -> tuple[torch.Tensor, int, int, torch.Tensor]:
        weights, mantissa, _ = tensors[name]
        _, _, shift, bias = predictor.products[name, f]
        return codes @ torch.tensor(weights).T, mantissa, shift, torch.tensor(np.asarray(bias))

    rsq = torch.tensor(tables.rsqrt_table())
    none = torch.zeros((0, c.d_model), dtype=torch.int64)
    for part, site in (("attn", "attn_in"), ("mlp", "mlp_in"), ("final", "head_in")):
        taps = row(f"{p}{part}.conv") if part != "final" else none
        norm = "final_norm" if part == "final" else f"{p}{part}_norm"
        past = torch.zeros((1, max(len(taps) - 1, 0), c.d_model), dtype=torch.int64)
        exponent = e[site if part == "final" else p + site]
        codes, _ = kernels_torch.norm_conv(
            at(f"{part} x"), past, taps, row(norm + ".gain"), row(norm + ".bias"),
            bool(c.layer_norm), exponent, rsq,
        )  # fmt: skip
        assert torch.equal(codes, at(site)), site

    acc, mantissa, shift, bias = product(p + "attn.qkv", at("attn_in"), e[p + "qk"] + 8)
    _, _, shift_v, bias_v = product(p + "attn.qkv", at("attn_in"), e[p + "v"])
    is_value = torch.arange(3 * c.d_model) >= 2 * c.d_model
    bias = torch.where(is_value, bias_v, bias)
    k = c.d_model // c.n_heads
    rotation = none if c.sinusoidal else torch.tensor(tables.rotation_table(16, k)).long()
    past = torch.zeros((1, 0, c.n_heads, k), dtype=torch.int64)
    out, keys, values = kernels_torch.attend(
        acc, mantissa, (shift, shift_v), bias, rotation, 0, c.n_heads, past, past,
        predictor.window, torch.tensor(prepared.attention_table(predictor.window)),
        round(2**16 / k**0.5), (e[p + "qk"], e[p + "v"], e[p + "attn_out"]),
    )  # fmt: skip
    assert torch.equal(out, at("attn_out"))
    assert keys[0, -1].flatten().tolist() == steps[-1]["k"]
    assert values[0, -1].flatten().tolist() == steps[-1]["v"]

    inner = product(p + "mlp.up", at("mlp_in"), 6 if c.gelu else 10)
    if c.gelu:
        gelu = torch.tensor(tables.gelu_table()).long()
        found = kernels_torch.gelu(*inner, e[p + "mlp_act"], gelu)
    else:
        found = kernels_torch.squared_relu(*inner, e[p + "mlp_act"])
    assert torch.equal(found, at("mlp_act"))
    for x, second, site, after in (
        ("attn x", "attn.out", "attn_out", "mlp x"),
        ("mlp x", "mlp.down", "mlp_act", "final x"),
    ):
        residual = kernels_torch.add_residual(at(x), *product(p + second, at(site), 12))
        assert torch.equal(residual, at(after))
