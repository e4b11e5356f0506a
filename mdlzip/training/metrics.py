"""metrics.jsonl: one JSON object a line, units in the keys."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Callable
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mdlzip.errors import UsageError
from mdlzip.fileio.checks import exists, is_stream, own_descriptor, reason_of


class Metrics:
    """Appends lines to the run's own log and to a file of the user's.

    log: in the work folder, goes on when a run is resumed; None for none. copy: the user's file,
    "-" for stdout; append: add to it if it is there, force: else replace it. What cannot be
    written is told once through `warn`, and left out from then on: metrics are no reason to end
    hours of training. Raises OutputExists.
    """

    def __init__(
        self,
        log: Path | None,
        copy: Path | None = None,
        *,
        resume: bool = False,
        append: bool = False,
        force: bool = False,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path = log
        self._warn = warn
        self._files: list[tuple[Path, TextIO]] = []
        if log is not None:
            self._open(log, lambda: log.open("a" if resume else "w", encoding="utf-8"))
        if copy is not None:
            self._open(copy, lambda: _open_copy(copy, append=append or resume, force=force))

    def _open(self, path: Path, opened: Callable[[], TextIO]) -> None:
        try:
            self._files.append((path, opened()))
        except OSError as error:
            self._warn(f"{path}: metrics are not written: {reason_of(error)}")

    def write(self, event: str, **values: float | str) -> None:
        """One line {"event": ..., ...}, flushed at once."""
        clean = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        line = json.dumps({"event": event, **clean}) + "\n"
        for path, file in list(self._files):
            try:
                file.write(line)
                file.flush()
            except OSError as error:
                self._files.remove((path, file))
                with contextlib.suppress(OSError):
                    file.close()
                self._warn(f"{path}: metrics are not written any more: {reason_of(error)}")

    def close(self) -> None:
        """Close the files."""
        for _, file in self._files:
            with contextlib.suppress(OSError):
                file.close()

    def __enter__(self) -> Metrics:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self.close()


def _open_copy(path: Path, *, append: bool, force: bool) -> TextIO:
    if str(path) == "-":
        return os.fdopen(os.dup(1), "w", encoding="utf-8")
    if is_stream(path):
        return os.fdopen(os.dup(fd), "w") if (fd := own_descriptor(path)) else path.open("w")
    if append:
        return path.open("a", encoding="utf-8")
    if force:
        path.unlink(missing_ok=True)  # a link goes, what it leads to stays
    try:
        return path.open("x", encoding="utf-8")
    except FileExistsError:
        raise exists(path) from None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that was cut off by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def prequential_bytes(records: list[dict[str, Any]], total_bytes: int) -> float:
    """Online code length of a corpus from a training log: the area under its loss curve (sec. 2).

    records: the "step" lines of a metrics file, with bytes_seen (before the step's batch) and
    bits_per_byte. Only the first pass counts, each byte being sent once; bytes before the first
    record cost what it says. Raises UsageError if the log ends before `total_bytes`.
    """
    points = sorted(
        (float(r["bytes_seen"]), float(r["bits_per_byte"]))
        for r in records
        if r.get("event") == "step" and "bytes_seen" in r
    )
    if not points or points[-1][0] < total_bytes:
        seen = int(points[-1][0]) if points else 0
        raise UsageError(f"the log covers {seen:,} of {total_bytes:,} bytes: no whole pass")
    x = np.array([0.0, *(p[0] for p in points)])
    y = np.array([points[0][1], *(p[1] for p in points)])
    inside = x < total_bytes
    last = float(np.interp(total_bytes, x, y))
    x, y = np.append(x[inside], total_bytes), np.append(y[inside], last)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum()) / 8


def step_seconds(records: list[dict[str, Any]]) -> float:
    """Seconds of a training step with its penalty: the median over the log, 0 if it tells nothing.

    records: the lines of a metrics file, with elapsed_s since training began. Only steps before
    pruning count, after which no method costs anything; its search is not a step either.
    """
    before = takewhile(lambda record: record.get("event") != "prune", records)
    at = [(r["step"], r["elapsed_s"]) for r in before if r.get("event") == "step"]
    took = [(t1 - t0) / (s1 - s0) for (s0, t0), (s1, t1) in pairwise(at) if s1 > s0]
    return statistics.median(took) if took else 0.0
