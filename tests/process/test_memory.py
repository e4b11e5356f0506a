"""The memory that `list` predicts for decoding is what decoding takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.memory_tools import measure, preset_names

TOLERANCE = 0.2


def test_a_small_preset(tmp_path: Path) -> None:
    measure("nano", tmp_path, train=False)  # compiles what is compiled once
    assert abs(measure("nano", tmp_path, train=False).error) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("preset", preset_names()[1:])
def test_every_preset(preset: str, tmp_path: Path) -> None:
    """Decoding, beyond a minute only until weights and caches are there."""
    assert abs(measure(preset, tmp_path, train=False).error) <= TOLERANCE
