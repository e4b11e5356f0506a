"""How many CPU cores this process may use, and the number of threads that follows from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_V1_QUOTA, _V1_PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


def thread_count(threads: int | None = None) -> int:
    """The threads that were asked for; without a wish, MDLZIP_THREADS or one per usable core."""
    return threads or _positive(os.environ.get("MDLZIP_THREADS")) or usable_cores()


def usable_cores() -> int:
    """Cores that this process may use, at least 1.

    The least of: the CPU affinity of the calling thread (taskset, cpusets), the CPU quota of the
    control groups (containers, systemd), OMP_NUM_THREADS. The machine may have more cores.
    """
    limits = [_affinity()]
    if quota := cgroup_quota():
        limits.append(max(1, round(quota)))
    if threads := _positive(os.environ.get("OMP_NUM_THREADS")):
        limits.append(threads)
    return min(limits)


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # no Linux
        return os.cpu_count() or 1


def _positive(text: str | None) -> int | None:
    """1..9999, the first of a list such as OMP_NUM_THREADS="4,2"; None for anything else."""
    first = (text or "").split(",")[0].strip()
    plain = first.isascii() and first.isdigit() and len(first) <= 4
    return int(first) or None if plain else None


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPU time a second that the control groups of this process allow, in cores; None: no limit.

    A group is bound by the groups above it as well. Versions 1 and 2 are read below `root`. What
    cannot be read counts as no limit.
    """
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    quotas = []
    for line in memberships:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        for mount_point, inside in _mounts(mounts, version=2 if number == "0" else 1):
            top = root / mount_point.lstrip("/")
            for folder in _group_and_parents(top, path, inside):
                quota = _quota_v2(folder) if number == "0" else _quota_v1(folder)
                if quota is not None:
                    quotas.append(quota)
    return min(quotas, default=None)


def _mounts(lines: list[str], version: int) -> Iterator[tuple[str, str]]:
    """(mount point, the group that is its root) of every CPU hierarchy of this version."""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        v1 = kinds[0] == "cgroup" and "cpu" in kinds[2].split(",")
        if v1 if version == 1 else kinds[0] == "cgroup2":
            yield _unescaped(fields[4]), _unescaped(fields[3])


def _unescaped(field: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field


def _group_and_parents(top: Path, group: str, inside: str) -> Iterator[Path]:
    """Folders of a group and of those above it, up to the mount point.

    A container often sees only its own part of the tree, mounted from group `inside`; a path that
    does not lie there is that of another namespace, and the mount point is the group itself.
    """
    try:
        relative = Path(group).relative_to(inside)
    except ValueError:
        relative = Path()
    if ".." in relative.parts:
        relative = Path()
    folder = top / relative
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _quota_v2(folder: Path) -> float | None:
    """From "QUOTA PERIOD" in microseconds, "max" for none."""
    words = _words(folder / "cpu.max")
    return _cores(*words) if len(words) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _words(folder / _V1_QUOTA), _words(folder / _V1_PERIOD)
    return _cores(quota[0], period[0]) if quota and period else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []


def _cores(quota: str, period: str) -> float | None:
    """None for "max", for -1 and for anything that is no positive number."""
    if not (quota.isdigit() and period.isdigit() and int(quota) and int(period)):
        return None
    return int(quota) / int(period)
