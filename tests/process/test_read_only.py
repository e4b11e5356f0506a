"""An installation on a read-only file system: root, too, can use it and leaves nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT, cli_environment

# $0: the folder to be seen read-only by the command "$@", in mount points of its own
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def words(folder: Path) -> list[str]:
    return ["unshare", "--mount", "sh", "-c", READ_ONLY, str(folder)]


@cache
def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["sh", "-c", f"! touch {folder}/probe 2>/dev/null"]
    return subprocess.run([*words(folder), *probe], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    if not can_mount(folder):
        pytest.skip("needs the right to mount")
    for name in ("mdlzip", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


def test_every_command_works(installed: Path, tmp_path: Path) -> None:
    text = (ROOT / "LICENSE").read_bytes()[:3000]
    (tmp_path / "text").write_bytes(text)
    before = sorted(installed.rglob("*"))
    for line in (
        "compress text --steps 2 --preset nano --context chunk --no-fallback -q",
        "test text.mdlz",
        "list -v text.mdlz",
        "decompress text.mdlz -o back",
        "export text.mdlz -o w.safetensors",
    ):
        done = subprocess.run(
            [*words(installed), sys.executable, "-m", "mdlzip", *line.split()],
            cwd=tmp_path,
            env=cli_environment(PYTHONPATH=str(installed), HOME=str(tmp_path / "home")),
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), f"{line}: {done.stderr}"
    assert (tmp_path / "back").read_bytes() == text
    assert sorted(installed.rglob("*")) == before
