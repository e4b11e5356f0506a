"""Fewer threads while others use the cores, all of them again afterwards; how they wait."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mdlzip
from mdlzip.callbacks import OnProgress
from mdlzip.process import settings
from mdlzip.training.threads import ThreadChoice, choosing_threads
from tests.conftest import ROOT, RunCli, cli_environment


class Machine:
    """Steps of training whose time depends on the number of threads, with some noise."""

    def __init__(self, most: int, step_s: Callable[[int], float], noise: float = 0.03) -> None:
        self.threads, self.step_s, self.clock_s = most, step_s, 0.0
        self.choice = ThreadChoice(most, self.set)
        self._noise, self._random = noise, random.Random(1)
        self.used: list[int] = []

    def set(self, threads: int) -> None:
        self.threads = threads

    def run(self, seconds: float) -> int:
        """Train for so long; returns the steps made."""
        end, steps = self.clock_s + seconds, 0
        while self.clock_s < end:
            took = self.step_s(self.threads) * self._random.uniform(1, 1 + 2 * self._noise)
            self.used.append(self.threads)
            self.clock_s += took
            self.choice.step_took(took)
            steps += 1
        return steps


def idle(threads: int) -> float:
    """Two cores halve the time, less what waiting costs."""
    return 0.04 / threads + 0.002 * threads


def busy(threads: int) -> float:
    """Another program has one of two cores: whoever waits for the second thread waits long."""
    return 0.042 if threads == 1 else 0.4


def test_all_threads_on_idle_cores() -> None:
    machine = Machine(2, idle)
    steps = machine.run(300)
    assert machine.threads == 2
    assert steps > 0.97 * 300 / idle(2) / 1.03, "and trying costs next to nothing"


def test_one_thread_beside_other_load() -> None:
    machine = Machine(2, busy)
    machine.run(20)
    assert machine.threads == 1
    assert machine.run(300) > 0.95 * 300 / 0.042 / 1.03


def test_it_follows_a_load_that_comes_and_goes() -> None:
    machine = Machine(2, idle)
    machine.run(120)
    for step_s, threads in ((busy, 1), (idle, 2), (busy, 1)):
        machine.step_s = step_s
        machine.run(130)  # longer than the longest wait for a trial
        assert machine.choice.count == threads


def test_many_cores_are_halved_and_doubled() -> None:
    def eight_free(threads: int) -> float:
        return 0.3 / min(threads, 8) + 0.02 * max(0, threads - 8)

    machine = Machine(32, eight_free)
    machine.run(200)
    assert machine.choice.count == 8
    machine.step_s = lambda threads: 0.3 / threads
    machine.run(400)
    assert machine.choice.count == 32


def test_noise_alone_changes_nothing_for_long() -> None:
    machine = Machine(2, lambda threads: 0.03, noise=0.3)
    machine.run(300)
    assert {1, 2} >= set(machine.used)
    assert machine.run(60) > 60 / (0.03 * 1.6)


def test_a_single_core_is_left_alone() -> None:
    machine = Machine(1, idle)
    machine.run(60)
    assert set(machine.used) == {1}


def test_the_phase_train_alone_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    seen: list[str] = []
    clock = iter(range(100))
    monkeypatch.setattr("mdlzip.training.threads.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr(ThreadChoice, "step_took", lambda self, seconds: taken.append(seconds))
    watch = choosing_threads(lambda phase, *rest: seen.append(phase))
    for phase in ("train", "train", "train", "prune", "train", "train"):
        watch(phase, 0, 1, "")
    assert taken == [1, 1, 1] and seen.count("train") == 5


def test_runs_of_fixed_length_keep_their_threads(
    tmp_path: Path, prose: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of an archive may depend on the number of threads, never on the load."""
    (tmp_path / "text").write_bytes(prose[:3000])
    chosen: list[str] = []
    seen: set[int] = set()

    def look(phase: str, *rest: object) -> None:
        if phase == "train":
            seen.add(torch.get_num_threads())

    def recorded(on_progress: OnProgress) -> OnProgress:
        chosen.append("by speed")
        return choosing_threads(on_progress)

    monkeypatch.setattr("mdlzip.training.run.choosing_threads", recorded)
    for changes in ({"steps": 4}, {"budget_s": 1.0}):
        options = mdlzip.CompressOptions(
            preset="nano", threads=2, fallback=False, force=True, verify=False, **changes
        )
        mdlzip.compress(tmp_path / "text", tmp_path / "out", options, on_progress=look)
        assert seen == {2}
        assert bool(chosen) == ("budget_s" in changes)


# --- how threads wait ----------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has said how threads wait."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "")  # so that what the test sets goes away with it
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("environment")
def test_threads_sleep_by_default() -> None:
    settings.wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    settings.spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "2000"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "7"), ("KMP_BLOCKTIME", "200")],
)
def test_the_users_choice_stands(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    settings.wait_passively()
    settings.spin_briefly()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("doctor --help", "PASSIVE None"),
        ("compress nofile --steps 3", "PASSIVE None"),
        ("compress nofile", "PASSIVE 2000"),
    ],
)
def test_the_command_line_says_how(arguments: str, expected: str) -> None:
    program = (
        "import os, sys\n"
        "from mdlzip.cli.app import main\n"
        f"try: main({arguments.split()!r})\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
        "print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=cli_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == expected, done.stderr


def test_a_library_leaves_the_environment_alone() -> None:
    program = (
        "import os; before = dict(os.environ)\n"
        "import mdlzip, mdlzip.codec, mdlzip.training.run, mdlzip.quantised.units\n"
        "assert dict(os.environ) == before\n"
    )
    subprocess.run([sys.executable, "-c", program], env=cli_environment(), cwd=ROOT, check=True)


@pytest.mark.slow
def test_steps_beside_a_busy_core(cli: RunCli, tmp_path: Path, prose: bytes) -> None:
    """Two threads and a program that wants a core of two: no collapse (it was a factor of ten)."""
    (tmp_path / "text").write_bytes(prose)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("needs two cores")

    def cpu_seconds(threads: int) -> float:
        """CPU time of a training with the busy program beside it, on the same two cores."""
        program = (
            f"import os, resource, runpy, sys; os.sched_setaffinity(0, {set(cores)})\n"
            "try: runpy.run_module('mdlzip', run_name='__main__')\n"
            "finally: print(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), file=sys.stderr)\n"
        )
        arguments = ["compress", "text", "-f", "-q", "--no-fallback", "--no-verify", "--preset"]
        arguments += ["nano", "--steps", "15", "-T", str(threads)]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=cli_environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return float(done.stderr.split()[-1])

    loop = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", loop, str(cores[0])]) as other:
        try:
            assert cpu_seconds(2) < 2.5 * cpu_seconds(1)
        finally:
            other.kill()
