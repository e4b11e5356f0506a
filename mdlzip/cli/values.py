"""What users may type where a duration, a size, a list, a path or a device is expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from mdlzip.errors import UsageError

T = TypeVar("T")
_NUMBER = r"(?:[0-9]{1,30}(?:\.[0-9]{1,30})?|\.[0-9]{1,30})"
_DURATION_PART = re.compile(rf"({_NUMBER}) *([a-z]+) *")
_DURATION = re.compile(rf"(?:{_NUMBER} *[a-z]+ *)+")
_SECONDS = {  # unit: other ways to write it, seconds; the longest first
    "d": (("day", "days"), 86400),
    "h": (("hr", "hrs", "hour", "hours"), 3600),
    "m": (("min", "mins", "minute", "minutes"), 60),
    "s": (("sec", "secs", "second", "seconds"), 1),
}
_UNIT = {name: unit for unit, (names, _) in _SECONDS.items() for name in (unit, *names)}
_SIZE = re.compile(rf"({_NUMBER}) *(?:([kmgtpe])(i?)(b?)|b|bytes?)?")
_DEVICE = re.compile(r"cuda(:[0-9]{1,4})?")


def parse_duration(text: str) -> float:
    """Seconds meant by `text`: 90s, 10m, 10 min, 1h30m, 1h 30m, 1.5h, 1d; in any letter case.

    Raises UsageError for anything else; a number without a unit too, since minutes and seconds
    are equally likely to be meant.
    """
    typed = text.strip().lower()
    if re.fullmatch(_NUMBER, typed):
        raise UsageError(
            f"{text!r} is not a duration: add the unit, as in {typed}s, {typed}m or {typed}h"
        )
    wrong = UsageError(f"{text!r} is not a duration: write 90s, 10m, 1h30m, 1.5h or 1d")
    if not _DURATION.fullmatch(typed):
        raise wrong
    parts = _DURATION_PART.findall(typed)
    units = [_UNIT.get(name, "") for _, name in parts]
    if units != [unit for unit in _SECONDS if unit in units]:  # unknown, twice, or out of order
        raise wrong
    seconds = sum(float(n) * _SECONDS[unit][1] for (n, _), unit in zip(parts, units, strict=True))
    if not 0 < seconds < math.inf:
        raise wrong
    return seconds


def parse_size(text: str) -> int:
    """Bytes meant by `text`: 512, 4KiB, 4K, 1.5GiB, 2g, 10MB, 4 KiB; in any letter case.

    K, M, G, T, P, E and Ki, KiB, ... are powers of 1024; KB, MB, ... powers of 1000. A fraction
    of a byte is dropped where there is a unit. Raises UsageError for anything else and for 0.
    """
    from fractions import Fraction  # not for --help

    match = _SIZE.fullmatch(text.strip().lower())
    wrong = UsageError(f"{text!r} is not a size: write 512, 4KiB, 16M, 1.5GiB or 10MB")
    if not match:
        raise wrong
    number, letter, binary, byte = match.groups()
    exponent = "kmgtpe".index(letter) + 1 if letter else 0
    exact = Fraction(number) * (1000 if byte and not binary else 1024) ** exponent
    if exact < 1 or (exact.denominator > 1 and not letter):
        raise wrong
    return math.floor(exact)


def parse_range(text: str) -> tuple[int | None, int | None]:
    """First byte and one past the last of A:B; None where a side is left out.

    A side is a size as `parse_size` takes it, or 0; with a minus sign before it, it counts from the
    end. Raises UsageError for anything else.
    """

    def side(typed: str) -> int | None:
        typed = typed.strip()
        if not typed:
            return None
        digits = typed.removeprefix("-").strip()
        size = 0 if digits.strip("0") == "" and digits else parse_size(digits)
        return -size if typed.startswith("-") else size

    first, colon, last = text.partition(":")
    try:
        if colon:
            return side(first), side(last)
    except UsageError:
        pass
    raise UsageError(f"{text!r} is not a range: write A:B, such as 1000:2000, 4MiB: or :512")


def parse_lines(text: str) -> tuple[int, int | None]:
    """First and last line of A:B or A, counted from 1; None for the end. UsageError for others."""
    first, colon, last = (side.strip() for side in text.partition(":"))
    sides = (first, last) if colon else (first,)
    if all(side.isascii() and (side.isdigit() or (colon and not side)) for side in sides):
        a, b = int(first or 1), int(last) if last else None
        b = b if colon else a
        if a > 0 and (b is None or b >= a):
            return a, b
    raise UsageError(f"{text!r} are not lines: write A:B, such as 10:20, 10: or 10")


def parse_list(text: str | None, kind: Callable[[str], T], option: str) -> list[T]:
    """The values of a comma list such as 0.5,1,2, each once; empty if `text` is None or empty."""
    try:
        parts = [kind(part.strip()) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise UsageError(
            f"{option} {text}: write values with commas between, such as 0.5,1,2"
        ) from None
    return list(dict.fromkeys(parts))


def finite(text: str) -> float:
    """A number; ValueError for what is none, or infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def parse_settings(pairs: Iterable[str] | None, option: str) -> dict[str, str]:
    """KEY=VALUE texts as a dictionary; later ones win. UsageError for other texts."""
    settings = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{option} {pair}: write KEY=VALUE")
        settings[name.strip()] = value.strip()
    return settings


def parse_path(text: str) -> Path:
    """`text` as a path; UsageError if it is empty, which would mean the current folder."""
    if not text:
        raise UsageError("the name of a file or folder is empty")
    return Path(text)


def check_device(name: str) -> None:
    """UsageError for a device that does not exist; torch is loaded only to look for a GPU."""
    if name in ("auto", "cpu"):
        return
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"--device {name}: choose auto, cpu, cuda or cuda:N")
    from mdlzip.process.devices import pick_device

    pick_device(name)


def check_exclusive(values: Mapping[str, object]) -> None:
    """Refuse more than one of the options that exclude each other; None means not given."""
    given = [name for name, value in values.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other: give one")
