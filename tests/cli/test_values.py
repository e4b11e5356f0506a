"""Durations, sizes, short forms."""

from __future__ import annotations

import pytest

from mdlzip.cli.values import (
    check_exclusive,
    parse_duration,
    parse_list,
    parse_settings,
    parse_size,
)
from mdlzip.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("1.5m", 90), ("1d", 86400)],
        *[("1h1m1s", 3661), ("10 m", 600), ("1h 30m", 5400), ("10min", 600), ("10 minutes", 600)],
        *[("0.5h", 1800), (".5h", 1800), ("1 hour 30 mins", 5400), ("1H30M", 5400), (" 90s ", 90)],
        *[("2 days 3 hrs", 183600), ("45sec", 45)],
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *["", "m", "10x", "-5m", "0s", "m10", "1m1h", "1m1m", "nan", "infs", "\u0661m", "1h30"],
        *["1e3s", "1,5h", "10 m x", "1..5h", "1:30:00", "9" * 5000 + "s", "5 0m"],
    ],
)
def test_junk_durations(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)


def test_a_number_without_unit_is_told_the_units() -> None:
    with pytest.raises(UsageError, match="'90' is not a duration: add the unit, as in 90s, 90m"):
        parse_duration("90")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("512", 512), ("512B", 512), ("4KiB", 4096), ("2GiB", 2 << 30), ("10MB", 10**7)],
        *[("1kB", 1000), ("4K", 4096), ("2G", 2 << 30), ("512M", 512 << 20), ("2gib", 2 << 30)],
        *[("1.5GiB", 3 << 29), ("1.5g", 3 << 29), ("4 KiB", 4096), ("2Gi", 2 << 30)],
        *[("512 bytes", 512), (".5k", 512), ("1.3KiB", 1331), ("1e", 1 << 60), ("10mb", 10**7)],
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *["", "KiB", "4Q", "4KiBs", "-1", "0", "0.5", "1.5B", "0.0001K", "4K4", "1e9", "iB"],
        *["4iB", "\u0664K", "4 K B", "1 000", "nan", "inf", "9" * 5000],
    ],
)
def test_junk_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


def test_lists_and_settings() -> None:
    assert parse_list("0.5, 1,2,1", float, "--values") == [0.5, 1, 2]
    with pytest.raises(UsageError, match="--values 1,x"):
        parse_list("1,x", float, "--values")
    assert parse_settings(["a=1", " b = x=y ", "a=2"], "--set") == {"a": "2", "b": "x=y"}
    for junk in ("a", "=1"):
        with pytest.raises(UsageError, match="write KEY=VALUE"):
            parse_settings([junk], "--set")


def test_exclusive() -> None:
    check_exclusive({"--a": None, "--b": 0})
    with pytest.raises(UsageError, match="--a and --b exclude each other"):
        check_exclusive({"--a": "x", "--b": 0})
