"""`mdlzip cat`: any part of the original, of archives of every method and context."""

from __future__ import annotations

from pathlib import Path

import pytest

import mdlzip
from mdlzip.cli.values import parse_range
from mdlzip.errors import UsageError
from tests.archive_tools import compressible, general_archive, make_archive
from tests.conftest import RunCli

DATA = compressible(3000)
CONTEXTS = ("chunk", "group", "reference", "solid")


def archives(folder: Path) -> dict[str, bytes]:
    made = {c: make_archive(folder, "learned", DATA, context=c) for c in CONTEXTS}
    return made | {m: general_archive(m, DATA) for m in ("stored", "zstd", "xz")}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", DATA), ("1000:1010", DATA[1000:1010]), ("-20:", DATA[-20:]), ("10:5", b""),
    ],
)  # fmt: skip
def test_any_range(cli: RunCli, tmp_path: Path, wanted: str, expected: bytes) -> None:
    (tmp_path / "a.mdlz").write_bytes(make_archive(tmp_path, "learned", DATA, context="reference"))
    done = cli("cat", "a.mdlz", *(["--range", wanted] if wanted else []))
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")


LINES = b"".join(b"line %d\n" % i for i in range(1, 40_000)) + b"no end"


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("1", 1, 1), ("3:5", 3, 5), (":2", 1, 2), ("39999:", 39_999, 40_000), ("40000", 40_000, None)],
)
def test_lines(cli: RunCli, tmp_path: Path, wanted: str, first: int, last: int | None) -> None:
    """Lines go on over blocks and groups."""
    (tmp_path / "a.mdlz").write_bytes(general_archive("stored", LINES))
    done = cli("cat", "a.mdlz", "--line", wanted)
    expected = b"".join(LINES.splitlines(keepends=True)[first - 1 : last])
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")


@pytest.mark.parametrize("wanted", ["40001", "0:3", "5:4", "a", "-1", "1:2:3", ":", ""])
def test_what_are_no_lines_is_one_line(cli: RunCli, tmp_path: Path, wanted: str) -> None:
    (tmp_path / "a.mdlz").write_bytes(general_archive("stored", LINES))
    done = cli("cat", "a.mdlz", f"--line={wanted}")
    if wanted == ":":
        assert done.stdout == LINES
    else:
        assert (done.returncode, done.stdout) == (2, b"")
        assert len(done.stderr.splitlines()) == 1
    assert cli("cat", "a.mdlz", "--line=1", "--range=1:2").returncode == 2


def test_every_method_and_context(tmp_path: Path) -> None:
    for name, archive in archives(tmp_path).items():
        (tmp_path / "a.mdlz").write_bytes(archive)
        with mdlzip.open(tmp_path / "a.mdlz") as opened, opened.as_file() as file:
            assert file.seek(-700, 2) == 2300, name
            assert file.read(100) == DATA[2300:2400], name
            assert file.seek(10) == 10
            assert file.read(5) + file.read1(5) == DATA[10:20], name
            assert file.seek(5000) == 5000 and file.read() == b""
        with pytest.raises(ValueError):
            file.read()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":", (None, None)), (":512", (None, 512)), ("2.5KiB:", (2560, None)),
        ("0:9MB", (0, 9 * 10**6)),
        ("-1k:-0", (-1024, 0)),
    ],
)  # fmt: skip
def test_ranges(text: str, expected: tuple[int | None, int | None]) -> None:
    assert parse_range(text) == expected


@pytest.mark.parametrize("text", ["", "5", "a:b", "1:2:3", "--3:", "1.5:"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError, match="is not a range"):
        parse_range(text)


def test_what_is_no_range_is_one_line(cli: RunCli) -> None:
    done = cli("cat", "a.mdlz", "--range=5")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_what_cannot_be_read_is_one_line(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "a.mdlz").write_bytes(make_archive(tmp_path, "learned", DATA))
    (tmp_path / "text").write_bytes(DATA)
    for words, code in (
        (("a.mdlz", "-r", "3001:"), 2), (("missing.mdlz",), 1), (("text",), 3), (("-",), 2),
        ((".",), 2),
    ):  # fmt: skip
        done = cli("cat", *words)
        assert (done.returncode, done.stdout) == (code, b""), (words, done.stderr)
        assert len(done.stderr.splitlines()) == 1
