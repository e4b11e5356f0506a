"""Several FILEs in one command: none may cost another's output, or an input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mdlzip.cli.call_files import CallFiles
from mdlzip.errors import OutputExists, UsageError
from tests.conftest import RunCli

JANUARY, FEBRUARY = b"figures of January\n" * 40, b"figures of February\n" * 40


def pack(cli: RunCli, folder: Path, name: str, data: bytes, archive: str) -> None:
    """An archive that stores `name`; no file of that name is left."""
    (folder / name).write_bytes(data)
    assert cli("compress", "-q", "--rm", name, "-o", archive).returncode == 0


def one_line(stderr: bytes) -> str:
    lines = stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_two_archives_with_one_stored_name_leave_both_months(cli: RunCli, tmp_path: Path) -> None:
    pack(cli, tmp_path, "report.txt", JANUARY, "jan.mdlz")
    pack(cli, tmp_path, "report.txt", FEBRUARY, "feb.mdlz")
    done = cli("decompress", "-q", "-f", "--rm", "jan.mdlz", "feb.mdlz")
    assert done.returncode == 6
    line = one_line(done.stderr)
    assert "report.txt" in line and "jan.mdlz" in line and "feb.mdlz" in line
    assert (tmp_path / "report.txt").read_bytes() == JANUARY
    assert cli("-dc", "feb.mdlz").stdout == FEBRUARY and not (tmp_path / "jan.mdlz").exists()


def test_an_older_file_is_still_replaced_with_force(cli: RunCli, tmp_path: Path) -> None:
    pack(cli, tmp_path, "a", JANUARY, "1.mdlz")
    pack(cli, tmp_path, "b", FEBRUARY, "2.mdlz")
    (tmp_path / "b").write_bytes(b"old")
    assert cli("decompress", "-qf", "1.mdlz", "2.mdlz").returncode == 0
    assert (tmp_path / "b").read_bytes() == FEBRUARY


def test_an_output_never_replaces_an_input_still_to_come(cli: RunCli, tmp_path: Path) -> None:
    pack(cli, tmp_path, "second.mdlz", JANUARY, "first.mdlz")
    pack(cli, tmp_path, "plain", FEBRUARY, "second.mdlz")
    done = cli("decompress", "-q", "-f", "first.mdlz", "second.mdlz")
    assert done.returncode == 2
    assert "first.mdlz" in one_line(done.stderr) and "second.mdlz" in one_line(done.stderr)
    assert (tmp_path / "plain").read_bytes() == FEBRUARY
    assert cli("-dc", "second.mdlz").stdout == FEBRUARY


def test_a_link_to_an_input_is_that_input(cli: RunCli, tmp_path: Path) -> None:
    pack(cli, tmp_path, "link", JANUARY, "first.mdlz")
    pack(cli, tmp_path, "plain", FEBRUARY, "second.mdlz")
    for make in (os.link, os.symlink):
        make(tmp_path / "second.mdlz", tmp_path / "link")
        assert cli("decompress", "-qf", "first.mdlz", "second.mdlz").returncode == 2
        assert (tmp_path / "plain").read_bytes() == FEBRUARY
        (tmp_path / "link").unlink()


def test_compress_does_not_replace_an_input_by_an_archive(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(JANUARY)
    (tmp_path / "a.mdlz").write_bytes(FEBRUARY)
    done = cli("compress", "-qf", "a", "a.mdlz")
    assert done.returncode == 2 and "a.mdlz" in one_line(done.stderr)
    assert (tmp_path / "a.mdlz").read_bytes() == FEBRUARY
    assert cli("-dc", "a.mdlz.mdlz").stdout == FEBRUARY


@pytest.mark.parametrize("again", ["a", "./a", "sub/../a"])
def test_a_file_given_twice_is_taken_once(again: str, cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(JANUARY)
    done = cli("compress", "-qf", "a", again)
    assert done.returncode == 2 and again in one_line(done.stderr)
    assert cli("-dc", "a.mdlz").stdout == JANUARY


def test_hard_links_with_names_of_their_own_get_archives_of_their_own(
    cli: RunCli, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(JANUARY)
    os.link(tmp_path / "a", tmp_path / "b")
    assert cli("compress", "-q", "--rm", "a", "b").returncode == 0
    assert [cli("-dc", f"{n}.mdlz").stdout for n in "ab"] == [JANUARY, JANUARY]


def test_what_failed_does_not_bar_the_next(cli: RunCli, tmp_path: Path) -> None:
    pack(cli, tmp_path, "report.txt", JANUARY, "good.mdlz")
    damaged = bytearray((tmp_path / "good.mdlz").read_bytes())
    damaged[-1] ^= 1  # the digest: noticed when all is decoded
    (tmp_path / "bad.mdlz").write_bytes(damaged)
    (tmp_path / "report.txt").write_bytes(b"old")
    done = cli("decompress", "-qf", "bad.mdlz", "good.mdlz")
    assert done.returncode == 3 and "bad.mdlz" in one_line(done.stderr)
    assert (tmp_path / "report.txt").read_bytes() == JANUARY


def test_reading_a_file_twice_is_harmless(cli: RunCli, tmp_path: Path) -> None:
    pack(cli, tmp_path, "a", JANUARY, "a.mdlz")
    assert cli("test", "-q", "a.mdlz", "a.mdlz").returncode == 0
    assert cli("-dc", "a.mdlz", "a.mdlz").stdout == 2 * JANUARY


def test_outputs_are_told_apart_by_inode_where_names_differ(tmp_path: Path) -> None:
    """As on a file system that ignores case, where Report.TXT is the report.txt just written."""
    seen = CallFiles(["1", "2"])
    seen.begin("1")
    seen.check(tmp_path / "report.txt")
    (tmp_path / "report.txt").write_bytes(JANUARY)
    seen.begin("2")
    os.link(tmp_path / "report.txt", tmp_path / "Report.TXT")
    with pytest.raises(OutputExists, match="was just written for 1"):
        seen.check(tmp_path / "Report.TXT")
    seen.check(Path("/dev/null"))


def test_standard_input_is_read_once() -> None:
    seen = CallFiles(["-", "-"])
    seen.begin("-")
    with pytest.raises(UsageError, match="given twice"):
        seen.begin("-")
