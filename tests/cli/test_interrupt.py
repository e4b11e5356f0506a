"""Ctrl-C at any moment, from the first import on: exit code 130, never a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import cli_environment

# Sends SIGINT to itself when a module is looked for the first time.
PROGRAM = """
import os, runpy, signal, sys
wanted, entry, *arguments = sys.argv[1:]
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = ["mdlzip", *arguments]
if entry == "module":
    runpy.run_module("mdlzip", run_name="__main__", alter_sys=True)
else:
    from mdlzip.__main__ import main
    main()
"""


def interrupted(at: str, entry: str, *arguments: str, ignored: bool = False) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, at, entry, *arguments],
        env=cli_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("entry", ["module", "script"])
@pytest.mark.parametrize("at", ["mdlzip.cli.app", "typer", "mdlzip.errors", "mdlzip.cli.study"])
def test_while_the_program_is_loaded(at: str, entry: str) -> None:
    assert interrupted(at, entry, "list", "nofile") == (130, "")


@pytest.mark.parametrize(
    ("at", "command"), [("torch", "doctor"), ("numba", "doctor"), ("mdlzip.codec", "list")]
)
def test_while_a_command_loads_what_it_needs(at: str, command: str) -> None:
    code, said = interrupted(at, "module", command, *(["nofile"] if command == "list" else []))
    assert code == 130
    assert said.startswith("mdlzip: stopped") and said.count("\n") == 1


def test_ignored_interrupts_stay_ignored(tmp_path: Path) -> None:
    """As nohup and shells set it for what runs in the background."""
    assert interrupted("typer", "module", "--version", ignored=True)[0] == 0
