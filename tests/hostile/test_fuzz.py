"""A few hundred mutants of the fuzzer, and that it finds what it looks for."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, cli_environment
from tests.fuzz import judge as judging
from tests.fuzz.corpus import golden, random_document
from tests.fuzz.document import parse
from tests.fuzz.judge import Verdict, judge
from tests.fuzz.run import fuzz, make_mutant
from tests.second_decoder import fields

MUTANTS, SECONDS = 300, 150.0  # a quarter of a minute on an idle core; the limit is for loaded ones


@pytest.mark.timeout(280)
def test_no_mutant_shows_a_fault(tmp_path: Path) -> None:
    tally = fuzz(1, tmp_path, mutants=MUTANTS, seconds=SECONDS)
    assert not tally.faults, tally.text()
    assert tally.total >= 50
    assert tally.counts[Verdict.ACCEPTED] > tally.total // 10
    assert tally.counts[Verdict.REFUSED] > tally.total // 3
    assert tally.counts[Verdict.UNCHECKED] < tally.total // 5
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_makes_the_same_mutants() -> None:
    mutants = [make_mutant(5, number) for number in range(12)]
    assert mutants == [make_mutant(5, number) for number in range(12)]
    assert len({mutant.archive for mutant in mutants}) >= 10
    assert make_mutant(6, 0) != mutants[0]


def test_documents_are_packed_as_they_were() -> None:
    for path in sorted((ROOT / "tests" / "golden").glob("*.mdlz")):
        archive = path.read_bytes()
        assert parse(archive).pack() == archive, path.name
    assert len(golden()) >= 8


def test_it_finds_a_rule_that_one_decoder_forgot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second decoder takes numbers out of their range; the fault is kept and made again."""
    original = fields.Fields.number

    def lenient(self: fields.Fields, n: int, least: int = 0, most: int = 2**64) -> int:
        value = original(self, n, min(least, 0), 2**64)
        return max(value, least) if least > 0 else value

    monkeypatch.setattr(fields.Fields, "number", lenient)
    tally = fuzz(2, tmp_path, mutants=150, seconds=60)
    found = [f for f in tally.faults if f[1].verdict is Verdict.DISAGREE]
    assert found, tally.text()
    mutant, _, path = found[0]
    assert path.read_bytes() == mutant.archive == make_mutant(2, mutant.number).archive


def test_crashes_hangs_and_wrong_outputs_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = (ROOT / "tests" / "golden" / "v1-stored.mdlz").read_bytes()
    assert judge(archive, pipe=False).verdict is Verdict.ACCEPTED

    def fails(*_: object, **__: object) -> bytes:
        raise IndexError("list index out of range")

    def hangs(*_: object, **__: object) -> bytes:
        while True:
            time.sleep(0.01)

    for decoder, verdict in [
        (fails, Verdict.CRASH),
        (hangs, Verdict.HANG),
        (lambda *_, **__: b"other bytes", Verdict.WRONG),
    ]:
        monkeypatch.setattr(judging, "TIME_LIMIT_S", 0.2)
        monkeypatch.setattr(judging, "decode", decoder)
        assert judge(archive, pipe=False).verdict is verdict


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "3", "--folder", str(tmp_path)]
    for options in (["--only", "4"], ["--minutes", "0.03"]):
        done = subprocess.run(
            [*command, *options],
            cwd=ROOT,
            env=cli_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("seed 3: ")


def test_random_documents_are_right() -> None:
    for number in range(12):
        document = random_document(random.Random(number))
        assert judge(document.pack(), pipe=False).verdict in (Verdict.ACCEPTED, Verdict.UNCHECKED)
