"""Rows and elements: found in samples and images, not in prose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mdlzip
from mdlzip.codec.options import CompressOptions
from mdlzip.symbols.grids import likely_rows, with_elements
from tests.conftest import ROOT

STEPS = np.random.default_rng(5).integers(-9, 10, (160, 300))
SAMPLES = (STEPS.cumsum(0).cumsum(1) // 8 + 9000).astype("<u2")
"""Rows of 600 bytes, elements of two."""


def test_rows_are_those_that_look_like_the_ones_above() -> None:
    data = np.frombuffer(SAMPLES.tobytes(), np.uint8)
    half = len(data) // 2
    assert likely_rows([data], 3)[0] == 600
    assert likely_rows([data[:half], data[half:]], 2) == [600, 2]


@pytest.mark.parametrize("size", [0, 1, 3, 9, 100])
def test_little_data_have_no_rows(size: int) -> None:
    for values in (np.zeros(size, np.uint8), np.arange(size, dtype=np.uint8)):
        assert all(1 < row < max(size, 2) for row in likely_rows([values], 3))


def test_elements_are_smaller_than_rows() -> None:
    for row in (1, 2, 3, 400):
        grids = with_elements(row)
        assert grids[0].element_bytes == 1
        assert all(grid.element_bytes < max(row, 2) for grid in grids)


def test_the_archive_of_samples_has_a_grid(tmp_path: Path) -> None:
    source, prose = tmp_path / "samples", tmp_path / "prose"
    source.write_bytes(SAMPLES.tobytes())
    prose.write_bytes((ROOT / "LICENSE").read_bytes())
    options = CompressOptions(steps=1, preset="nano", device="cpu", threads=1)
    sizes = {}
    for context in ("auto", "chunk"):
        more = CompressOptions(**{**vars(options), "context": context, "force": True})
        sizes[context] = mdlzip.compress(source, options=more).archive_bytes
        info = mdlzip.inspect(f"{source}.mdlz")
        if context == "auto":
            assert (info.row_bytes, info.element_bytes) == (600, 2)
            back = mdlzip.decompress(f"{source}.mdlz", tmp_path / "back").path
            assert back is not None and back.read_bytes() == source.read_bytes()
    assert sizes["auto"] < 0.8 * sizes["chunk"]
    mdlzip.compress(prose, options=options)
    assert not mdlzip.inspect(f"{prose}.mdlz").row_bytes
