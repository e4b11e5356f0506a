"""--json: one document for any number of FILEs; --progress json: nothing but JSON on stderr."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunCli

NOISE = random.Random(4).randbytes(1000)


@pytest.fixture
def folder(cli: RunCli, tmp_path: Path) -> Path:
    """Two files, the archive of one, and a damaged one."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(NOISE)
    assert cli("compress", "-q", "a").returncode == 0
    damaged = bytearray((tmp_path / "a.mdlz").read_bytes())
    damaged[500] ^= 1
    damaged[-3] ^= 1
    (tmp_path / "bad.mdlz").write_bytes(damaged)
    return tmp_path


def document(done: subprocess.CompletedProcess[bytes], key: str = "files") -> list[dict[str, Any]]:
    whole = json.loads(done.stdout)
    assert set(whole) == {"schema", key} and whole["schema"] == 1
    entries: list[dict[str, Any]] = whole[key]
    return entries


def failures(entries: list[dict[str, Any]]) -> dict[str, int]:
    """Exit code by FILE of the entries that are failures; they hold just three things."""
    failed = [e for e in entries if "error" in e]
    assert all(set(e) == {"file", "error", "exit_code"} and e["error"] for e in failed)
    return {e["file"]: e["exit_code"] for e in failed}


@pytest.mark.parametrize(
    ("arguments", "key", "failed"),
    [
        (["compress", "-f", "a", "nosuch", "b"], "files", {"nosuch": 1}),
        (["-d", "-f", "nosuch", "bad.mdlz", "a.mdlz"], "files", {"nosuch": 1, "bad.mdlz": 3}),
        (["test", "nosuch", "bad.mdlz", "a.mdlz"], "files", {"nosuch": 1, "bad.mdlz": 3}),
        (["list", "nosuch", "b", "a.mdlz"], "archives", {"nosuch": 1, "b": 3}),
        (["bench", "a", "nosuch", "--no-model", "--against", "gzip-6"], "files", {"nosuch": 1}),
        (["export", "a.mdlz", "-o", "w"], "files", {"a.mdlz": 2}),
        (["import", "nosuch", "a"], "files", {"a": 1}),
    ],
)  # fmt: skip
def test_one_document_with_an_entry_for_every_file(
    arguments: list[str], key: str, failed: dict[str, int], cli: RunCli, folder: Path
) -> None:
    done = cli(*arguments, "--json")
    entries = document(done, key)
    assert failures(entries) == failed and done.returncode == next(iter(failed.values()))
    assert len(done.stderr.splitlines()) == len(failed)
    named = [w for w in arguments[1:] if (folder / w).exists() or w == "nosuch"]
    if arguments[0] not in ("export", "import"):
        assert [e["file"] for e in entries] == named


def test_entries_of_success(cli: RunCli, folder: Path) -> None:
    [made, _] = document(cli("compress", "-f", "a", "b", "--json"))
    assert (made["file"], made["archive"], made["method"]) == ("a", "a.mdlz", "stored")
    assert made["figures"]["archive_bytes"] == (folder / "a.mdlz").stat().st_size
    [back] = document(cli("decompress", "-f", "a.mdlz", "--json"))
    assert (back["output"], back["original_bytes"]) == ("a", 1000)
    assert document(cli("test", "a.mdlz", "--json")) == [{"file": "a.mdlz", "ok": True}]


def test_all_failed_is_a_document_too(cli: RunCli, folder: Path) -> None:
    assert len(failures(document(cli("list", "--json", "x", "y"), "archives"))) == 2


def test_data_on_stdout_puts_the_document_on_stderr(cli: RunCli, folder: Path) -> None:
    done = cli("compress", "-c", "--json", "a", "--progress", "never")
    report = json.loads(done.stderr)["files"][0]
    assert report["archive"] is None and report["figures"]["archive_bytes"] == len(done.stdout)
    done = cli("decompress", "-c", "--json", "a.mdlz", "a.mdlz", "--progress", "never")
    assert done.stdout == 2 * NOISE and len(json.loads(done.stderr)["files"]) == 2


def events(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    """The events on stderr; fails if any line is something else."""
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(e["schema"] == 1 and e["event"] for e in found)
    return found


@pytest.mark.parametrize(
    ("arguments", "file", "code"),
    [
        (["compress", "nosuch", "b"], "nosuch", 1),
        (["compress", "a"], "a", 6),
        (["-d", "bad.mdlz", "-f"], "bad.mdlz", 3),
        (["compress", "a", "--preset", "nosuch", "-f", "--budget", "ages"], None, 2),
        (["compress", "a", "--bogus"], None, 2),
        (["nosuch"], None, 2),
    ],
)
def test_errors_are_events(
    arguments: list[str], file: str | None, code: int, cli: RunCli, folder: Path
) -> None:
    done = cli(*arguments, "--progress", "json")
    [error] = [e for e in events(done) if e["event"] == "error"]
    assert (error["file"], error["exit_code"], done.returncode) == (file, code, code)
    assert "traceback" not in error
    if code == 3:
        [error] = [e for e in events(cli(*arguments, "--progress=json", "-vv")) if "error" in e]
        assert "Traceback" in error["traceback"]


def test_remarks_and_reports_are_events(cli: RunCli, folder: Path) -> None:
    done = cli("bench", "a", "--no-model", "--against", "gzip-6", "-o", "x", "--progress", "json")
    assert {"event": "remark", "schema": 1, "text": "written: x"} in events(done)
    done = cli("compress", "-c", "a", "--progress", "json")
    assert events(done)[-1]["event"] == "result" and events(done)[-1]["file"] == "a"
    done = cli("compress", "-c", "a", "--progress", "json", "--json")
    assert json.loads(done.stderr.splitlines()[-1])["files"][0]["file"] == "a"
