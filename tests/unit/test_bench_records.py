"""The bench of records: lines that nobody saw, coded by all and given back by all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdlzip.bench.records import bench_records, split_lines
from mdlzip.codec.options import CompressOptions, no_progress
from mdlzip.errors import UsageError
from tests.model_tools import make_model
from tests.unit.test_records import LINES


def test_lines_are_seen_or_measured(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"\n".join(b"%d" % n for n in range(250)) + b"\n\n" + b"x" * 600)
    seen, unseen = split_lines(path)
    assert len(unseen) == 25 and len(seen) == 225 and not set(seen) & set(unseen)
    path.write_bytes(b"few\nlines\n")
    with pytest.raises(UsageError, match="200 are the least"):
        split_lines(path)


def test_every_coder_has_a_row(tmp_path: Path) -> None:
    """With a model that is there; each coder's records are decoded and compared on the way."""
    path = tmp_path / "lines"
    path.write_bytes(b"\n".join(LINES * 40) + b"\n")
    model = make_model(tmp_path / "m.mdlm", context="chunk")
    result = bench_records(path, CompressOptions(), model=model, on_progress=no_progress)
    rows = {row.name: row for row in result.rows}
    assert {"mdlzip", "zstd-19", "zstd-19 dict 16K", "brotli-11", "lzma2", "ppmd"} <= set(rows)
    assert rows["mdlzip"].shared_bytes == model.stat().st_size
    assert rows["zstd-19 dict 16K"].record_bytes < rows["zstd-19"].record_bytes
    assert result.unseen_bytes == sum(len(line) for line in split_lines(path)[1])
    assert all(row["total_bytes"] >= row["record_bytes"] for row in result.as_json()["rows"])
