"""Ledger rows and figures against numbers worked by hand."""

from __future__ import annotations

import json

import pytest

from mdlzip.report import (
    coo_rule_bytes,
    figures,
    ledger_rows,
    paper_rule_bytes,
    rows_as_json,
    weight_bytes,
)

LEDGER = {
    "data": 700,
    "header": 20,
    "positions": 100,
    "values": 60,
    "scales": 20,
    "index": 10,
    "checksums": 90,
}


def test_rows_keep_the_order_and_end_in_the_total() -> None:
    rows = ledger_rows(LEDGER, 4000)
    assert [r.name for r in rows] == [
        "header",
        "positions",
        "values",
        "scales",
        "data",
        "index",
        "checksums",
        "total",
    ]
    assert rows[-1].bytes == 1000 and rows[-1].share == 1
    assert rows[4].share == 0.7 and rows[4].bits_per_byte == 8 * 700 / 4000


def test_unknown_lines_are_shown_not_lost() -> None:
    assert [r.name for r in ledger_rows({"new": 5, "data": 1}, 10)] == ["data", "new", "total"]


def test_rules_of_counting() -> None:
    assert weight_bytes(LEDGER) == 180
    assert paper_rule_bytes(LEDGER, 200) == 4 * 200 + 700
    assert coo_rule_bytes(LEDGER, 200) == 12 * 200 + 700


def test_figures() -> None:
    got = figures(
        original_bytes=4000,
        archive_bytes=1000,
        ledger=LEDGER,
        nnz=120,
        n_weights=480,
        training={"float_bits_per_byte": 1.0, "qat_bits_per_byte": 1.25, "junk": 3}
        | {"integer_bits_per_byte": 1.3},
        encode_s=2.0,
        decode_s=0.5,
    )
    assert got["ratio"] == 0.25 and got["bits_per_byte"] == 2.0
    assert got["data_bits_per_byte"] == 1.4
    assert got["density"] == 0.25 and got["bytes_per_nnz"] == 1.5 and got["bits_per_nnz"] == 12
    assert got["integer_over_qat_percent"] == pytest.approx(4.0)
    assert got["integer_over_float_percent"] == pytest.approx(30.0)
    assert got["encode_kb_per_s"] == 2.0 and got["decode_kb_per_s"] == 8.0
    assert "junk" not in got


def test_empty_original_and_empty_model_divide_by_nothing() -> None:
    got = figures(original_bytes=0, archive_bytes=58, ledger={"header": 58}, nnz=0, n_weights=0)
    assert got["bits_per_byte"] == 0 and "bytes_per_nnz" not in got and "density" not in got
    assert [r.bits_per_byte for r in ledger_rows({"header": 58}, 0)] == [0, 0]
    assert ledger_rows({}, 0)[-1].share == 0


def test_rows_are_json() -> None:
    assert json.loads(json.dumps(rows_as_json(ledger_rows({"data": 8}, 8))))[0] == {
        "name": "data",
        "bytes": 8,
        "share": 1.0,
        "bits_per_byte": 8.0,
    }
