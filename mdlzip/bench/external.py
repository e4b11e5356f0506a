"""Competitors that are programs of their own: run where they are installed, or by their path."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mdlzip.bench.measure import Measurement, check, same_file
from mdlzip.errors import UsageError
from mdlzip.report import printable

_SAID_CHARACTERS = 200  # of what a program that failed had to say


@dataclass(frozen=True)
class Tool:
    """How a program is called, in a folder that holds the file as `plain`.

    compress must make a file whose name begins with `coded`; decompress gets its name for {coded}
    and writes `back`, or `back/plain`. {level}: what follows the name, such as 5 in zpaq-5;
    {mib}: size of the file in MiB, rounded up. levels: those that are allowed, None if the
    program has none. quick: whether it is run without being asked for.
    """

    compress: str
    decompress: str
    levels: range | None = None
    level: int = 0
    quick: bool = True


TOOLS: Mapping[str, Tool] = {
    "zpaq": Tool(
        "add coded.zpaq plain -method {level} -threads 1",
        "extract {coded} plain -to back -threads 1",
        range(1, 6),
        5,
    ),
    "bsc": Tool("e plain coded -b{mib} -e2 -T", "d {coded} back -T"),
    "lrzip": Tool("-z -L {level} -p 1 -q -o coded plain", "-d -q -o back {coded}", range(1, 10), 9),
    "cmix": Tool("-c plain coded", "-d {coded} back", quick=False),
    "paq8px": Tool("-{level} plain coded", "-d {coded} back", range(1, 13), 9, quick=False),
}


class _Failed(Exception):
    pass


@dataclass(eq=False)
class External:
    """One program at one level; not run if it is not installed."""

    tool: str
    level: int
    program: str
    scope: str = field(default="file", init=False)

    @property
    def name(self) -> str:
        """As in `--against`."""
        return self.tool if TOOLS[self.tool].levels is None else f"{self.tool}-{self.level}"

    def measure(self, path: Path, chunk_size: int) -> Measurement:
        """Compress a copy of the file, decompress it, compare; times are those of the program."""
        found = shutil.which(self.program)
        if found is None:
            return Measurement(self.name, self.scope, None, note=f"{self.program}: not installed")
        tool, mib = TOOLS[self.tool], max(1, -(-path.stat().st_size >> 20))
        with tempfile.TemporaryDirectory(prefix="mdlzip-bench-") as name:
            folder = Path(name)
            shutil.copyfile(path, folder / "plain")
            line = tool.compress.format(level=self.level, mib=mib)
            try:
                compress_s = self._run(found, line, folder)
                (coded,) = folder.glob("coded*")
                decompress_s = self._run(found, tool.decompress.format(coded=coded.name), folder)
            except (_Failed, ValueError) as problem:  # no file, or several
                return Measurement(self.name, self.scope, None, note=f"failed: {problem}")
            back = folder / "back"
            back = back / "plain" if back.is_dir() else back
            check(self.name, back.is_file() and same_file(back, path))
            size = coded.stat().st_size
        note = f"{os.path.basename(found)} {line}"
        return Measurement(self.name, self.scope, size, compress_s, decompress_s, note)

    def _run(self, program: str, line: str, folder: Path) -> float:
        """Seconds of one call."""
        began = time.perf_counter()
        try:
            process = subprocess.Popen(
                [os.path.abspath(program), *line.split()],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as problem:
            raise _Failed(problem.strerror) from None
        killing = weakref.finalize(self, process.kill)  # also if mdlzip ends meanwhile
        said, _ = process.communicate()
        killing.detach()
        spent = time.perf_counter() - began
        if process.returncode:
            text = " ".join(said.decode(errors="replace").split())[-_SAID_CHARACTERS:]
            raise _Failed(f"code {process.returncode}: {printable(text)}")
        return spent


def make_external(name: str, programs: Mapping[str, str]) -> External | None:
    """The program called `name`, such as zpaq-5 or cmix; None if there is no such.

    programs: paths by name, where they are not to be looked for.
    """
    match = re.fullmatch(r"([a-z0-9]+?)(?:-(\d+))?", name)
    tool = TOOLS.get(match.group(1)) if match else None
    if match is None or tool is None:
        return None
    level = int(match.group(2) or tool.level)
    if match.group(2) and (tool.levels is None or level not in tool.levels):
        return None
    return External(match.group(1), level, programs.get(match.group(1), match.group(1)))


def installed() -> tuple[str, ...]:
    """Those that are at hand and take seconds a megabyte, not minutes."""
    return tuple(name for name, tool in TOOLS.items() if tool.quick and shutil.which(name))


def read_programs(texts: list[str]) -> dict[str, str]:
    """Programs by name from texts NAME=PATH; UsageError for others, and where no program is."""
    programs = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or name not in TOOLS:
            raise UsageError(f"--tool {text}: give NAME=PATH with NAME one of {', '.join(TOOLS)}")
        if shutil.which(path) is None:
            raise UsageError(f"--tool {text}: there is no such program, or it cannot be run")
        programs[name] = path
    return programs
