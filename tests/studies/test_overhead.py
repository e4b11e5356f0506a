"""`mdlzip study overhead`: the arithmetic by hand, the command on text of the repository."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mdlzip.codec import CompressOptions
from mdlzip.errors import UsageError
from mdlzip.studies.overhead import measure_overhead, paired_costs
from tests.conftest import ROOT, RunCli
from tests.symbol_tools import Held

SMALL = (
    "--preset", "nano", "--threads", "1", "--progress", "never",
    "--set", "model.d_model=16", "--set", "model.d_ff=32", "--set", "train.vocabulary=0",
)  # fmt: skip


def test_rounds_are_compared_with_themselves() -> None:
    """The machine is half as fast in the last two rounds: of the medians that would be +110 %."""
    none, pmmp = paired_costs(
        {"none": [1.0, 1.0, 1.0, 2.0, 2.0], "pmmp": [1.1, 1.0, 1.2, 2.2, 2.4]}
    )
    assert (none.overhead, none.low, none.high) == (0.0, 0.0, 0.0)
    assert none.step_seconds == 1.0 and pmmp.step_seconds == 1.2
    assert (pmmp.overhead, pmmp.low, pmmp.high) == pytest.approx((0.1, 0.1, 0.2))


@pytest.mark.slow
def test_the_command_times_every_method(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes((ROOT / "LICENSE").read_bytes()[:6000])
    command = ("study", "overhead", "text", *SMALL, "--rounds", "3", "--method", "pmmp,rl1,none")
    done = cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [cost["method"] for cost in found["costs"]] == ["none", "pmmp", "rl1"]
    assert found["costs"][0]["overhead"] == 0.0 and found["preset"] == "nano"
    for cost in found["costs"]:
        assert cost["step_seconds"] > 0 and cost["low"] <= cost["overhead"] <= cost["high"]
    lines = cli(*command).stdout.decode().splitlines()
    assert lines[0].startswith("nano: ") and lines[0].endswith("bytes a step, cpu, threads: 1")
    assert [line.split()[0] for line in lines[2:]] == ["none", "pmmp", "rl1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]


def test_bad_input_is_one_line(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for arguments, code, words in (
        (("empty",), 2, b"an empty file has nothing to train on"),
        (("missing",), 1, b"missing: cannot open"),
        (("empty", "--method", "rl3"), 2, b"rl3"),
    ):
        done = cli("study", "overhead", *arguments)
        assert done.returncode == code, done.stderr
        assert words in done.stderr and done.stderr.count(b"\n") == 1
    with pytest.raises(UsageError, match="0 rounds"):
        measure_overhead(Held(np.ones(9, np.uint8)), ["rl1"], CompressOptions(), 0, lambda *_: None)
