"""mdlzip as gzip, xz and tar call a compressor."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mdlzip.cli.app import app
from mdlzip.cli.short_forms import Grammar, expand
from mdlzip.errors import UsageError
from tests.cli.test_terminal import run_on_terminal
from tests.conftest import RunCli, cli_environment

NOISE = random.Random(5).randbytes(3000)
PROGRAM: Any = typer.main.get_command(app)
GRAMMAR = Grammar.of(PROGRAM)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("-d f.mdlz", "decompress f.mdlz"),
        ("f.mdlz -d", "decompress f.mdlz"),
        ("-t f", "test f"),
        ("-l f", "list f"),
        ("--decompress f", "decompress f"),
        ("--uncompress f", "decompress f"),
        ("-dc f", "decompress -c f"),
        ("-fd f", "decompress -f f"),
        ("-f -d f", "decompress -f f"),
        ("-vv -d f", "decompress -v -v f"),
        ("-T 4 -d f", "decompress -T 4 f"),
        ("-dT4 f", "decompress -T4 f"),
        ("-o d -d f", "decompress -o d f"),
        ("--memory 1G -kd f", "decompress --memory 1G -k f"),
        ("--memory=1G -l f", "list --memory=1G f"),
        ("-9 -d", "decompress"),
        ("-9 --preset nano --budget=10m --no-verify -d", "decompress"),
        ("-d9c f", "decompress -c f"),
        ("-q compress f", "compress -q f"),
        ("-vq list f -- -d", "list -v -q f -- -d"),
        ("-d list", "decompress list"),
        ("-- -d", "compress -- -d"),
        ("- -9", "compress - -9"),
        ("-9", "compress -9"),
        ("-q", "compress -q"),
        ("-o -d -9", "compress -o -d -9"),
        ("--seed -5 -", "compress --seed -5 -"),
        ("compress -d f", "compress -d f"),
        ("compress -o -d f", "compress -o -d f"),
        ("list -v f", "list -v f"),
        ("study mnist", "study mnist"),
        ("--version", "--version"),
        ("-q --version", "--version"),
        ("-h", "-h"),
        ("-9h", "-h"),
    ],
)
def test_what_is_meant(typed: str, meant: str) -> None:
    assert expand(typed.split(), GRAMMAR) == meant.split()


@pytest.mark.parametrize("typed", ["-dt f", "-d -l f", "-d f --test", "-ld -f"])
def test_contradicting_short_forms(typed: str) -> None:
    with pytest.raises(UsageError, match="choose one of -d, -t and -l"):
        expand(typed.split(), GRAMMAR)


def flags(command: str) -> list[str]:
    options = [p for p in PROGRAM.commands[command].params if p.param_type_name == "option"]
    plain = [p for p in options if p.is_flag or p.count]
    return [word for p in plain for word in (*p.opts, *p.secondary_opts)]


@pytest.mark.parametrize("command", ["compress", "bench"])
def test_a_level_after_every_flag(command: str) -> None:
    assert len(flags(command)) > 5
    for flag in flags(command):
        context = PROGRAM.commands[command].make_context(command, [flag, "-5", "f"])
        assert context.params["level"] == 5, flag


@pytest.mark.parametrize(
    ("words", "level"),
    [("-9", 9), ("-k9", 9), ("-9k", 9), ("-vq1f", 1), ("-1 -9", 9), ("-9 --level 3", 3)],
)
def test_levels_and_joined_letters(words: str, level: int) -> None:
    context = PROGRAM.commands["compress"].make_context("compress", [*words.split(), "f"])
    assert context.params["level"] == level


def test_the_value_of_an_option_is_no_level(cli: RunCli, tmp_path: Path) -> None:
    context = PROGRAM.commands["compress"].make_context("compress", ["-T4", "-o", "-5", "f"])
    params = context.params
    assert (params["threads"], params["output"], params["level"]) == (4, "-5", None)
    assert cli("compress", "--seed", "-5", "f").returncode == 2


def test_a_file_alone_is_compressed(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(NOISE)
    for words in (["noise"], ["-9", "-f", "noise"], ["-f9q", "noise"], ["noise", "-qf"]):
        assert cli(*words).returncode == 0
    (tmp_path / "noise").unlink()
    assert cli("-dq", "noise.mdlz").returncode == 0
    assert (tmp_path / "noise").read_bytes() == NOISE


@pytest.mark.parametrize("verb", [[], ["-9"], ["compress"], ["-c"], ["-q"]])
def test_between_two_pipes(verb: list[str], cli: RunCli) -> None:
    packed = cli(*verb, stdin=NOISE)
    assert packed.returncode == 0 and packed.stderr == b"", packed.stderr
    for back in (["-d"], ["decompress"], ["-9", "-d"], ["-dc"]):
        assert cli(*back, stdin=packed.stdout).stdout == NOISE
    assert cli("-t", stdin=packed.stdout).stdout == b"-: OK\n"
    assert b"stored" in cli("-l", stdin=packed.stdout).stdout


@pytest.mark.parametrize("words", [["compress"], ["-9"], ["-d"], ["test"], ["list"]])
def test_no_file_at_a_terminal_is_wrong_usage(words: list[str], tmp_path: Path) -> None:
    code, error = run_on_terminal(tmp_path, *words, stream="stdin")
    assert code == 2 and error.startswith(b"mdlzip: no FILE is given") and error.count(b"\n") == 1


def test_nothing_at_all_at_a_terminal_shows_the_help(tmp_path: Path) -> None:
    code, error = run_on_terminal(tmp_path, stream="stdin")
    assert code == 2 and error.startswith(b"Usage: mdlzip")


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("options", ["", " -9", " -q --preset nano"])
def test_tar_uses_it_as_a_filter(options: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "noise").write_bytes(NOISE[:500])  # too little for a model
    program = f"{sys.executable} -m mdlzip{options}"

    def tar(*words: str) -> None:
        done = subprocess.run(
            ["tar", "-I", program, *words],
            cwd=tmp_path,
            env=cli_environment(MDLZIP_DEVICE="cpu", MDLZIP_THREADS="1"),
            capture_output=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    tar("-cf", "x.tar.mdlz", "folder")
    shutil.rmtree(tmp_path / "folder")
    tar("-xf", "x.tar.mdlz")
    assert (tmp_path / "folder" / "noise").read_bytes() == NOISE[:500]
    tar("-tf", "x.tar.mdlz")
