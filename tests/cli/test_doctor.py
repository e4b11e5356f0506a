"""`mdlzip doctor`: what it says, and that its threads do not spin where others have work."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

from mdlzip.quantised.int8_products import host_kind
from tests.conftest import ROOT, cli_environment

MOST_CPU_S = 20.0  # of all threads; where no machine code is kept, compiling takes most of it


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_it_names_its_kernels_and_does_not_spin() -> None:
    """Two processes take the cores meanwhile: whoever waits for others by spinning pays now."""
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(2)]
    try:
        before = cpu_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "mdlzip", "doctor", "--json"],
            cwd=ROOT,
            env=cli_environment(),
            capture_output=True,
            timeout=240,
            check=False,
        )
        taken = cpu_seconds() - before
    finally:
        for other in others:
            other.kill()
            other.wait()
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["healthy"]
    assert taken < MOST_CPU_S
    assert found["predicts_with"].startswith(("compiled kernels, products of", "torch on "))
    checked, unchecked = set(found["kernels_checked"]), set(found["kernels_not_checked"])
    kind = host_kind()
    assert {f"forward_cpu.forward_{kind}", f"attention_cpu.attend_{kind}"} <= checked
    assert {"kernels_cpu.norm_codes", "weight_kernel.decide"} <= checked
    assert unchecked and not checked & unchecked
    assert all(probe["ok"] for probe in found["probes"])
