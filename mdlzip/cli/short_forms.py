"""The habits of gzip, xz and tar turned into commands: -d FILE, -9 FILE, FILE, < FILE."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import typer.core

from mdlzip.cli import streams
from mdlzip.cli.terminal import STDIO
from mdlzip.errors import UsageError

LEVELS = frozenset(f"-{n}" for n in range(1, 10))
_DEFAULT = "compress"
_VERBS = {
    "-d": "decompress",
    "--decompress": "decompress",
    "--uncompress": "decompress",
    "-t": "test",
    "--test": "test",
    "-l": "list",
    "--list": "list",
}


class LeveledCommand(typer.core.TyperCommand):
    """A command in which -1 to -9 mean --level 1 to 9, alone or joined as in -9k."""

    def make_parser(self, ctx: Any) -> Any:
        """The parser of the command's options and of the nine short ones."""
        parser = super().make_parser(ctx)
        level: Any = next(p for p in self.params if p.name == "level")
        for flag in sorted(LEVELS):
            parser.add_option(
                obj=level, opts=[flag], dest="level", action="store_const", const=flag[1:]
            )
        return parser


@dataclass(frozen=True)
class Grammar:
    """What must be known of the commands to read a line that names none.

    root: options of the program itself; valued: options of any command that a value follows;
    tuning: options that only compression knows, which mean nothing where an archive is read.
    """

    commands: frozenset[str]
    root: frozenset[str]
    valued: frozenset[str]
    tuning: frozenset[str]

    @classmethod
    def of(cls, program: Any) -> Grammar:
        """The grammar of a group of commands, as typer and click describe it."""
        options = {name: _options(command) for name, command in program.commands.items()}
        every = [option for some in options.values() for option in some]
        tuning = _spellings(options[_DEFAULT]) - _spellings(options["decompress"])
        return cls(
            commands=frozenset(options),
            root=_spellings(_options(program)) | {"-h", "--help"},
            valued=_spellings(o for o in every if not (o.is_flag or o.count)),
            tuning=tuning | LEVELS,
        )


def _options(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "option"]


def _spellings(options: Iterable[Any]) -> frozenset[str]:
    return frozenset(word for o in options for word in (*o.opts, *o.secondary_opts))


@dataclass(frozen=True)
class _Word:
    """A FILE (option is "") or an option with its value, as the words to pass on."""

    option: str
    words: tuple[str, ...]


def expand(line: Sequence[str], grammar: Grammar) -> list[str]:
    """`line` with the command that is meant at its head.

    A line that begins with a command or an option of the program is left alone. Else -d, -t or -l
    (or their long forms), anywhere and joined with others, are the command; without them a command
    that comes behind options is; and compression is meant by everything else, also by no word at
    all where standard input is no terminal. Raises UsageError for two commands at once, and for a
    first FILE that does not exist, since it may be a mistyped command.
    """
    if not line:
        return [_DEFAULT] if _is_piped() else []
    if line[0] in grammar.commands or line[0] in grammar.root:
        return list(line)
    stop = line.index("--") if "--" in line else len(line)
    words, files = list(_words(line[:stop], grammar)), list(line[stop:])
    for word in words:
        if word.option in grammar.root and word.option not in _VERBS:
            return list(word.words)
    verbs = sorted({_VERBS[w.option] for w in words if w.option in _VERBS})
    if len(verbs) > 1:
        raise UsageError("choose one of -d, -t and -l")
    if verbs:
        kept = [w for w in words if w.option not in grammar.tuning and w.option not in _VERBS]
        return [verbs[0], *_joined(kept), *files]
    plain = [w.words[0] for w in words if not w.option]
    if plain and plain[0] in grammar.commands:
        words.remove(_Word("", (plain[0],)))
        return [plain[0], *_joined(words), *files]
    if plain:
        _check_first(plain[0], grammar)
    return [_DEFAULT, *_joined(words), *files]


def _is_piped() -> bool:
    return not streams.is_closed(0) and not sys.stdin.isatty()


def _words(line: Sequence[str], grammar: Grammar) -> Iterator[_Word]:
    """FILEs and options; joined short options one by one, each with the value that follows it."""
    left = list(line)
    while left:
        word = left.pop(0)
        if word == STDIO or not word.startswith("-"):
            yield _Word("", (word,))
        elif word.startswith("--"):
            name, equals, _ = word.partition("=")
            value = [left.pop(0)] if name in grammar.valued and not equals and left else []
            yield _Word(name, (word, *value))
        else:
            yield from _short(word, left, grammar)


def _short(word: str, left: list[str], grammar: Grammar) -> Iterator[_Word]:
    for i, letter in enumerate(word[1:], 1):
        option = f"-{letter}"
        if option in grammar.valued:
            rest = word[i + 1 :]
            value = [] if rest or not left else [left.pop(0)]
            yield _Word(option, (option + rest, *value))
            return
        yield _Word(option, (option,))


def _joined(words: Iterable[_Word]) -> list[str]:
    return [part for word in words for part in word.words]


def _check_first(name: str, grammar: Grammar) -> None:
    if not name:
        raise UsageError("the name of a FILE is empty")
    if name == STDIO or os.path.lexists(name):
        return
    from difflib import get_close_matches  # not for --help

    close = get_close_matches(name, sorted(grammar.commands), 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"{name}: no such command or file{meant} (mdlzip --help lists the commands)")
