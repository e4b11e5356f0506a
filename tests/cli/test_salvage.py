"""`mdlzip decompress --salvage` as it is called: names, exit codes, ranges, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.archive_tools import general_archive
from tests.conftest import RunCli

DATA = np.random.default_rng(3).bytes(200_000)
BLOCK = 65536


@pytest.fixture
def damaged(tmp_path: Path) -> bytes:
    """A stored archive, `a.bin.mdlz`, whose second block is damaged; the undamaged one."""
    archive = general_archive("stored", DATA)
    path = tmp_path / "a.bin.mdlz"
    path.write_bytes(archive[:100_000] + bytes(50) + archive[100_050:])
    return archive


def test_what_is_lost_is_listed_and_the_plain_name_is_not_taken(
    cli: RunCli, tmp_path: Path, damaged: bytes
) -> None:
    done = cli("decompress", "a.bin.mdlz")
    assert done.returncode == 3
    assert b"--salvage gives back what is whole" in done.stderr
    done = cli("decompress", "--salvage", "a.bin.mdlz")
    assert done.returncode == 3
    assert done.stderr.decode() == "a.bin.mdlz: bytes 65,536 to 131,071: lost\n"
    assert b"134,464 of 200,000 bytes -> a.bin.salvaged: NOT the whole" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin.mdlz", "a.bin.salvaged"]
    found = (tmp_path / "a.bin.salvaged").read_bytes()
    assert found == DATA[:BLOCK] + bytes(BLOCK) + DATA[2 * BLOCK :]
    assert cli("decompress", "--salvage", "a.bin.mdlz").returncode == 6


def test_left_out_to_standard_output(cli: RunCli, damaged: bytes) -> None:
    done = cli("decompress", "--salvage", "--skip-damaged", "-c", "a.bin.mdlz")
    assert (done.returncode, done.stdout) == (3, DATA[:BLOCK] + DATA[2 * BLOCK :])
    assert done.stderr == b"a.bin.mdlz: bytes 65,536 to 131,071: lost\n"


def test_json(cli: RunCli, damaged: bytes) -> None:
    done = cli("decompress", "--salvage", "a.bin.mdlz", "--json", "-o", "out")
    entry = json.loads(done.stdout)["files"][0]
    assert done.returncode == 3 and entry["output"] == "out"
    assert entry["salvage"] == {
        "verified": False,
        "lost_bytes": BLOCK,
        "damage": [{"start": BLOCK, "stop": 2 * BLOCK, "lost": True}],
        "repaired": [],
    }


def test_a_second_copy_and_a_flipped_bit(cli: RunCli, tmp_path: Path, damaged: bytes) -> None:
    other = bytearray(damaged)
    other[9] ^= 4
    other[-100] ^= 1
    (tmp_path / "other.mdlz").write_bytes(other)
    done = cli("decompress", "--salvage", "a.bin.mdlz", "--from-copy", "other.mdlz")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.bin.salvaged").read_bytes() == DATA
    assert b"whole, and its SHA-256 is right" in done.stdout
    done = cli("decompress", "--salvage", "other.mdlz")
    assert (done.returncode, done.stderr) == (
        0,
        b"other.mdlz: header section: a flipped bit was put right\n",
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--skip-damaged", "a.bin.mdlz"), 2),
        (("--from-copy", "a.bin.mdlz", "a.bin.mdlz"), 2),
        (("--salvage", "--rm", "a.bin.mdlz"), 2),
        (("--salvage", "-N", "a.bin.mdlz"), 2),
        (("--salvage", "-"), 2),
        (("--salvage", "a.bin.mdlz", "--from-copy", "missing"), 1),
        (("--salvage", "a.bin.mdlz", "-o", "a.bin.mdlz", "-f"), 2),
        (("--salvage", "a.bin.mdlz", "--from-copy", "a.bin.mdlz", "-o", "a.bin.mdlz", "-f"), 2),
        (("--salvage", "empty"), 3),
    ],
)
def test_wrong_calls_are_one_line(
    cli: RunCli, tmp_path: Path, damaged: bytes, words: tuple[str, ...], code: int
) -> None:
    (tmp_path / "empty").touch()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    done = cli("decompress", *words)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}
