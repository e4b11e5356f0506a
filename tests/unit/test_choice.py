"""The planner's choice of a preset: each can be reached, by content and by budget, at its bound."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mdlzip.codec import CompressOptions
from mdlzip.config import load_preset
from mdlzip.networks.registry import n_cells
from mdlzip.training.choice import _GPU_LADDER, _LADDER, TrainingSpeed, choose_preset

GPU = TrainingSpeed(1e14, 5e-6)
FOREVER = 1e12  # seconds
SYMBOLS = 4_000_000
WEIGHTS = {name: n_cells(load_preset(name).model) for name in _GPU_LADDER}


def chosen(lzma_bytes: int, budget_s: float = FOREVER, device: str = "cpu", **more: object) -> str:
    options = CompressOptions(**more)  # type: ignore[arg-type]
    speed_of = None if device == "cpu" else lambda where: GPU
    return choose_preset(options, SYMBOLS, lzma_bytes, budget_s, device, speed_of).name


@pytest.mark.parametrize(("device", "ladder"), [("cpu", _LADDER), ("cuda", _GPU_LADDER)])
def test_a_file_pays_for_half_a_weight_a_byte(device: str, ladder: tuple[str, ...]) -> None:
    for smaller, name in pairwise(ladder):
        enough = 2 * WEIGHTS[name]
        assert chosen(enough, device=device) == name
        assert chosen(enough - 2, device=device) == smaller
    assert chosen(1, device=device) == ladder[0]
    assert chosen(10**12, device=device) == ladder[-1]


def test_a_larger_budget_never_chooses_a_smaller_preset() -> None:
    seen = [chosen(10**9, budget_s=10.0**exponent) for exponent in range(-6, 13)]
    places = [_LADDER.index(name) for name in seen]
    assert places == sorted(places) and (seen[0], seen[-1]) == (_LADDER[0], _LADDER[-1])
    assert len(set(seen)) > 2, "a middle preset for a middle budget"


def test_the_budget_limits_the_preset_on_a_gpu() -> None:
    large, huge = (10 * GPU.pass_s(load_preset(name), SYMBOLS) for name in ("large", "huge"))
    for device in ("cuda", "cuda:1"):
        budgets = (large / 2, large + 1, huge - 1, huge + 1, FOREVER)
        seen = [chosen(10**9, budget_s=budget, device=device) for budget in budgets]
        assert seen == ["nano", "large", "large", "huge", "huge"]


def test_launches_count_where_products_are_short() -> None:
    """A small network on a GPU takes as long as its launches, a large one as its products."""
    nano, huge = (load_preset(name) for name in ("nano", "huge"))
    fast = TrainingSpeed(GPU.flops)
    assert GPU.pass_s(nano, SYMBOLS) > 5 * fast.pass_s(nano, SYMBOLS)
    assert GPU.pass_s(huge, 1e9) == pytest.approx(fast.pass_s(huge, 1e9), rel=0.5)


def test_what_the_user_chose_is_not_changed() -> None:
    assert chosen(10**9, preset="nano") == "nano"
    options = CompressOptions(preset="mini", method="drr", overrides=("model.n_layers=1",))
    preset = choose_preset(options, SYMBOLS, 1, 1.0, "cpu")
    assert (preset.name, preset.train.method, preset.model.n_layers) == ("mini", "drr", 1)
