"""Installed by root, used by somebody without a home: every command works, nothing is trusted."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT, cli_environment

NOBODY = 65534
NAMELESS = 54321  # as in containers: no entry in the list of users
GOLDEN = ROOT / "tests" / "golden"
ARCHIVE, DIGEST = GOLDEN / "v1-learned-merges.mdlz", GOLDEN / "SHA256"
# Where this Python lies in a folder that others cannot enter, they may read everything instead.
READ_ALL = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def become(user: int, *more: str) -> list[str]:
    """The words before a command that is to run as another user."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *more]


@cache
def words_to_become(user: int) -> list[str] | None:
    """As `become`, with what it takes to start this Python; None where that is impossible."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return None
    probe = [sys.executable, "-c", "import sys, numpy; print(sys.version)"]
    for words in (become(user), become(user, *READ_ALL)):
        try:
            done = subprocess.run(
                [*words, *probe], capture_output=True, text=True, cwd="/", timeout=60
            )
        except OSError:
            continue
        if done.stdout.strip() == sys.version:  # this Python, not another one that it finds
            return words
    return None


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """The package as root installs it, without any machine code, and data that all may read."""
    if words_to_become(NOBODY) is None:
        pytest.skip("needs root, setpriv and a Python that other users can start")
    # not in pytest's own folders, which are closed to others
    with tempfile.TemporaryDirectory(prefix="mdlzip-test-", dir="/tmp") as name:
        yield install(Path(name))


def install(folder: Path) -> Path:
    folder.chmod(0o755)
    for name in ("mdlzip", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ARCHIVE, folder / "archive.mdlz")
    (folder / "text").write_bytes((ROOT / "LICENSE").read_bytes()[:5000])
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def mdlzip(
    installed: Path, user: int, *arguments: str, unset: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as another user; `{}` in values is the folder of the installation."""
    words = words_to_become(user)
    assert words is not None
    values = cli_environment(PYTHONPATH=str(installed), OMP_NUM_THREADS="1")
    values |= {name: value.format(installed) for name, value in environment.items()}
    values.pop(unset, None)
    return subprocess.run(
        [*words, sys.executable, "-m", "mdlzip", *arguments],
        cwd="/",
        env=values,
        capture_output=True,
        text=True,
        errors="replace",  # weights are not
        timeout=280,
    )


def own_folder(path: Path, user: int) -> Path:
    """A folder of that user's."""
    path.mkdir(mode=0o700, exist_ok=True)
    os.chown(path, user, user)
    return path


def machine_code(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.kernel"))


@pytest.mark.slow
def test_without_a_home_machine_code_is_kept_in_the_temporary_folder(installed: Path) -> None:
    temporary = own_folder(installed / "tmp", NOBODY)
    where = {"HOME": "/nonexistent", "TMPDIR": "{}/tmp"}
    done = mdlzip(installed, NOBODY, "test", f"{installed}/archive.mdlz", **where)
    assert (done.returncode, "OK" in done.stdout) == (0, True), done.stderr
    kept = machine_code(temporary)
    assert kept and not machine_code(installed / "mdlzip")
    place = temporary / f"mdlzip-{NOBODY}"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700 and place.stat().st_uid == NOBODY
    before = [file.stat().st_mtime_ns for file in kept]
    out = str(temporary / "back")
    done = mdlzip(installed, NOBODY, "decompress", f"{installed}/archive.mdlz", "-o", out, **where)
    assert done.returncode == 0, done.stderr
    assert [file.stat().st_mtime_ns for file in machine_code(temporary)][: len(before)] == before


@pytest.mark.parametrize(("user", "home"), [(NOBODY, "/root"), (NAMELESS, "unset")])
def test_nowhere_to_keep_machine_code(installed: Path, user: int, home: str) -> None:
    """Another user's home, none, the root folder; and no temporary folder of one's own.

    Weights are decoded by the fewest kernels.
    """
    done = mdlzip(
        installed,
        user,
        "export",
        f"{installed}/archive.mdlz",
        "-o",
        "-",
        unset="HOME" if home == "unset" else "",
        HOME=home,
        TMPDIR="/nonexistent",
    )
    assert (done.returncode, "blocks.0" in done.stdout) == (0, True), done.stderr
    assert not Path("/nonexistent").exists() and not Path("/.cache/mdlzip").exists()


def test_training_and_reading_without_a_home(installed: Path) -> None:
    work = own_folder(installed / "work", NAMELESS)
    own_folder(work / "tmp", NAMELESS)
    where = {"HOME": "/nonexistent", "TMPDIR": "{}/work/tmp"}
    shutil.copy(installed / "text", work / "text")
    train = ["--no-fallback", "--steps", "2", "--preset", "nano", "--context", "chunk", "-q"]
    done = mdlzip(installed, NAMELESS, "compress", f"{work}/text", *train, **where)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (work / "tmp").iterdir()] == [f"mdlzip-{NAMELESS}"]
    words = words_to_become(NAMELESS)
    assert words is not None
    program = (
        f"import mdlzip\nwith mdlzip.open('{work}/text.mdlz') as archive:\n"
        f"    assert archive.read(100, 50) == open('{work}/text', 'rb').read()[100:150]\n"
    )
    environment = cli_environment(PYTHONPATH=str(installed), HOME="/nonexistent")
    subprocess.run(
        [*words, sys.executable, "-c", program],
        cwd="/",
        env={**environment, "TMPDIR": f"{work}/tmp"},
        check=True,
        timeout=280,
    )


@pytest.mark.slow
def test_doctor_says_that_nothing_is_kept(installed: Path) -> None:
    done = mdlzip(installed, NOBODY, "doctor", HOME="/nonexistent", NUMBA_CACHE_DIR="/nonexistent")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well" in done.stdout
    (line,) = (row for row in done.stdout.splitlines() if row.startswith("kernel_cache"))
    assert "none" in line and "NUMBA_CACHE_DIR" in line


def test_what_another_user_has_prepared_is_not_run(installed: Path) -> None:
    """A folder under the foreseeable name, whose files would be taken if they were trusted.

    Weights are decoded by the fewest kernels.
    """
    temporary = installed / "shared"
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o1777)
    prepared = own_folder(temporary / f"mdlzip-{NOBODY}", NAMELESS)
    prepared.chmod(0o777)
    where = {"HOME": "/nonexistent", "TMPDIR": "{}/shared"}
    out = ["-o", "-"]
    done = mdlzip(installed, NOBODY, "export", f"{installed}/archive.mdlz", *out, **where)
    assert (done.returncode, "blocks.0" in done.stdout) == (0, True), done.stderr
    assert not list(prepared.iterdir())


def test_what_root_has_compiled_serves_everybody(installed: Path) -> None:
    values = cli_environment(PYTHONPATH=str(installed), OMP_NUM_THREADS="1")
    root = [sys.executable, "-m", "mdlzip", "export", f"{installed}/archive.mdlz", "-o", "-"]
    subprocess.run(root, env=values, cwd="/", check=True, capture_output=True, timeout=280)
    kept = machine_code(installed / "mdlzip")
    assert kept
    program = (
        "from mdlzip.process.kernel_cache import folders\n"
        "from mdlzip.codec.exchange import read_network\n"
        "from mdlzip.process import kernels\n"
        f"read_network('{installed}/archive.mdlz')\n"
        "used = [kernels._kernels[name] for name in kernels.kernel_names(used=True)]\n"
        "hits = sum(sum(kernel.stats.cache_hits.values()) for kernel in used)\n"
        "print(len(folders().to_read), folders().to_write, hits)\n"
    )
    words = words_to_become(NOBODY)
    assert words is not None
    done = subprocess.run(
        [*words, sys.executable, "-c", program],
        cwd="/",
        env=values | {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.stdout.split()[:2] == ["1", "None"], done.stderr
    assert int(done.stdout.split()[2]) > 0
    assert machine_code(installed / "mdlzip") == kept
