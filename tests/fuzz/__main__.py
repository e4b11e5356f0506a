"""`python -m tests.fuzz --minutes N --seed S`; exit code 1 if a fault was found."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mdlzip.process.settings import wait_passively

if TYPE_CHECKING:
    from tests.fuzz.run import Tally


def main() -> int:
    """Run as the options say."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="judge one mutant of the seed")
    parser.add_argument(
        "--folder", type=Path, default=Path("fuzz-faults"), help="for mutants that show a fault"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was counted")
    options = parser.parse_args()
    wait_passively()  # before torch is loaded
    from tests.fuzz.run import fuzz

    if options.only is not None:
        tally = fuzz(options.seed, options.folder, mutants=1, start=options.only)
    else:
        tally = fuzz(options.seed, options.folder, seconds=60 * options.minutes, on_progress=_show)
    print(tally.text())
    if options.json is not None:
        counts = {str(verdict): n for verdict, n in tally.counts.items()}
        found = {"seed": options.seed, "minutes": options.minutes, "mutants": tally.total}
        text = json.dumps({**found, "faults": len(tally.faults), "verdicts": counts}, indent=1)
        options.json.write_text(text + "\n")
    return 1 if tally.faults else 0


def _show(tally: Tally) -> None:
    if tally.total % 100 == 0:
        print(f"{tally.total} mutants, {len(tally.faults)} faults", file=sys.stderr, flush=True)


sys.exit(main())
