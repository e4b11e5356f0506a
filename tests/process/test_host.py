"""A program that uses mdlzip as a library finds its process as it left it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, cli_environment

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}  # of the host's choice
HOST = Path(__file__).with_name("host.py")


def test_nothing_is_left_changed(tmp_path: Path, prose: bytes) -> None:
    """After success, errors, an exception of the caller's own; see `host.py` for what is looked at.

    In the end the caller has set denormals to be flushed, on all threads.
    """
    (tmp_path / "text").write_bytes(prose[:8000])
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, str(HOST), str(tmp_path)],
        env=cli_environment(TMPDIR=str(tmp_path / "tmp"), THREADS="2", **PASSIVE),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    changes = json.loads(done.stdout.splitlines()[-1])
    assert len(changes) == 15
    assert not {call: changed for call, changed in changes.items() if changed}


FORKED = """
import os, signal, sys
import torch
import mdlzip
torch.set_num_threads(2)
torch.ones(4_000_000).mul(2)  # now the threads of OpenMP are there, and will be missing in a child
pid = os.fork()
if pid == 0:
    signal.alarm(150)
    options = mdlzip.CompressOptions(
        preset="nano", steps=2, threads=2, fallback=False, verify=False)
    mdlzip.compress(sys.argv[1], sys.argv[2], options)
    mdlzip.test(sys.argv[2])
    os._exit(0)
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_process_trains_and_decodes(tmp_path: Path, prose: bytes) -> None:
    """It inherits a team of threads that does not exist there; a parallel step would hang."""
    (tmp_path / "text").write_bytes(prose[:8000])
    done = subprocess.run(
        [sys.executable, "-c", FORKED, "text", "text.mdlz"],
        cwd=tmp_path,
        env=cli_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.stdout.split() == ["0"], done.stderr


RANDOM_STATE = """
import sys, random, hashlib
import numpy, torch, mdlzip
options = mdlzip.CompressOptions(preset="nano", steps=5, threads=1, fallback=False, verify=False)
for seed in (1, 2):
    torch.manual_seed(seed); random.seed(seed); numpy.random.seed(seed)
    mdlzip.compress("text", str(seed), options)
    print(hashlib.sha256(open(str(seed), "rb").read()).hexdigest())
"""


def test_the_callers_random_state_changes_nothing(tmp_path: Path, prose: bytes) -> None:
    (tmp_path / "text").write_bytes(prose[:8000])
    done = subprocess.run(
        [sys.executable, "-c", RANDOM_STATE],
        cwd=tmp_path,
        env=cli_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    first, second = done.stdout.split()
    assert first == second and len(first) == 64
