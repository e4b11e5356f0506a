"""The figures of trust, by one command: run the tests behind each, add up what they counted.

`python -m tests.figures` writes docs/benchmarks/figures.json and the table of docs/security.md
anew; numbers behind it run some of the rows and print them.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from tests.conftest import ROOT

RESULT = ROOT / "docs" / "benchmarks" / "figures.json"
PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
_NEXT = "## How it is tested\n"
_SECTION = f"""## Figures

Properties as an auditor would ask for them; `python -m tests.figures` runs the tests behind each
row and writes this table ([JSON](benchmarks/figures.json)).

{BEGIN}{END}
"""
_KILLS = 34  # of each of six ways


@dataclass(frozen=True)
class Row:
    """A property, the tests that show it, and what they count.

    text: of the figure, with the fields `passed`, `seconds` and what the tests recorded; lacks:
    what this machine cannot show.
    """

    number: int
    name: str
    tests: tuple[str, ...]
    text: str
    lacks: str = ""
    only: str = ""


DAMAGE, HEADERS = "tests/hostile/test_damage.py", "tests/hostile/test_headers.py"
ROWS = (
    Row(
        1, "single bits flipped",
        (f"{DAMAGE}::test_every_single_bit_flip", f"{DAMAGE}::test_flipped_bits_in_a_pipe"),
        "{flips:,} flips of {passed} archives and pipes, each refused with code 3",
    ),
    Row(
        2, "cut off, or followed by more",
        (DAMAGE,), only="truncat or appended",
        text="{cuts:,} lengths, and bytes behind the end: each refused",
    ),
    Row(
        3, "parts moved, doubled, zeroed, of another archive",
        (DAMAGE,), "{splices:,} splices, each refused",
        only="splice or swapped or context_that_is_not",
    ),
    Row(
        4, "hostile headers",
        (f"{HEADERS}::test_hostile_archive_is_refused", f"{HEADERS}::test_refusal_is_cheap"),
        "{passed} tests: each with its own message, below 50 MB and a second",
    ),
    Row(5, "bombs", ("tests/hostile/test_bombs.py",), "{passed} tests: refused before allocation"),
    Row(
        6, "fuzzing", ("tests/hostile/test_fuzz.py",),
        "{passed} tests; the recorded run: {fuzz}",
    ),
    Row(
        7, "round trips of anything", ("tests/property/test_round_trip.py",),
        "{passed} properties, some 20 to 100 cases each",
    ),
    Row(
        8, "noise", ("tests/property/test_round_trip.py::test_smallest_method",),
        "at most 62 bytes more than the original",
    ),
    Row(
        9, "the same integers everywhere",
        ("tests/property/test_exactness.py", "tests/property/test_exponents.py"),
        "{passed} tests over threads, batches, instruction sets and kernels",
        "another architecture; a GPU, where tests marked `gpu` run",
    ),
    Row(
        10, "same seed, same archive",
        ("tests/cli/test_learned.py::test_same_seed_same_archive",), "identical bytes",
    ),
    Row(
        11, "kill -9", ("tests/crash/test_kill.py",),
        "{kills} kills at random times, no partial file",
    ),
    Row(
        12, "signals and closed streams",
        ("tests/cli/test_signals.py", "tests/cli/test_interrupt.py",
         "tests/cli/test_closed_streams.py"),
        "{passed} tests: code 128 + n, nothing left",
    ),
    Row(
        13, "full disk", ("tests/crash/test_disk_full.py",),
        "{offsets} offsets: one line, code 1, source and target as they were",
    ),
    Row(
        14, "resume", ("tests/files/test_resume.py",),
        "stopped at {stops} random steps: the same archive; {passed} tests",
    ),
    Row(15, "archives of before", ("tests/golden/test_golden.py",), "{passed} tests, all decode"),
    Row(
        16, "second decoder",
        ("tests/unit/test_second_decoder.py", "tests/unit/test_experts_second_decoder.py"),
        "{passed} tests: the same bytes, the same refusals",
    ),
    Row(
        17, "the source is safe",
        ("tests/files/test_sources.py", "tests/files/test_paths.py", "tests/files/test_owner.py"),
        "{passed} tests",
    ),
    Row(18, "metadata", ("tests/files/test_times.py",), "{passed} tests: times to the nanosecond"),
    Row(
        19, "memory of decoding", ("tests/process/test_memory.py",),
        "predicted within 20 % for {passed} presets",
    ),
    Row(
        20, "no code from a file", ("tests/unit/test_architecture.py",),
        "{passed} tests: no pickle, eval, exec, torch.load",
    ),
    Row(
        21, "start", ("tests/cli/test_startup.py",),
        "{passed} tests: `--help` below 0.3 s of CPU time, without torch",
    ),
    Row(
        22, "archives are decoded before they appear",
        ("tests/unit/test_codec.py",), "{passed} faults: code 7, nothing left",
        only="verify_refuse",
    ),
)  # fmt: skip


@dataclass
class Outcome:
    """What the tests of a row came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


def run(row: Row) -> Outcome:
    """Run its tests, those marked slow included."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "junit.xml"
        words = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "not gpu", *row.tests]
        words += ["-k", row.only] if row.only else []
        environment = os.environ | {"MDLZIP_KILLS": str(_KILLS)}
        subprocess.run(
            [*words, f"--junitxml={path}"],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return _read(path)


def _read(path: Path) -> Outcome:
    found = Outcome()
    for case in ElementTree.parse(path).iter("testcase"):
        found.seconds += float(case.get("time", 0))
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            found.failed += 1
        elif "skipped" in kinds:
            found.skipped += 1
        else:
            found.passed += 1
        for item in case.iter("property"):
            found.counts[str(item.get("name"))] += int(str(item.get("value")))
    return found


def figure(row: Row, found: Outcome) -> str:
    """The last column of the table."""
    if found.failed:
        return f"**{found.failed} of {found.failed + found.passed} tests fail**"
    text = row.text.format(
        passed=found.passed, seconds=found.seconds, fuzz=_fuzz_hour(), **found.counts
    )
    return f"{text}; not shown here: {row.lacks}" if row.lacks else text


def _fuzz_hour() -> str:
    path = RESULT.with_name("fuzz.json")
    if not path.exists():
        return "none"
    hour = json.loads(path.read_text())
    return f"{hour['mutants']:,} mutants in {hour['minutes']:g} minutes, {hour['faults']} faults"


def table(rows: list[dict[str, object]]) -> str:
    """Markdown."""
    lines = ["| # | property | figure | tests |", "| --- | --- | --- | --- |"]
    for row in rows:
        tests = ", ".join(f"`{name}`" for name in dict.fromkeys(_short(row["tests"])))
        lines.append(f"| {row['number']} | {row['property']} | {row['figure']} | {tests} |")
    return "\n".join(lines) + "\n"


def _short(tests: object) -> Iterator[str]:
    assert isinstance(tests, list)
    for name in tests:
        yield str(name).removeprefix("tests/").partition("::")[0].removesuffix(".py")


def main(words: list[str]) -> int:
    """Run rows; exit code 1 if a test failed."""
    chosen = [row for row in ROWS if not words or str(row.number) in words]
    made: list[dict[str, object]] = []
    failed = 0
    for row in chosen:
        found = run(row)
        failed += found.failed or not found.passed
        made.append(
            {
                "number": row.number,
                "property": row.name,
                "figure": figure(row, found),
                "tests": list(row.tests),
                "passed": found.passed,
                "failed": found.failed,
                "skipped": found.skipped,
                "seconds": round(found.seconds, 1),
                **found.counts,
            }
        )
        print(f"{row.number:3} {row.name}: {made[-1]['figure']}", flush=True)
    if words or failed:
        return int(bool(failed))
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "command": "python -m tests.figures",
    }
    RESULT.write_text(json.dumps({**about, "rows": made}, indent=1) + "\n")
    text = PAGE.read_text()
    if BEGIN not in text:
        text = text.replace(_NEXT, _SECTION + _NEXT)
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table(made) + END + after)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
