"""Compiled kernels between runs: found again, never trusted without reason, never missed."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numba.core import config

from mdlzip.process import kernel_cache
from mdlzip.process.kernel_cache import Folders, folders
from mdlzip.process.kernels import compiled
from tests.conftest import ROOT, cli_environment

VALUES = np.arange(5, dtype=np.int64)


def total(values: Any) -> Any:
    """Something to compile."""
    n = 0
    for value in values:
        n += value
    return n


def doubled(values: Any) -> Any:
    """Something else."""
    n = 0
    for value in values:
        n += 2 * value
    return n


def hits(function: Any = total, values: np.ndarray = VALUES) -> int:
    """Compile `function` afresh, or find it; 1 if it was found. Its result must be right."""
    kernel = compiled()(function)
    assert kernel(values) == function(values)
    return sum(kernel.stats.cache_hits.values())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for machine code that no other test uses."""
    folder = tmp_path / "kernels"
    folder.mkdir(0o700)
    monkeypatch.setattr(kernel_cache, "folders", lambda: Folders((folder,), folder))
    return folder


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_a_kernel_is_found_again(place: Path) -> None:
    assert (hits(), hits()) == (0, 1)
    assert only_file(place).suffix == ".kernel"


def test_other_types_and_other_functions_are_other_kernels(place: Path) -> None:
    assert hits() == 0
    assert hits(values=VALUES.astype(np.int32)) == 0
    assert hits(values=VALUES.astype(np.float64)) == 0
    assert hits(doubled) == 0
    assert len(list(place.iterdir())) == 4


@pytest.mark.parametrize("kept", [0, 1, 15, 16, 40, 48, 49, 80, 100, -100, -1])
def test_a_file_that_was_cut_short_is_compiled_again(place: Path, kept: int) -> None:
    hits()
    file = only_file(place)
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    assert hits() == 0
    assert hits() == 1, "and is whole again"


def test_any_damage_is_found(place: Path) -> None:
    hits()
    file = only_file(place)
    whole = file.read_bytes()
    for at in [*range(0, 130, 3), *range(130, len(whole), len(whole) // 20)]:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert hits() == 0, f"byte {at}"
    for content in (b"", b"\0" * len(whole), whole + b"\0", whole[::-1]):
        file.write_bytes(content)
        assert hits() == 0


def test_the_file_of_another_kernel_is_not_taken(place: Path) -> None:
    hits()
    mine = only_file(place)
    mine.unlink()
    hits(doubled)
    only_file(place).rename(mine)
    assert (hits(), hits()) == (0, 1)


def test_a_file_that_others_can_write_is_not_read(place: Path) -> None:
    hits()
    file = only_file(place)
    file.chmod(0o666)
    assert hits() == 0
    file.unlink()
    hits()
    elsewhere = place.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert hits() == 0
    assert not file.is_symlink(), "written anew, not through the link"


@pytest.mark.parametrize("kind", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_read(place: Path, kind: Any) -> None:
    hits()
    file = only_file(place)
    file.unlink()
    kind(file)
    assert hits() == 0


def test_a_folder_that_vanishes_costs_time_only(place: Path) -> None:
    kernel = compiled()(total)
    shutil.rmtree(place)
    assert kernel(VALUES) == 10
    assert not place.exists()


def test_a_full_disk_costs_time_only(place: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert hits() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(place.iterdir()), "nor is half a file left"


def test_no_folder_costs_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "folders", lambda: Folders((), None))
    assert (hits(), hits()) == (0, 0)


# --- where ---------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home, a temporary folder and an installation without a place for machine code."""
    package = tmp_path / "mdlzip"
    package.mkdir()
    (package / "module.py").write_text("x = 1\n")
    (package / "__pycache__").write_text("no folder can be made here")
    (tmp_path / "home").mkdir(0o700)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    monkeypatch.setattr(kernel_cache, "PACKAGE", package)
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    folders.cache_clear()
    kernel_cache._version.cache_clear()


def chosen() -> Path | None:
    """The place, without the folder for the version."""
    forget()
    folder = folders().to_write
    assert folder is None or folders().to_read[-1] == folder
    return folder and folder.parent


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_places_in_their_order(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = f"mdlzip-{os.geteuid()}"
    assert chosen() == machine / "home" / ".cache" / "mdlzip"
    assert mode_of(machine / "home" / ".cache" / "mdlzip") == 0o700
    (machine / "mdlzip" / "__pycache__").unlink()
    assert chosen() == machine / "mdlzip" / "__pycache__" / "kernels"
    monkeypatch.setattr(config, "CACHE_DIR", str(machine / "mine" / "here"))
    assert chosen() == machine / "mine" / "here" / own


@pytest.mark.parametrize("home", ["{}/missing", "relative", "/dev/null", "{}/mdlzip/module.py"])
def test_without_a_home_the_temporary_folder_serves(
    machine: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home.format(machine))
    before = sorted(machine.iterdir())
    place = chosen()
    assert place == machine / "tmp" / f"mdlzip-{os.geteuid()}"
    assert mode_of(place) == 0o700
    assert sorted(machine.iterdir()) == before and not Path("relative").exists()


@pytest.mark.parametrize("home", [None, ""])
def test_a_home_that_is_not_set_is_asked_for(
    machine: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    """In the user's entry; a user may have none."""
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    entry = SimpleNamespace(pw_dir=str(machine / "home"), pw_name="me", pw_gid=os.getegid())
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    assert chosen() == machine / "home" / ".cache" / "mdlzip"

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert chosen() == machine / "tmp" / f"mdlzip-{os.geteuid()}"


def test_nowhere_at_all(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(machine / "missing"))
    monkeypatch.setenv("TMPDIR", str(machine / "missing"))
    assert chosen() is None
    assert not (machine / "missing").exists()
    monkeypatch.setattr(config, "CACHE_DIR", "/dev/null/here")
    monkeypatch.setenv("TMPDIR", str(machine / "tmp"))
    assert chosen() is None, "the user's choice stands, even if it is of no use"


def in_tmp(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(machine / "missing"))
    return machine / "tmp" / f"mdlzip-{os.geteuid()}"


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o1777, 0o722])
def test_a_folder_that_others_can_write_is_refused(
    machine: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    place = in_tmp(machine, monkeypatch)
    place.mkdir()
    place.chmod(mode)
    assert chosen() is None and not folders().to_read


def test_a_link_in_the_place_of_the_folder_is_refused(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = in_tmp(machine, monkeypatch)
    (machine / "prepared").mkdir(0o700)
    place.symlink_to(machine / "prepared")
    assert chosen() is None
    place.unlink()
    place.write_text("a file")
    assert chosen() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = in_tmp(machine, monkeypatch)
    place.mkdir(0o755)
    os.chown(place, 65534, 65534)
    assert chosen() is None
    os.chown(place, 0, 0)
    assert chosen() == place
    os.chown(machine / "tmp", 65534, 65534)
    assert chosen() is None, "nor one that another user could replace"


def test_a_parent_that_others_can_write_is_refused(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = in_tmp(machine, monkeypatch)
    (machine / "tmp").chmod(0o777)  # unlike 1777: anybody may rename what lies there
    assert chosen() is None
    (machine / "tmp").chmod(0o1777)
    assert chosen() == place


def test_another_source_is_another_version(machine: Path) -> None:
    place = chosen()
    assert place is not None
    (place / "notes.txt").write_text("not ours")
    (place / "0123456789abcdef").mkdir()
    (place / "0123456789abcdef" / "mine.txt").write_text("not ours either")
    first = folders().to_write
    assert first is not None
    for i in range(6):
        (machine / "mdlzip" / "module.py").write_text(f"x = {i + 2}\n")
        assert chosen() == place and folders().to_write != first
        (place / (folders().to_write or place) / f"{i}.kernel").touch()
    kept = {f.name for f in place.iterdir() if f.is_dir()}
    assert len(kept - {"0123456789abcdef"}) <= 4 and first.name not in kept
    assert (place / "notes.txt").exists()
    assert (place / "0123456789abcdef" / "mine.txt").exists()


def test_sources_that_no_kernel_uses_do_not_count(machine: Path) -> None:
    chosen()
    version = folders().to_write
    (machine / "mdlzip" / "cli").mkdir()
    (machine / "mdlzip" / "cli" / "words.py").write_text("y = 1\n")
    chosen()
    assert folders().to_write == version


def test_processes_that_compile_at_once(tmp_path: Path) -> None:
    program = (
        "import numpy as np\n"
        "from mdlzip.matches import Matcher\n"
        "previous = np.tile(np.arange(9, dtype=np.int16), (3, 8))\n"
        "symbols, lengths = Matcher(3, 128, 3).advance(previous)\n"
        "print(symbols.sum(), lengths.sum())\n"
    )
    environment = cli_environment(NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    results = {process.communicate(timeout=240) for process in running}
    assert len(results) == 1 and not any(error for _, error in results)
    files = [f for f in (tmp_path / "cache").rglob("*") if f.is_file()]
    assert [f.suffix for f in files] == [".kernel"]
