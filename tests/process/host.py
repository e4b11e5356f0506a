"""A program that uses mdlzip as a library and says what has changed in its process afterwards.

Run with the folder to work in; prints one JSON object: name of the call -> list of changes.
"""

from __future__ import annotations

import json
import locale
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import mdlzip
from mdlzip.errors import CorruptArchive
from mdlzip.training.cpu import on_every_thread

MIB = 1 << 20


def denormals() -> list[float]:
    """What half of the smallest normal number is, on every thread that torch computes on."""
    found: list[float] = []
    on_every_thread(lambda: found.append(sys.float_info.min * 0.5))
    return sorted(found)


def facts() -> dict[str, object]:
    """All that a caller may rely on."""
    umask = os.umask(0o027)
    os.umask(umask)
    return {
        "environment": dict(os.environ),
        "working folder": os.getcwd(),
        "umask": umask,
        "locale": locale.setlocale(locale.LC_ALL),
        "open files": sorted(os.listdir("/proc/self/fd")),
        "python threads": sorted(t.name for t in threading.enumerate()),
        "children": sorted(c.pid or 0 for c in multiprocessing.active_children()),
        "signal handlers": [repr(signal.getsignal(s)) for s in signal.valid_signals()],
        "random": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "denormals": denormals(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "dtype": str(torch.get_default_dtype()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warnings": list(map(str, warnings.filters)),
        "path": list(sys.path),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "temporary folder": sorted(os.listdir(os.environ["TMPDIR"])),
        "affinity": sorted(os.sched_getaffinity(0)),
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
    }


def resident_bytes() -> int:
    """Resident set size of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kept_after_free(n: int = 300) -> int:
    """MiB that stay resident after n MiB were taken and freed in parts of a MiB."""
    before = resident_bytes()
    blocks = [b"\1" * MIB for _ in range(n)]
    del blocks
    return (resident_bytes() - before) // MIB


def attempt(call: Callable[[], object], expected: type[BaseException] | None) -> list[str]:
    """Names of the facts that `call` has changed; it must fail as `expected`."""
    before = facts()
    try:
        call()
        problem = None
    except BaseException as error:
        problem = error
    after = facts()
    changed = [name for name in before if before[name] != after[name]]
    if not isinstance(problem, expected or type(None)):
        changed.append(f"raised {problem!r}")
    return changed


class Stopped(Exception):
    """Raised by the caller's own function."""


def stop_in(wanted: str) -> Callable[[str, float, float, str], None]:
    """An on_progress that raises in a phase."""

    def look(phase: str, done: float, total: float, note: str) -> None:
        if phase == wanted:
            raise Stopped

    return look


def main(folder: Path) -> None:
    """Call everything, well and badly."""
    os.chdir(folder)
    source, archive = folder / "text", folder / "text.mdlz"
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    threads = int(os.environ["THREADS"])

    def options(**changes: object) -> mdlzip.CompressOptions:
        fixed = {"preset": "nano", "fallback": False, "threads": threads, "steps": 2}
        return mdlzip.CompressOptions(**(fixed | changes))  # type: ignore[arg-type]

    def opened() -> None:
        with mdlzip.open(archive) as file:
            file.read(10, 20)

    damaged = folder / "damaged.mdlz"
    signal.signal(signal.SIGUSR1, lambda *_: None)
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    child.start()
    mdlzip.compress(source, "first", options())
    # Not after `facts`: whatever computes in parallel starts torch's threads, which take their
    # flag for denormals from the one that starts them.
    out = {"first call": [] if min(denormals()) > 0 else ["denormals"]}
    out |= {
        "compress": attempt(lambda: mdlzip.compress(source, archive, options()), None),
        "by time": attempt(
            lambda: mdlzip.compress(source, "b", options(steps=None, budget_s=3.0)), None
        ),
        "stopped while training": attempt(
            lambda: mdlzip.compress(source, "c", options(), on_progress=stop_in("train")), Stopped
        ),
        "decompress": attempt(lambda: mdlzip.decompress(archive, "back"), None),
        "stopped while decoding": attempt(
            lambda: mdlzip.decompress(archive, "d", on_progress=stop_in("decode")), Stopped
        ),
        "open": attempt(opened, None),
        "test": attempt(lambda: mdlzip.test(archive), None),
    }
    on_every_thread(lambda: torch.set_flush_denormal(True))
    out |= {
        "compress, denormals flushed": attempt(
            lambda: mdlzip.compress(source, "f", options()), None
        ),
        "test, denormals flushed": attempt(lambda: mdlzip.test("f"), None),
        "flushed as before": [] if max(denormals()) == 0 else ["denormals"],
    }
    data = bytearray(archive.read_bytes())
    data[-200] ^= 1
    damaged.write_bytes(data)
    out["damaged"] = attempt(lambda: mdlzip.decompress(damaged, "e"), CorruptArchive)
    out["child lives"] = [] if child.is_alive() else ["it was ended"]
    child.kill()
    kept = kept_after_free()
    compiler = {"torch._dynamo", "torch._inductor", "sympy"} & {*sys.modules}
    out["modules nobody needs"] = sorted(compiler)
    out["freed memory"] = [f"{kept} MiB kept"] if kept > 100 else []
    print(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
