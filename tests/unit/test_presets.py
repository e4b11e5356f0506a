"""Presets: every file is sound, the sizes span what the documentation promises."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path

import pytest

from mdlzip import config
from mdlzip.config import ModelConfig
from mdlzip.networks.registry import tensor_shapes

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "models").glob("*.toml"))


def model_of(path: Path) -> ModelConfig:
    return ModelConfig(**tomllib.loads(path.read_text())["model"])


def n_weights(path: Path) -> int:
    return sum(math.prod(shape) for shape in tensor_shapes(model_of(path)).values())


def test_presets_are_found_where_the_package_looks() -> None:
    found = config.presets_dir()
    assert sorted(p.name for p in found.glob("*.toml")) == [p.name for p in PRESETS] != []


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_preset_is_a_model(path: Path) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9-]*", path.stem)
    assert n_weights(path) > 0


def test_sizes_span_the_promise() -> None:
    sizes = {path.stem: n_weights(path) for path in PRESETS}
    assert 20_000 <= min(sizes.values()) <= 100_000
    assert max(sizes.values()) >= 290e6


@pytest.mark.parametrize(("name", "millions"), [("ut4", 4), ("ut25", 25), ("ut308", 308)])
def test_the_papers_models(name: str, millions: float) -> None:
    path = next(p for p in PRESETS if p.stem.endswith(name))
    assert n_weights(path) == pytest.approx(millions * 1e6, rel=0.08)
