"""Durations, sizes, short forms."""

from __future__ import annotations

import pytest

from mdlzip.cli.values import check_exclusive, expand_short_forms, parse_duration, parse_size
from mdlzip.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("1.5m", 90), ("1h1m1s", 3661)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "10", "m", "10x", "10 m", "-5m", "0s", "m10", "1m1h", "nan", "infs", "\u0661m"],
)
def test_junk_durations(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("512B", 512),
        ("4KiB", 4096),
        ("2GiB", 2 << 30),
        ("10MB", 10**7),
        ("1kB", 1000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "4K", "4Kib", "4KiBs", "-1", "1.5GiB", "0", "4 KiB"])
def test_junk_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("-d f.mdlz", "decompress f.mdlz"),
        ("-t f", "test f"),
        ("-l f", "list f"),
        ("--decompress f", "decompress f"),
        ("-dc f", "decompress -c f"),
        ("-fd f", "decompress -f f"),
        ("-f -d f", "decompress -f f"),
        ("-vv -d f", "decompress -vv f"),
        ("compress -5 f", "compress --level 5 f"),
        ("compress -9k f", "compress -k --level 9 f"),
        ("compress -k -1 f", "compress -k --level 1 f"),
        ("compress --json -1 f", "compress --json --level 1 f"),
        ("compress --seed -5 f", "compress --seed -5 f"),
        ("compress f -- -5", "compress f -- -5"),
        ("compress -o -d f", "compress -o -d f"),
        ("list -v f", "list -v f"),
        ("--version", "--version"),
        ("-h", "-h"),
        ("", ""),
    ],
)
def test_short_forms(typed: str, meant: str) -> None:
    assert expand_short_forms(typed.split()) == meant.split()


def test_contradicting_short_forms() -> None:
    with pytest.raises(UsageError, match="choose one of -d, -t and -l"):
        expand_short_forms(["-dt", "f"])


def test_exclusive() -> None:
    check_exclusive({"--a": None, "--b": 0})
    with pytest.raises(UsageError, match="--a and --b exclude each other"):
        check_exclusive({"--a": "x", "--b": 0})
