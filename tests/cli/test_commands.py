"""The command line from outside: streams, exit codes, one-line messages, nothing lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunCli, cli_environment

NOISE = random.Random(1).randbytes(3000)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    path = tmp_path / "noise"
    path.write_bytes(NOISE)
    return path


@pytest.fixture
def archive(cli: RunCli, noise: Path) -> Path:
    done = cli("compress", "noise", "-q")
    assert done.returncode == 0, done.stderr
    return noise.with_name("noise.mdlz")


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """The only line on stderr; fails on a traceback or a flood."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("mdlzip: ") and "Traceback" not in lines[0]
    return lines[0]


def test_round_trip_and_reports(cli: RunCli, noise: Path) -> None:
    done = cli("compress", "noise")
    assert done.returncode == 0
    out = done.stdout.decode()
    assert out.startswith("noise: 3,000 -> 3,062 bytes") and "total" in out
    noise.unlink()
    done = cli("decompress", "noise.mdlz")
    assert done.returncode == 0 and noise.read_bytes() == NOISE
    assert b"noise.mdlz: 3,000 bytes -> noise" in done.stdout


def test_quiet_says_nothing(cli: RunCli, noise: Path) -> None:
    for arguments in (["compress", "-q", "noise"], ["-t", "-q", "noise.mdlz"]):
        done = cli(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_short_forms_and_pipes(cli: RunCli, archive: Path) -> None:
    assert cli("-dc", "noise.mdlz").stdout == NOISE
    assert cli("-t", "noise.mdlz").stdout == b"noise.mdlz: OK\n"
    assert b"stored" in cli("-l", "noise.mdlz").stdout
    piped = cli("compress", "-", stdin=NOISE)
    assert piped.returncode == 0 and len(piped.stdout) == 3062
    assert b"3,062 bytes" in piped.stderr  # the report must not join the data
    assert cli("decompress", "-", stdin=piped.stdout).stdout == NOISE


def test_decompressing_several_to_stdout_joins_them(cli: RunCli, archive: Path) -> None:
    assert cli("-dc", "noise.mdlz", "noise.mdlz").stdout == NOISE + NOISE


def test_json_is_nothing_but_json(cli: RunCli, archive: Path) -> None:
    listed = json.loads(cli("list", "--json", "noise.mdlz").stdout)
    assert listed["schema"] == 1 and listed["archives"][0]["method"] == "stored"
    ledger = listed["archives"][0]["ledger"]
    assert sum(row["bytes"] for row in ledger[:-1]) == ledger[-1]["bytes"] == 3062
    report = json.loads(cli("compress", "-f", "--json", "noise").stdout)
    assert report["schema"] == 1 and report["files"][0]["figures"]["archive_bytes"] == 3062


def test_several_files_go_on_after_an_error(cli: RunCli, archive: Path) -> None:
    done = cli("test", "nosuch.mdlz", "noise.mdlz")
    assert done.returncode == 1
    assert done.stdout == b"noise.mdlz: OK\n" and "nosuch.mdlz" in one_line(done)


def test_source_is_kept_unless_removed(cli: RunCli, noise: Path) -> None:
    assert cli("compress", "-q", "noise").returncode == 0 and noise.exists()
    assert cli("compress", "-qf", "--rm", "noise").returncode == 0 and not noise.exists()
    assert cli("-d", "-q", "--rm", "noise.mdlz").returncode == 0
    assert noise.read_bytes() == NOISE and not (noise.parent / "noise.mdlz").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("compress nosuch", 1, "nosuch"),
        ("compress .", 2, "folder"),
        ("compress nosuchdir/x -o y", 1, "nosuchdir/x"),
        ("compress noise -o nosuchdir/x", 2, "does not exist"),
        ("compress noise -o noise -f", 2, "same file"),
        ("compress noise -o noise.mdlz", 6, "--force"),
        ("decompress noise.mdlz", 6, "--force"),
        ("decompress noise", 3, "noise"),
        ("test noise", 3, "noise"),
        ("list noise", 3, "noise"),
        ("compress noise --budget 10", 2, "is not a duration"),
        ("compress noise --chunk-size 4Q", 2, "is not a size"),
        ("compress noise --chunk-size 7", 2, "chunk size"),
        ("compress noise --memory lots", 2, "is not a size"),
        ("compress noise --weights json", 2, "coo"),
        ("compress noise --budget 1m --steps 3", 2, "exclude each other"),
        ("compress noise --budget 1m -5", 2, "exclude each other"),
        ("compress noise --rm -k", 2, "exclude each other"),
        ("compress noise -c -o x", 2, "exclude each other"),
        ("compress noise noise -o x", 2, "one FILE"),
        ("compress noise --progress loud", 2, "choose one of"),
        ("-dt noise", 2, "choose one of"),
        ("compress noise --device gpu", 2, "--device gpu"),
        ("compress noise --device meta", 2, "--device meta"),
        ("test noise.mdlz --device cuda:99999", 2, "--device cuda:99999"),
        ("bench noise --against rar", 2, "choose from"),
        ("bench nosuch --no-model", 1, "no such file"),
        ("bench noise --archive -", 2, "name of a file"),
        ("bench noise noise.mdlz --archive x", 2, "one FILE"),
        ("bench noise --no-model -o noise -f", 2, "same file"),
        ("bench noise noise.mdlz --no-model -o noise.mdlz -f", 2, "same file"),
        ("bench noise --no-model -o nosuchdir/x", 2, "does not exist"),
        ("study transformer noise -o noise", 2, "not a folder"),
        ("study transformer noise -o nosuchdir/x", 2, "does not exist"),
        ("study transformer noise -o .", 2, "places of their own"),
        ("study transformer noise -o -", 2, "folder"),
        ("study mnist --data . -o inside", 2, "places of their own"),
        ("study mnist --data . --set x", 2, "KEY=VALUE"),
        ("study mnist --data . --alpha nan", 2, "--alpha nan"),
        ("bench . --no-model", 2, "regular file"),
        ("export noise.mdlz -o w.safetensors", 2, "no weights"),
    ],
)
def test_mistakes_cost_one_line(
    arguments: str, code: int, words: str, cli: RunCli, archive: Path
) -> None:
    before = sorted(os.listdir(archive.parent))
    done = cli(*arguments.split())
    assert words in one_line(done)
    assert done.returncode == code
    assert sorted(os.listdir(archive.parent)) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("compress --bogus noise", "No such option: --bogus"),
        ("nonsense", "nonsense: no such command or file"),
        ("comprss noise", "did you mean compress?"),
        ("compress noise -T 0", "--threads"),
        ("compress noise -e", "No such option: -e"),
        ("compress noise --steps 0", "--steps"),
        ("compress noise --seed", "requires an argument"),
        ("export noise", "Missing option"),
        ("study nosuch", "No such command"),
    ],
)
def test_wrong_usage_is_code_2(arguments: str, words: str, cli: RunCli, noise: Path) -> None:
    done = cli(*arguments.split())
    assert done.returncode == 2 and done.stdout == b"" and words in one_line(done)


@pytest.mark.parametrize("option", ["-o", "--config", "--work-dir", "--metrics"])
def test_an_empty_name_is_not_the_current_folder(option: str, cli: RunCli, noise: Path) -> None:
    assert "empty" in one_line(done := cli("compress", "noise", option, ""))
    assert done.returncode == 2


@pytest.mark.parametrize("verb", [None, "compress", "decompress", "test", "list", "bench"])
def test_an_empty_file_name_is_called_that(verb: str | None, cli: RunCli) -> None:
    assert "empty" in one_line(done := cli(*filter(None, [verb]), "")) and done.returncode == 2


def test_damage_is_code_3(cli: RunCli, archive: Path) -> None:
    damaged = bytearray(archive.read_bytes())
    damaged[1000] ^= 1
    archive.write_bytes(damaged)
    for verb in ("test", "decompress -f"):
        done = cli(*verb.split(), "noise.mdlz")
        assert done.returncode == 3
        one_line(done)


def test_traceback_only_with_vv(cli: RunCli, noise: Path) -> None:
    assert b"Traceback" not in cli("decompress", "-v", "noise").stderr
    assert b"Traceback" in cli("decompress", "-vv", "noise").stderr


def test_names_that_look_like_options(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "-5").write_bytes(NOISE)
    assert cli("compress", "-q", "--", "-5").returncode == 0
    assert cli("-dc", "--", "-5.mdlz").stdout == NOISE


def test_a_reader_that_leaves_is_no_news(archive: Path) -> None:
    shown = ["--help"], ["compress", "--help"], ["--version"], ["test", archive]
    for arguments in (["list", "--json", archive], ["decompress", "-c", archive], *shown):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "mdlzip", *map(str, arguments)],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=cli_environment(),
            timeout=60,
            check=False,
        )
        os.close(writer)
        assert (done.stderr, done.returncode) == (b"", 141), arguments


def test_bench_without_a_model(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes((ROOT / "LICENSE").read_bytes())
    arguments = ("bench", "text", "--no-model", "--against", "xz-9e,chunk-lzma2,gzip-6")
    done = cli(*arguments, "-o", "out.json")
    assert done.returncode == 0, done.stderr
    assert [w in done.stdout.decode() for w in ("xz-9e", "chunk-lzma2", "gzip-6")] == [True] * 3
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["schema"] == 1 and len(written["files"][0]["baselines"]) == 3
    assert cli(*arguments, "-o", "out.json").returncode == 6
    assert json.loads(cli(*arguments, "--json").stdout)["files"][0]["file"] == "text"
    before = sorted(os.listdir(tmp_path))
    printed = json.loads(cli(*arguments, "-o", "-").stdout)
    assert len(printed["files"][0]["baselines"]) == 3 and sorted(os.listdir(tmp_path)) == before
