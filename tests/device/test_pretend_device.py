"""Everything that runs on a GPU, tried on one that is not there, in a process of its own.

The real check is `-m gpu`, on a machine that has one; this one says on any machine whether tensors
of two devices meet, whether a step waits for the device, and whether the integers are the same.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT, cli_environment
from tests.device.scenarios import METHODS, MOVES, SCENARIOS, STEPS

Results = dict[str, dict[str, Any]]
TIMEOUT_S = 280


@pytest.fixture(scope="module")
def results() -> Results:
    """What each scenario found; skips where the device cannot be pretended."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.device.scenarios"],
        capture_output=True, text=True, cwd=ROOT, env=cli_environment(), timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if lines and "unavailable" in lines[0]:
        pytest.skip(lines[0]["unavailable"])
    assert len(lines) == len(SCENARIOS), f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return {line["scenario"]: line for line in lines}


def found(results: Results, scenario: str) -> dict[str, Any]:
    line = results[scenario]
    assert "failed" not in line, line["failed"]
    return line["found"]


@pytest.mark.parametrize("scenario", ["steps", "steps without a window"])
def test_a_step_never_waits_for_the_device(results: Results, scenario: str) -> None:
    for phase, what in found(results, scenario).items():
        assert not what["waits"], f"{phase}: {what['waits']}"


def test_all_phases_lose_what_they_lose_on_the_cpu(results: Results) -> None:
    there, here = found(results, "steps"), found(results, "steps on the CPU")
    for phase, what in there.items():
        assert what["loss"] == pytest.approx(here[phase]["loss"], rel=0.01), phase


@pytest.mark.parametrize("phase", ["dense", "pruned", "rounded"])
def test_products_of_a_window_are_of_bfloat16(results: Results, phase: str) -> None:
    """All but the look-up of what the length of a match adds."""
    products = set(found(results, "steps")[phase]["products"]) - {"mv float32"}
    assert products and {name.split()[1] for name in products} == {"bfloat16"}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(results: Results, name: str) -> None:
    figures = found(results, name)
    assert all(math.isfinite(value) and 0 < value < 9 for value in figures.values())
    assert figures["integer_bits_per_byte"] == pytest.approx(figures["qat_bits_per_byte"], abs=0.1)


@pytest.mark.parametrize("name", MOVES)
def test_checkpoints_move_between_devices(results: Results, name: str) -> None:
    """On the same device to the bit."""
    run = found(results, name)
    assert run["steps"] == STEPS and 0 < run["bits"] < 9
    assert run["same"] or name != "from cuda to cuda"


def test_integers_are_the_same(results: Results) -> None:
    what = found(results, "integers")
    assert what["same"] and what["devices"] == ["cuda:0"]
    assert what["doctor"].startswith("exact"), what["doctor"]


@pytest.mark.parametrize("name", ["archive of chunks", "archive with a context"])
def test_archives_come_back_from_either_device(results: Results, name: str) -> None:
    what = found(results, name)
    assert what["same"] and what["checked"] == [[1]] and what["bytes"] < 2200
    assert "--device cpu" in what["refusal"], "too little memory of the device"


def test_an_error_of_the_device_is_found_on_the_cpu(results: Results) -> None:
    what = found(results, "a device that errs alike")
    assert "the CPU" in what["refusal"] and what["left"] == ["a.txt"]
