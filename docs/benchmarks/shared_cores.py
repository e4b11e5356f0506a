"""Training steps a second beside busy programs, against their share of the cores.

`python shared_cores.py FILE [--budget 60s] [--out JSON]`: trains `nano` on FILE with all cores, by
itself and beside 1, 2 ... busy loops, one for each core. A scheduler that is fair leaves n threads
on n cores n / (n + k) of them beside k loops; a training that uses what k loops leave idle has
(n - k) / n. The figure is steps a second beside the loops over steps a second alone, over the
smaller of the two shares that is not 0.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

LOOP = "while True: pass"


def steps_per_s(file: Path, budget: str, loops: int, folder: Path) -> float:
    """Of one training beside so many busy loops."""
    words = [sys.executable, "-m", "mdlzip", "compress", str(file), "-f", "--json", "-q"]
    words += ["-o", str(folder / "out.mdlz"), "--preset", "nano", "--budget", budget]
    words += ["--no-fallback", "--no-verify", "--context", "chunk"]
    with ExitStack() as stack:
        for _ in range(loops):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", LOOP]))
            stack.callback(busy.kill)
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)["files"][0]["figures"]
    return float(figures["steps"] / figures["train_seconds"])


def main() -> None:
    """One line a number of loops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    n = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        alone = 0.0
        for loops in range(n + 1):
            speed = steps_per_s(given.file, given.budget, loops, Path(name))
            alone = alone or speed
            share = min(s for s in (n / (n + loops), (n - loops) / n) if s > 0)
            rows.append({
                "busy_loops": loops, "steps_per_s": round(speed, 2), "share_of_cores": share,
                "of_the_share": round(speed / alone / share, 2),
            })  # fmt: skip
            print(rows[-1], flush=True)
    if given.out:
        given.out.write_text(json.dumps({"cores": n, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
