"""How many cores this process may use, and that everybody goes by it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mdlzip.process.cores import cgroup_quota, thread_count, usable_cores
from tests.conftest import ROOT, cli_environment

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 32 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "34 32 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def system(root: Path, memberships: str, mounts: str, files: dict[str, str]) -> Path:
    """A root folder with what a kernel would show there."""
    for name, text in {
        "proc/self/cgroup": memberships,
        "proc/self/mountinfo": mounts,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("memberships", "mounts", "files", "expected"),
    [
        ("0::/\n", V2, {}, None),
        ("0::/\n", V2, {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", V2, {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", V2, {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/a/b\n", V2, {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "200000 100000\n"}, 0.5),
        ("0::/a\n", V2, {"b/cpu.max": "50000 100000\n"}, None),  # somebody else's
        ("0::/a\n", V2, {"a/cpu.max": "what?\n"}, None),
        ("0::/a\n", V2, {"a/cpu.max": "100000 0\n"}, None),
        ("0::/a\n", V2, {"a/cpu.max": ""}, None),
        ("0::/../x\n", V2, {"cpu.max": "300000 100000\n"}, 3.0),
        (
            "3:cpu,cpuacct:/docker/1\n2:memory:/docker/1\n",
            MEMORY + V1,
            {
                "cpu,cpuacct/docker/1/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            "3:cpu,cpuacct:/a/b\n",
            V1,
            {
                "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/a/cpu.cfs_quota_us": "100000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "50000\n",
            },
            2.0,
        ),
        (  # a container that sees its own part of the tree under the host's name
            "3:cpu,cpuacct:/docker/1\n",
            V1.replace(" / ", " /docker/1 ", 1),
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        (  # both hierarchies: the tighter one binds
            "3:cpu:/\n0::/a\n",
            V1.replace("cpu,cpuacct", "cpu") + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/two"),
            {
                "cpu/cpu.cfs_quota_us": "400000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "two/a/cpu.max": "300000 100000\n",
            },
            3.0,
        ),
        (
            "0::/a b\n",
            V2.replace("fs/cgroup", "fs/cgroup/c\\040d"),
            {"c d/a b/cpu.max": "1 2"},
            0.5,
        ),
        ("nonsense\n", "nonsense\n", {}, None),
        ("0\n:::\n\n", "- - -\n", {}, None),
    ],
)
def test_quota_of_control_groups(
    tmp_path: Path, memberships: str, mounts: str, files: dict[str, str], expected: float | None
) -> None:
    assert cgroup_quota(system(tmp_path, memberships, mounts, files)) == expected


def test_no_control_groups(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 16), (0.2, 1), (1.0, 1), (1.4, 1), (1.6, 2), (64.0, 16)]
)
def test_a_quota_counts_in_whole_cores(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr("mdlzip.process.cores.cgroup_quota", lambda: quota)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("value", "cores"),
    [("1", 1), ("3,2", 3), (" 2 ", 2), ("64", 16), ("0", 16), ("-1", 16), ("", 16), ("x", 16),
     ("9" * 5000, 16), ("\u0663", 16)],
)  # fmt: skip
def test_omp_num_threads_is_an_upper_limit(
    monkeypatch: pytest.MonkeyPatch, value: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr("mdlzip.process.cores.cgroup_quota", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert usable_cores() == cores


def test_a_wish_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MDLZIP_THREADS", raising=False)
    assert (thread_count(), thread_count(7)) == (1, 7)
    monkeypatch.setenv("MDLZIP_THREADS", "5")
    assert (thread_count(), thread_count(7)) == (5, 7)


WHO_USES_HOW_MANY = """
import concurrent.futures, os, sys
os.cpu_count = lambda: 64
made = []
class Pool(concurrent.futures.ThreadPoolExecutor):
    def __init__(self, max_workers=None, *rest, **more):
        if sys._getframe(1).f_globals["__name__"].startswith("mdlzip."):
            made.append(max_workers)
        super().__init__(max_workers, *rest, **more)
concurrent.futures.ThreadPoolExecutor = Pool
import mdlzip, torch
source, archive = sys.argv[1:]
options = mdlzip.CompressOptions(steps=1, preset="nano", chunk_size=256)
report = mdlzip.compress(source, archive, options)
learned = mdlzip.CompressOptions(steps=1, preset="nano", chunk_size=256, fallback=False, force=True)
seen = []
mdlzip.compress(source, archive, learned,
                on_progress=lambda *phase: seen.append((phase[0], torch.get_num_threads())))
training = {threads for phase, threads in seen if phase == "train"}
mdlzip.test(archive)
with mdlzip.open(archive) as opened:
    opened.read(0, 10)
print(sorted(set(made)), sorted(training), mdlzip.inspect(archive).decode_threads)
"""


@pytest.mark.parametrize("how", ["affinity", "OMP_NUM_THREADS"])
def test_nobody_uses_more_than_one_core_of_one(tmp_path: Path, prose: bytes, how: str) -> None:
    """Pools of threads, training, and what memory is predicted for."""
    (tmp_path / "text").write_bytes(prose[:6000])
    environment = cli_environment(PYTHONPATH=str(ROOT))
    if how != "affinity":
        environment[how] = "1"
    cores = os.sched_getaffinity(0)

    def one_core() -> None:
        os.sched_setaffinity(0, {min(cores)})

    done = subprocess.run(
        [sys.executable, "-c", WHO_USES_HOW_MANY, "text", "text.mdlz"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=one_core if how == "affinity" else None,
    )
    assert done.stdout.splitlines()[-1:] == ["[1] [1] 1"], done.stdout + done.stderr
