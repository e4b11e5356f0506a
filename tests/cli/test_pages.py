"""Commands and examples in the pages run as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

import mdlzip
from mdlzip.cli.app import app
from tests.conftest import ROOT, cli_environment

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAM: Any = typer.main.get_command(app)
LINE = re.compile(r"^(?: {4}|)(?:\.venv/bin/)?mdlzip (?=[a-z])(.*)$", re.M)
COMMANDS = {*PROGRAM.commands}
# A budget of minutes becomes a few steps; all else stays.
SHORTER = {
    "compress": ("--budget 10m", "--steps 3 --preset nano --no-fallback"),
    "bench": ("--budget 10m", "--steps 3 --preset nano"),
    "train": ("--budget 10m", "--steps 3 --preset nano"),
    "study": ("--budget 1m", "--steps 2 --preset nano --values 1"),
}


def lines_of(page: Path) -> list[str]:
    """The words behind `mdlzip` of every command in code on a page, without comments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in LINE.findall(text) if line.split()[0] in COMMANDS]


def block(page: Path, language: str, holding: str) -> str:
    """The block of code in this language that holds these words."""
    text = page.read_text(encoding="utf-8")
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", text, re.S) if holding in b]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_have_these_options(page: Path) -> None:
    for line in lines_of(page):
        words, command = shlex.split(line, comments=True), PROGRAM
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)


def test_commands_are_found() -> None:
    found = {page.name: len(lines_of(page)) for page in PAGES}
    assert (found["README.md"], found["reproduction.md"], found["benchmarks.md"]) == (21, 11, 3)


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Run a line in a folder with the files that the README names, mdlzip on the path."""
    program = tmp_path / "bin" / "mdlzip"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mdlzip "$@"\n')
    program.chmod(0o755)
    text = (ROOT / "LICENSE").read_bytes()
    (tmp_path / "folder").mkdir()
    for name in ("corpus.txt", "other.txt", "new.txt", "folder/file"):
        (tmp_path / name).write_bytes(text)
    environment = cli_environment(MDLZIP_MODELS=str(tmp_path / "models"))
    environment["PATH"] = f"{program.parent}:{environment['PATH']}"

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=280, check=False,
        )  # fmt: skip

    return run


def test_what_the_readme_says_about_use(shell: Any, tmp_path: Path) -> None:
    lines = block(ROOT / "README.md", "sh", "mdlzip doctor").splitlines()
    assert len(lines) == 16
    for line in lines:
        before, after = SHORTER.get(line.split()[1], ("", ""))
        assert before in line
        done = shell(line.replace(before, after) if before else line)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "back.txt").read_bytes() == (ROOT / "LICENSE").read_bytes()
    for name in (
        "w.safetensors",
        "other.mdlz",
        "folder.tar.mdlz",
        "study-transformer/runs.jsonl",
        "texts.mdlm",
    ):
        assert (tmp_path / name).is_file(), name


@pytest.mark.parametrize("example", ["README", "docstring"])
def test_examples_in_python(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With text so repetitive that a model cannot pay: nothing is trained."""
    monkeypatch.chdir(tmp_path)
    data = (ROOT / "LICENSE").read_bytes() * 90
    for name in ("corpus.txt", "notes.txt"):
        (tmp_path / name).write_bytes(data)
    code = block(ROOT / "README.md", "python", "import mdlzip")
    if example == "docstring":
        indented = re.findall(r"^ {4}(.*)$", mdlzip.__doc__ or "", re.M)
        code = "\n".join(indented)
    assert code.count("mdlzip.") == 3 and len(data) > 1_000_080
    exec(code, {})
    assert (tmp_path / "copy.txt").read_bytes() == data


def test_example_of_the_methods() -> None:
    names: dict[str, Any] = {"model": torch.nn.Linear(3, 2)}
    exec(block(ROOT / "docs" / "methods.md", "python", "make_method"), names)
    assert names["method"].penalty() > 0
