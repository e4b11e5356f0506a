"""The memory that `list` predicts for decoding is what decoding takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdlzip.symbols.context import GROUP, REFERENCE, SOLID
from tests.memory_tools import ALONE, measure, measure_context, preset_names

TOLERANCE = 0.2


def test_a_small_preset(tmp_path: Path) -> None:
    measure("nano", tmp_path, train=False)  # compiles what is compiled once
    assert abs(measure("nano", tmp_path, train=False).error) <= TOLERANCE


CASES = [("nano", GROUP), ("nano", REFERENCE), ("nano", SOLID), (ALONE, REFERENCE), (ALONE, SOLID)]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is compiled once is compiled."""
    measure_context("nano", SOLID, tmp_path_factory.mktemp("compiled"))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(("preset", "mode"), CASES)
def test_a_context(preset: str, mode: str, tmp_path: Path) -> None:
    assert abs(measure_context(preset, mode, tmp_path).error) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("mode", [GROUP, REFERENCE, SOLID])
def test_a_larger_network_in_a_context(mode: str, tmp_path: Path) -> None:
    assert abs(measure_context("base", mode, tmp_path).error) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("preset", preset_names()[1:])
def test_every_preset(preset: str, tmp_path: Path) -> None:
    """Decoding, beyond a minute only until weights and caches are there."""
    assert abs(measure(preset, tmp_path, train=False).error) <= TOLERANCE
