"""One benchmark run: the baselines and mdlzip on the same file, on the same machine."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mdlzip import __version__
from mdlzip.bench.baselines import make_codec
from mdlzip.bench.contexts import ContextRun, run_contexts
from mdlzip.bench.measure import Measurement, same_file
from mdlzip.bench.speed import SpeedRun, run_speed
from mdlzip.bench.weight_coders import yardsticks
from mdlzip.callbacks import OnProgress
from mdlzip.errors import MissingFile, UsageError, VerifyFailed
from mdlzip.quantised.int8_products import host_kind
from mdlzip.report import SCHEMA, Number, info_figures, ledger_rows, rows_as_json, settings

if TYPE_CHECKING:
    from mdlzip.codec import CompressOptions

T = TypeVar("T")
_LIBRARIES = ("torch", "numpy", "zstandard", "brotli", "pyppmd")


@dataclass(frozen=True)
class ModelRun:
    """mdlzip's own numbers on the file.

    figures: see `report.figures`; phases_s: seconds by phase of compression, empty for an archive
    that was there already. contexts: the same network in each context, speed: of coding and
    reading, both if asked for.
    """

    method: str
    ledger: dict[str, int]
    figures: dict[str, Number]
    model: dict[str, object]
    phases_s: dict[str, float] = field(default_factory=dict)
    contexts: tuple[ContextRun, ...] = ()
    speed: SpeedRun | None = None


@dataclass(frozen=True)
class BenchResult:
    """Everything measured on one file; `as_json` has a schema number and names its machine."""

    file: str
    original_bytes: int
    chunk_size: int
    baselines: list[Measurement]
    run: ModelRun | None

    def best(self, scope: str) -> Measurement | None:
        """The smallest baseline of a scope ("file" or "chunk") that ran."""
        ran = [m for m in self.baselines if m.scope == scope and m.bytes is not None]
        return min(ran, key=lambda m: m.bytes or 0, default=None)

    def gaps(self) -> dict[str, float]:
        """Size of our archive over the best whole-file and the best per-chunk baseline, minus 1."""
        if self.run is None:
            return {}
        ours = self.run.figures["archive_bytes"]
        best = {scope: self.best(scope) for scope in ("file", "chunk")}
        return {s: ours / m.bytes - 1 for s, m in best.items() if m is not None and m.bytes}

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        out: dict[str, Any] = {
            "schema": SCHEMA,
            "file": self.file,
            "original_bytes": self.original_bytes,
            "chunk_size": self.chunk_size,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "baselines": [vars(m) for m in self.baselines],
        }
        if self.run is not None:
            rows = ledger_rows(self.run.ledger, self.original_bytes)
            found = {**vars(self.run), "ledger": rows_as_json(rows)}
            found["contexts"] = [vars(run) for run in self.run.contexts]
            found["speed"] = self.run.speed and vars(self.run.speed)
            out["mdlzip"] = found
            out["gap_to_best"] = self.gaps()
        return out


def machine() -> dict[str, object]:
    """What the times depend on: processor, its products of bytes, cores, versions."""
    from importlib import metadata

    versions = {"mdlzip": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0))
    return {
        "processor": _processor(),
        "instruction_set": host_kind(),
        "cores": cores,
        "versions": versions,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def run_baselines(
    path: Path,
    names: Iterable[str],
    chunk_size: int,
    on_progress: OnProgress,
    programs: Mapping[str, str] | None = None,
) -> list[Measurement]:
    """Measure the named baselines one after another; unknown names are refused first.

    programs: as for `make_codec`.
    """
    codecs = [make_codec(name, programs) for name in names]
    results = []
    for i, codec in enumerate(codecs):
        on_progress("baselines", i, len(codecs), codec.name)
        results.append(_interruptible(partial(codec.measure, path, chunk_size)))
    if codecs:
        on_progress("baselines", len(codecs), len(codecs), "")
    return results


def _interruptible(work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread: a signal does not wait for a library's long call.

    A thread that is left behind goes down with the process.
    """
    outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as problem:
            outcome.put((None, problem))

    Thread(target=run, daemon=True).start()
    found, problem = outcome.get()
    if problem is not None:
        raise problem
    return cast("T", found)


class PhaseTimer:
    """Passes progress events on and adds up the wall time of every phase."""

    def __init__(self, pass_on: OnProgress) -> None:
        self._pass_on = pass_on
        self._phase = ""
        self._since = 0.0
        self.seconds: dict[str, float] = {}

    def __call__(self, phase: str, done: float, total: float, note: str) -> None:
        """Record the event; time between two events belongs to the phase of the earlier one."""
        self.stop()
        self._phase, self._since = phase, time.perf_counter()
        self._pass_on(phase, done, total, note)

    def stop(self) -> None:
        """Book the time since the last event."""
        if self._phase:
            spent = time.perf_counter() - self._since
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + spent
            self._phase = ""


def run_model(
    path: Path,
    options: CompressOptions,
    archive: Path | None,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
    *,
    contexts: bool = False,
    speed: bool = False,
) -> ModelRun:
    """Train, encode and decode `path`; an `archive` that exists is measured instead of training.

    What is smallest is measured, as users get it; the decoded bytes are compared. contexts: whether
    its network is tried in each context, too; speed: whether coding, reading and a training step
    are timed.
    """
    from mdlzip import codec

    with tempfile.TemporaryDirectory(prefix="mdlzip-bench-") as folder:
        target = archive or Path(folder) / "bench.mdlz"
        timer = PhaseTimer(on_progress)
        training: dict[str, Number] = {}
        encode_s: float | None = None
        if not target.exists():
            chosen = replace(options, verify=False)
            report = codec.compress(
                str(path), str(target), chosen, on_progress=timer, should_stop=should_stop
            )
            timer.stop()
            training, encode_s = dict(report.figures), report.encode_s
        with codec.open(
            str(target), device=options.device, threads=options.threads, memory=options.memory
        ) as opened:
            opened.read(0, 1)  # one group: start-up and compilation are not the decoder's speed
        back = Path(folder) / "back"
        start = time.perf_counter()
        codec.decompress(
            str(target),
            str(back),
            memory=options.memory,
            device=options.device,
            threads=options.threads,
            on_progress=on_progress,
        )
        decode_s = time.perf_counter() - start
        if not same_file(path, back):
            raise VerifyFailed(f"{target} does not decode to {path}")
        info = codec.inspect(str(target), memory=options.memory)
        figures = info_figures(info, training=training, encode_s=encode_s, decode_s=decode_s)
        if info.nnz:
            network, _ = codec.read_network(str(target), memory=options.memory)
            figures |= yardsticks(network, info.ledger["positions"] + info.ledger["values"])
        runs = run_contexts(path, target, options, on_progress) if contexts else []
        fast = run_speed(path, target, options, on_progress) if speed else None
    ledger, phases_s = dict(info.ledger), timer.seconds
    return ModelRun(info.method, ledger, figures, settings(info), phases_s, tuple(runs), fast)


def _chunk_size(archive: Path) -> int | None:
    from mdlzip import codec

    return codec.inspect(str(archive)).chunk_size


def run_bench(
    path: Path,
    *,
    against: Iterable[str],
    options: CompressOptions | None,
    chunk_size: int,
    archive: Path | None = None,
    programs: Mapping[str, str] | None = None,
    contexts: bool = False,
    speed: bool = False,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
) -> BenchResult:
    """Baselines, then mdlzip unless `options` is None. Raises UsageError for what is no file.

    chunk_size: bytes; an archive that is there already brings its own. programs: as for
    `make_codec`; contexts, speed: as for `run_model`.
    """
    if not path.exists():
        raise MissingFile(f"{path}: there is no such file")
    if not path.is_file():
        raise UsageError(f"{path} is not a regular file: bench reads it several times")
    size = path.stat().st_size
    if options is not None and archive is not None and archive.exists():
        chunk_size = _chunk_size(archive) or chunk_size
    baselines = run_baselines(path, against, chunk_size, on_progress, programs)
    run = None
    if options is not None:
        run = run_model(
            path, options, archive, on_progress, should_stop, contexts=contexts, speed=speed
        )
    return BenchResult(path.name, size, chunk_size, baselines, run)
