"""What all tests share: the command line as a subprocess, and a text to compress."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mdlzip.process.settings import wait_passively

ROOT = Path(__file__).resolve().parent.parent
RunCli = Callable[..., subprocess.CompletedProcess[bytes]]
_SETTINGS = ("MDLZIP_", "NO_COLOR", "OMP_", "GOMP_", "KMP_")
wait_passively()  # as the command line does: other work on the machine must not stall the tests


def cli_environment(**extra: str) -> dict[str, str]:
    """The environment for a subprocess: this tree on the path, no settings from outside."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_SETTINGS)}
    path = os.pathsep.join(p for p in (str(ROOT), kept.get("PYTHONPATH", "")) if p)
    return {**kept, "PYTHONPATH": path, "TERM": "dumb", **extra}


# Under nohup SIGHUP is ignored, and what a process ignores its children ignore, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def cli(tmp_path: Path) -> RunCli:
    """Run `mdlzip ARGS` in the test's own folder; returns the finished process."""

    def run(
        *args: object, stdin: bytes | None = None, env: dict[str, str] | None = None, **kw: object
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "mdlzip", *map(str, args)],
            input=b"" if stdin is None and "stdin" not in kw else stdin,
            capture_output=True,
            cwd=tmp_path,
            env=cli_environment(**(env or {})),
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def prose() -> bytes:
    """A few kilobytes of English that is in every checkout."""
    return (ROOT / "LICENSE").read_bytes()
