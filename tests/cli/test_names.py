"""File names are text from outside: they must not break a report, a terminal or a job."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mdlzip.report import printable
from tests.conftest import RunCli, cli_environment

NOISE = random.Random(3).randbytes(1000)
TEXT = b"the same words again and again\n" * 40
STRICT = {"PYTHONIOENCODING": "utf-8:strict"}  # as stdout is in a locale such as en_US.UTF-8
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
BAD_BYTES = os.fsdecode(b"bad\xff\xfename.txt")
NASTY = "red\x1b[31m bell\x07 line\nmdlzip: all is well \u202egnp.\u200b\x9b.txt"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.txt", "plain name.txt"),
        ("漢字 é\u3000.txt", "漢字 é\u3000.txt"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[2J\x07\x7f\x9b", r"\x1b[2J\x07\x7f\x9b"),
        ("\u202e\u200d\u2028\ue000", r"\u202e\u200d\u2028\ue000"),
        (os.fsdecode(b"\xff\x80"), r"\xff\x80"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_a_name_that_is_no_text_stops_nothing(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / BAD_BYTES).write_bytes(NOISE)
    (tmp_path / "ok.txt").write_bytes(NOISE)
    done = cli("compress", BAD_BYTES, "ok.txt", env=STRICT)
    assert done.returncode == 0, done.stderr
    assert rb"bad\xff\xfename.txt: 1,000 -> " in done.stdout and b"\nok.txt: " in done.stdout
    for verb in ("test", "list"):
        done = cli(verb, f"{BAD_BYTES}.mdlz", "ok.txt.mdlz", env=STRICT)
        assert done.returncode == 0 and rb"bad\xff\xfename.txt.mdlz" in done.stdout
    done = cli("decompress", "-f", "--rm", f"{BAD_BYTES}.mdlz", "ok.txt.mdlz", env=STRICT)
    assert done.returncode == 0 and (tmp_path / BAD_BYTES).read_bytes() == NOISE


def test_json_is_ascii_and_gives_the_very_name_back(cli: RunCli, tmp_path: Path) -> None:
    for name in (BAD_BYTES, NASTY, "漢字.txt"):
        (tmp_path / name).write_bytes(NOISE)
        entry = json.loads(cli("compress", "-f", "--json", name).stdout.decode("ascii"))["files"][0]
        assert os.fsencode(entry["file"]) == os.fsencode(name)
        listed = json.loads(cli("list", "--json", f"{name}.mdlz").stdout.decode("ascii"))
        assert os.fsencode(listed["archives"][0]["file"]) == os.fsencode(f"{name}.mdlz")


@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", NASTY, "-f"), ("decompress", f"{NASTY}.mdlz", "-f"),
        ("test", f"{NASTY}.mdlz"), ("list", f"{NASTY}.mdlz"), ("list", "-v", f"{NASTY}.mdlz"),
        ("test", NASTY), ("compress", f"missing{NASTY}"), ("decompress", f"{NASTY}.mdlz"),
        ("bench", NASTY, "--no-model", "--against", "gzip-6"), (f"nosuch{NASTY}",),
        ("compress", NASTY, "--preset", "nano", "--budget", NASTY), ("-d", NASTY, "-o", NASTY),
        ("study", "transformer", NASTY, "-o", "-"), ("test", f"{NASTY}.mdlz", "-vv", "-f" + NASTY),
    ],
)  # fmt: skip
def test_no_control_character_reaches_the_terminal(
    arguments: tuple[str, ...], cli: RunCli, tmp_path: Path
) -> None:
    (tmp_path / NASTY).write_bytes(NOISE)
    assert cli("compress", "-q", NASTY).returncode == 0
    done = cli(*arguments)
    out = (done.stdout + done.stderr).decode()
    assert out and not [c for c in out if c != "\n" and not c.isprintable()]
    assert not any(line.startswith("mdlzip: all is well") for line in out.splitlines())


def test_stored_names_are_listed_escaped(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "a\u202egnp.txt").write_bytes(TEXT)
    assert cli("compress", "-q", "a\u202egnp.txt", "-o", "x.mdlz").returncode == 0
    assert rb"name: a\u202egnp.txt" in cli("list", "-v", "x.mdlz").stdout


def test_a_stored_name_that_the_locale_cannot_hold(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "漢字.txt").write_bytes(TEXT)
    assert cli("compress", "-q", "漢字.txt", "-o", "cjk.mdlz").returncode == 0
    done = cli("list", "-v", "cjk.mdlz", env=ASCII)
    assert done.returncode == 0 and rb"name: \u6f22\u5b57.txt" in done.stdout
    assert json.loads(cli("list", "--json", "cjk.mdlz", env=ASCII).stdout)
    done = cli("decompress", "cjk.mdlz", env=ASCII)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cjk").read_bytes() == TEXT


@pytest.mark.parametrize("name", [".profile", "-rf", "a\u202eb"])
def test_a_strangers_name_is_taken_only_if_asked_for(
    name: str, cli: RunCli, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(TEXT)
    assert cli("compress", "-q", "--rm", "-o", "x.mdlz", "--", name).returncode == 0
    assert cli("decompress", "-q", "x.mdlz").returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["x", "x.mdlz"]
    assert cli("-dqN", "x.mdlz").returncode == 0
    assert (tmp_path / name).read_bytes() == TEXT


def to(stdout: int, folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mdlzip", *arguments],
        cwd=folder,
        env=cli_environment(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_report_that_cannot_be_printed_costs_no_archive(form: list[str], tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(NOISE)
    with open("/dev/full", "wb") as full:
        done = to(full.fileno(), tmp_path, "compress", "a", "b", *form)
        assert done.returncode == 1
        told = done.stderr.decode()
        assert "a.mdlz" in told and "b.mdlz" in told and "complete, but not reported" in told
        assert all(line.startswith("mdlzip: ") for line in told.splitlines())
        done = to(full.fileno(), tmp_path, "decompress", "-f", "a.mdlz", "b.mdlz", *form)
        assert done.returncode == 1 and b"complete, but not reported" in done.stderr
    for name in "ab":
        assert to(subprocess.DEVNULL, tmp_path, "test", f"{name}.mdlz").returncode == 0


def test_a_reader_of_reports_who_leaves_costs_no_archive(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(NOISE)
    reader, writer = os.pipe()
    os.close(reader)
    done = to(writer, tmp_path, "compress", "a", "b")
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
    for name in "ab":
        assert to(subprocess.DEVNULL, tmp_path, "test", f"{name}.mdlz").returncode == 0
