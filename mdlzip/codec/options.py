"""What the codec takes and what it reports: plain data, nothing heavy imported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mdlzip import limits
from mdlzip.config import check_method, load_preset
from mdlzip.errors import UsageError
from mdlzip.networks.none import NoNetwork
from mdlzip.process.devices import check_device
from mdlzip.symbols.context import MODES

if TYPE_CHECKING:
    from mdlzip.archive.bodies.base import Body
    from mdlzip.archive.card import Card
    from mdlzip.networks.registry import NetworkConfig

WARNING = "warning"
ShouldStop = Callable[[], bool]

SUFFIX = ".mdlz"
DEFAULT_CHUNK_BYTES, DEFAULT_GROUP_BYTES = 512, 1 << 16
SECONDS_PER_MB = {1: 4, 2: 8, 3: 15, 4: 30, 5: 60, 6: 90, 7: 120, 8: 150, 9: 300}
DEFAULT_LEVEL = 5
_MIN_BUDGET_S = 15.0
AUTO = "auto"
EXPERTS = "experts"
ANY_PRESET = "nano"  # settings are looked at on it before the file has chosen a preset


_MAX_SEED = (1 << 63) - 1
_MAX_STEPS = 1 << 40
_NUMBERS: tuple[tuple[str, float, float], ...] = (
    ("level", 1, 9),
    ("group_chunks", 1, limits.MAX_GROUP_CHUNKS),
    ("threads", 1, 4096),
    ("seed", 0, _MAX_SEED),
    ("steps", 1, _MAX_STEPS),
    ("memory", 1, 1 << 62),
)


@dataclass(frozen=True)
class CompressOptions:
    """How to compress; every field has a default. Paths may be given as text.

    budget_s: seconds for training; level: 1..9 instead; steps: training steps instead; preset,
    config_file, overrides ("train.peak_lr=0.01"): settings, later ones win. chunk_size: bytes,
    "auto" for what suits the file, None for 512 unless much is lost by that;
    group_chunks: chunks in a group, None for about 64 KiB. context: what a chunk may know beside
    its own past: "chunk" (nothing), "group", "reference", "solid", or "auto".
    access_s: seconds that a first read of the archive may take, None for any; for "auto". method:
    l0 method, None for the preset's. weights: "coded" or "coo". fallback: keep a general-purpose
    method, or the experts without a network, if that is smaller.
    work_dir: folder in which to keep checkpoints, None for that of the output. resume: go on from
    the checkpoint of an earlier call, with its settings. metrics: JSON lines about the training.
    append_metrics: add to that file if it exists. memory: limit for decoding, bytes. model: a
    model file, or what it is called in the model folder, to code with in place of training; it is
    then needed for decoding.

    Raises UsageError for a value of the wrong type or out of range, and for an unknown preset,
    setting, method or device.
    """

    budget_s: float | None = None
    level: int | None = None
    preset: str | None = None
    config_file: Path | None = None
    overrides: tuple[str, ...] = ()
    chunk_size: int | str | None = None
    group_chunks: int | None = None
    context: str = AUTO
    access_s: float | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    steps: int | None = None
    method: str | None = None
    weights: str = "coded"
    fallback: bool = True
    verify: bool = True
    force: bool = False
    remove_source: bool = False
    work_dir: Path | None = None
    resume: bool = False
    metrics: Path | None = None
    append_metrics: bool = False
    memory: int = limits.DEFAULT_MEMORY_BYTES
    model: Path | None = None

    def __post_init__(self) -> None:
        for name in ("config_file", "work_dir", "metrics", "model"):
            object.__setattr__(self, name, _path(name, getattr(self, name)))
        for name, low, high in _NUMBERS:
            check_number(name, getattr(self, name), low, high)
        for name in ("fallback", "verify", "force", "remove_source", "resume", "append_metrics"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name in ("preset", "method", "device", "weights", "context"):
            value = getattr(self, name)
            if not (isinstance(value, str) or (value is None and name in ("preset", "method"))):
                raise UsageError(f"{name} must be text, not {value!r}")
        object.__setattr__(self, "overrides", _texts(self.overrides))
        if self.method is not None:
            check_method(self.method)
        if self.weights not in ("coded", "coo"):
            raise UsageError(f"weights = {self.weights!r}: choose coded or coo")
        if self.chunk_size != AUTO:
            low, high = limits.MIN_CHUNK_SIZE, limits.MAX_CHUNK_SIZE
            check_number("chunk_size", self.chunk_size, low, high)
        if self.context not in (AUTO, *MODES):
            raise UsageError(f"context = {self.context!r}: choose auto, {', '.join(MODES)}")
        check_budget(self.budget_s)
        check_seconds("access_s", self.access_s)
        lengths = ("budget_s", "level", "steps")
        given = [name for name in lengths if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other: give one")
        trained = ("preset", "config_file", "overrides", "method", "steps", "resume")
        also = [name for name in trained if getattr(self, name)] if self.model else []
        if also:
            raise UsageError(f"with a model nothing is trained: leave {also[0]} out")
        check_device(self.device)
        preset = load_preset(self.preset or ANY_PRESET, self.config_file, self.overrides)
        if preset.model.n_merges:
            raise UsageError("model.n_merges follows from the file; set train.vocabulary instead")

    def seconds(self, total_bytes: int) -> float:
        """The budget as given, or from the level: seconds per MB of the input, at least 15 s."""
        if self.budget_s is not None:
            return self.budget_s
        rate = SECONDS_PER_MB[self.level or DEFAULT_LEVEL]
        return max(_MIN_BUDGET_S, rate * total_bytes / 1e6)

    def chunks_per_group(self) -> int:
        """`group_chunks`, or as many as make up about 64 KiB."""
        return self.group_chunks or max(1, DEFAULT_GROUP_BYTES // self.chunk_bytes())

    def chunk_bytes(self) -> int:
        """`chunk_size`, or the usual one where that is left to the file."""
        return self.chunk_size if isinstance(self.chunk_size, int) else DEFAULT_CHUNK_BYTES


def _path(name: str, value: object) -> Path | None:
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} must be a path, not {value!r}")
    return Path(value)


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value):
        return tuple(value)
    raise UsageError(f"overrides must be texts section.key=value, not {value!r}")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """UsageError unless `value` is None or a whole number within the bounds."""
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{name} must be a whole number, not {value!r}")
    if not low <= value <= high:
        raise UsageError(f"{name.replace('_', ' ')} = {value} is outside {low}..{high}")


def check_budget(seconds: object) -> None:
    """UsageError unless `seconds` is None or a finite time above 0."""
    check_seconds("budget_s", seconds, "the budget")


def check_seconds(name: str, seconds: object, called: str | None = None) -> None:
    """UsageError unless `seconds`, of the option `name`, is None or a finite time above 0."""
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise UsageError(f"{name} must be a number of seconds, not {seconds!r}")
    if not 0 < seconds < math.inf:
        raise UsageError(f"{called or name} must be more than 0 seconds, not {seconds}")


@dataclass(frozen=True)
class CompressReport:
    """What compression came to.

    path: None for stdout; method: "stored", "zstd", "xz", "learned" or
    "experts" (learned, without a network); ledger: line -> bytes, sums
    to archive_bytes; candidates: method -> size of the whole archive, for all that were tried;
    skipped_training: why no model was kept, None if one was tried; context: the mode that was
    chosen or given, None unless learned; figures: what training found; model_id,
    model_bytes: of the model that the archive names, hexadecimal, and of its file;
    encode_s, decode_s: seconds for the chosen method (decode_s None without verification);
    warnings: what went wrong on the way without keeping the archive from being right.
    """

    source: str
    path: Path | None
    method: str
    original_bytes: int
    archive_bytes: int
    ledger: dict[str, int]
    candidates: dict[str, int]
    skipped_training: str | None = None
    config: NetworkConfig | None = None
    chunk_size: int | None = None
    group_chunks: int | None = None
    context: str | None = None
    nnz: int | None = None
    n_weights: int | None = None
    model_id: str | None = None
    model_bytes: int | None = None
    figures: dict[str, float] = field(default_factory=dict)
    encode_s: float | None = None
    decode_s: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def model_lost_by(self) -> int:
        """Bytes by which the learned archive was larger than the one kept; 0 if it was kept."""
        return max(0, self.candidates.get("learned", 0) - self.archive_bytes)


@dataclass(frozen=True)
class DecompressReport:
    """What was given back; path: None for stdout."""

    source: str
    path: Path | None
    method: str
    original_bytes: int
    seconds: float


@dataclass(frozen=True)
class Damage:
    """Bytes start .. stop - 1 of the original that were not recovered, or that nothing vouches for.

    lost: False for bytes that were written as they were found, but whose checksum is gone or was
    needed to put a flipped bit right.
    """

    start: int
    stop: int
    lost: bool


@dataclass(frozen=True)
class SalvageReport(DecompressReport):
    """What was got out of a damaged archive.

    verified: nothing is lost and the SHA-256 is that of the original; damage: ascending ranges,
    empty if verified; repaired: sections of the archive in which a flipped bit was put right.
    """

    verified: bool
    damage: tuple[Damage, ...]
    repaired: tuple[str, ...]

    @property
    def lost_bytes(self) -> int:
        """Bytes of the original that were not recovered."""
        return sum(d.stop - d.start for d in self.damage if d.lost)


@dataclass(frozen=True)
class ArchiveInfo:
    """What an archive says of itself, without decoding the data.

    mode, mtime_ns: None if the original was a pipe; sha256: of the original, hexadecimal;
    decode_memory_bytes: predicted peak for decoding, with decode_threads. decode_operations: what
    that costs in time, see `quantised.work`. The rest is None unless learned. row_bytes,
    element_bytes: of a grid; row_bytes is 0 where the data are none. first_read_bytes,
    later_read_bytes: most that is decoded for one byte, at first and once that is done. model_id:
    of the model that the archive names, hexadecimal; model_bytes: of its file, if it is kept. card:
    what a model file says of itself.
    """

    source: str
    method: str
    original_bytes: int
    archive_bytes: int
    name: str | None
    mode: int | None
    mtime_ns: int | None
    sha256: str
    ledger: dict[str, int]
    decode_memory_bytes: int
    decode_threads: int | None = None
    decode_operations: int | None = None
    config: NetworkConfig | None = None
    chunk_size: int | None = None
    group_chunks: int | None = None
    n_groups: int | None = None
    context: str | None = None
    row_bytes: int | None = None
    element_bytes: int | None = None
    n_units: int | None = None
    first_read_bytes: int | None = None
    later_read_bytes: int | None = None
    nnz: int | None = None
    n_weights: int | None = None
    model_id: str | None = None
    model_bytes: int | None = None
    card: Card | None = None


def method_label(body: Body, config: NetworkConfig | None = None) -> str:
    """What reports call a method: "learned" has a network, "experts" has none."""
    return EXPERTS if isinstance(config, NoNetwork) else body.label


def no_progress(phase: str, done: float, total: float, note: str) -> None:
    """For a caller that does not show progress."""
