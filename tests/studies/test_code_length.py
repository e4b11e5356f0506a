"""Code lengths of numbers and of learning, against hand-worked cases and the paper's constants."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mdlzip.errors import UsageError
from mdlzip.studies.code_length import (
    PowerLaw,
    best_sigma,
    gaussian_bits,
    regression_bits,
)
from mdlzip.training.metrics import Metrics, prequential_bytes, read_metrics, step_seconds


def test_gaussian_bits_by_hand() -> None:
    """sigma = 1 / sqrt(2 pi): the density at 0 is 1, so a residual of 0 costs nothing."""
    sigma = 1 / math.sqrt(2 * math.pi)
    assert gaussian_bits(np.zeros(7), sigma) == pytest.approx(np.zeros(7))
    assert gaussian_bits(np.array([sigma]), sigma) == pytest.approx([0.5 / math.log(2)])
    with pytest.raises(UsageError, match="sigma"):
        gaussian_bits(np.zeros(1), 0.0)


def test_the_best_sigma_is_the_root_mean_square() -> None:
    residuals = np.random.default_rng(0).normal(0, 0.3, 500)
    best = best_sigma(residuals)
    least = gaussian_bits(residuals, best).sum()
    assert best == pytest.approx(0.3, rel=0.1)
    assert all(gaussian_bits(residuals, best * f).sum() > least for f in (0.9, 1.1))


def test_regression_bits_count_cells_of_float32() -> None:
    """At y in [1, 2) float32 is 2^-23 fine; noise of 2^-10 costs 13 + 2.05 bits."""
    rng = np.random.default_rng(1)
    targets = rng.uniform(1.1, 1.9, 4000)
    residuals = rng.normal(0, 2.0**-10, 4000)
    bits = regression_bits(targets, residuals, 2.0**-10) / 4000
    assert bits == pytest.approx(13 + 0.5 * math.log2(2 * math.pi * math.e), abs=0.05)
    assert regression_bits(targets, np.zeros(4000), 1e-30) == 0  # never below nothing


def test_the_power_law_of_the_paper() -> None:
    """Eq. 37 at 1,400 G tokens is the loss it was fitted to; its area in GB by nats and by hand."""
    law = PowerLaw(2.7553, -0.0793)
    assert law(1400) == pytest.approx(1.55, abs=0.01)
    x = np.linspace(1 + 1e-6, 1400, 2_000_001)
    y = law.a * (x - 1) ** law.b
    area = float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())
    assert law.area(1400) == pytest.approx(area, rel=1e-4)
    # Appendix E prints 6349.41 for this area and multiplies by ln 2 where one must divide.
    assert law.area(1400) / (8 * math.log(2)) == pytest.approx(425.1, abs=0.1)
    assert 6349.41 * math.log(2) / 8 == pytest.approx(550, abs=1)
    assert 1.54 * 1400 * math.log(2) / 8 == pytest.approx(187, abs=1)
    assert 1.54 * 1400 / (8 * math.log(2)) == pytest.approx(388.8, abs=0.1)


def test_a_power_law_without_an_area() -> None:
    with pytest.raises(UsageError, match="not finite"):
        PowerLaw(1.0, -1.0).area(10)


def test_online_code_length_by_hand(tmp_path: Path) -> None:
    """8 bits a byte falling to 4 over 100 bytes, then flat for 100: 100 * 6 / 8 + 100 * 4 / 8."""
    path = tmp_path / "m.jsonl"
    metrics = Metrics(path)
    for seen, bits in ((0, 8.0), (100, 4.0), (200, 4.0), (300, 1.0)):
        metrics.write("step", bytes_seen=seen, bits_per_byte=bits)
    metrics.write("finish", steps=4)
    metrics.close()
    with path.open("a") as file:
        file.write('{"event": "st')  # killed while writing
    records = read_metrics(path)
    assert prequential_bytes(records, 200) == pytest.approx(125)
    assert prequential_bytes(records, 150) == pytest.approx(100)
    with pytest.raises(UsageError, match="covers 300 of 301 bytes"):
        prequential_bytes(records, 301)
    with pytest.raises(UsageError, match="covers 0 of"):
        prequential_bytes([], 10)


def test_time_of_a_step_is_the_median_before_pruning() -> None:
    """A checkpoint in the third interval and cheaper steps under the mask do not count."""
    records = [
        {"event": "step", "step": step, "elapsed_s": at}
        for step, at in ((0, 0.5), (1, 0.7), (11, 2.7), (21, 12.7), (31, 14.9))
    ]
    cheap = [{"event": "step", "step": 41 + 10 * i, "elapsed_s": 15.0 + i / 10} for i in range(9)]
    assert step_seconds([*records, {"event": "prune", "step": 40}, *cheap]) == pytest.approx(0.21)
    assert step_seconds(records[:1]) == 0.0
    assert step_seconds([]) == 0.0
