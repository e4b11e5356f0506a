"""What users may type where a duration, a size or a short form is expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from mdlzip.errors import UsageError

T = TypeVar("T")
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")
_SIZE = re.compile(r"([0-9]+)(B|[KMGT]iB|[kMGT]B)?")
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    **{f"{letter}iB": 1024**i for i, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": 1000**i for i, letter in enumerate("kMGT", 1)},
}
_VERBS = {"d": "decompress", "t": "test", "l": "list"}
_LONG_VERBS = {"--decompress": "decompress", "--test": "test", "--list": "list"}
_LEADING_FLAGS = re.compile(r"-[dtlckfqv]+")
_LEVEL = re.compile(r"-([ckfqv]*)([1-9])([ckfqv]*)")


def parse_duration(text: str) -> float:
    """Seconds meant by `text`, such as 90s, 10m, 1h30m; a number without a unit is refused."""
    match = _DURATION.fullmatch(text.strip())
    seconds = 0.0
    if match and match.group(0):
        hours, minutes, rest = (float(part or 0) for part in match.groups())
        seconds = hours * 3600 + minutes * 60 + rest
    if not 0 < seconds < math.inf:
        raise UsageError(f"{text!r} is not a duration: write 90s, 10m or 1h30m")
    return seconds


def parse_size(text: str) -> int:
    """Bytes meant by `text`, such as 512, 4KiB, 2GiB or 10MB; junk is refused."""
    match = _SIZE.fullmatch(text.strip())
    if not match or int(match.group(1)) == 0:
        raise UsageError(f"{text!r} is not a size: write 512, 4KiB, 16MiB or 2GiB")
    return int(match.group(1)) * _SIZE_UNITS[match.group(2) or ""]


def parse_list(text: str | None, kind: Callable[[str], T], option: str) -> list[T]:
    """The values of a comma list such as 0.5,1,2; empty if `text` is None or empty."""
    try:
        return [kind(part.strip()) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise UsageError(
            f"{option} {text}: write values with commas between, such as 0.5,1,2"
        ) from None


def check_exclusive(values: Mapping[str, object]) -> None:
    """Refuse more than one of the options that exclude each other; None means not given."""
    given = [name for name, value in values.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other: give one")


def expand_short_forms(argv: list[str]) -> list[str]:
    """`argv` with gzip's habits turned into verbs and options.

    `-d FILE`, `-t`, `-l` (alone, or joined as in `-dc`) at the very start become the verb;
    `-1` to `-9` (or joined as in `-9k`) become `--level N`. Nothing after `--` is touched.
    """
    stop = argv.index("--") if "--" in argv else len(argv)
    return _levels(_verb(argv[:stop])) + argv[stop:]


def _verb(argv: list[str]) -> list[str]:
    for i, word in enumerate(argv):
        if word in _LONG_VERBS:
            return [_LONG_VERBS[word], *argv[:i], *argv[i + 1 :]]
        if not _LEADING_FLAGS.fullmatch(word):
            return argv
        letters = [c for c in word[1:] if c in _VERBS]
        if len(letters) > 1:
            raise UsageError(f"{word}: choose one of -d, -t and -l")
        if letters:
            rest = word.replace(letters[0], "")
            left = [rest] if rest != "-" else []
            return [_VERBS[letters[0]], *argv[:i], *left, *argv[i + 1 :]]
    return argv


def _levels(argv: list[str]) -> list[str]:
    out: list[str] = []
    for i, word in enumerate(argv):
        match = _LEVEL.fullmatch(word)
        # "--seed -5" is a (bad) value of --seed, not a level; "-k -5" is a level
        if match and not (i and argv[i - 1].startswith("--") and _takes_value(argv[i - 1])):
            before, level, after = match.groups()
            flags = before + after
            out += ([f"-{flags}"] if flags else []) + ["--level", level]
        else:
            out.append(word)
    return out


def _takes_value(option: str) -> bool:
    """Whether a long option is followed by its value (and does not carry it after '=')."""
    flags = {"--stdout", "--force", "--keep", "--rm", "--quiet", "--verbose", "--resume", "--json"}
    return "=" not in option and option not in flags and not option.startswith("--no-")
