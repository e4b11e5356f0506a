"""What the codec takes and what it reports: plain data, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mdlzip import limits
from mdlzip.config import ModelConfig, check_method
from mdlzip.errors import UsageError

Progress = Callable[[str, float, float, str], None]
"""phase ("plan", "compare", "train", "prune", "quantise", "encode", "verify", "decode"), done,
total, note."""
ShouldStop = Callable[[], bool]

SUFFIX = ".mdlz"
DEFAULT_GROUP_BYTES = 1 << 16


@dataclass(frozen=True)
class CompressOptions:
    """How to compress; every field has a default.

    budget_s: seconds for training; level: 1..9 instead; preset, config_file, overrides
    ("train.peak_lr=0.01"): settings, later ones win. chunk_size: bytes; group_chunks: chunks in a
    group, None for about 64 KiB. method: l0 method, None for the preset's. weights: "coded" or
    "coo". fallback: keep a general-purpose method if it is smaller. work_dir: folder for
    checkpoints, None for a hidden one beside the output. memory: limit for decoding, bytes.
    """

    budget_s: float | None = None
    level: int | None = None
    preset: str | None = None
    config_file: Path | None = None
    overrides: tuple[str, ...] = ()
    chunk_size: int = 512
    group_chunks: int | None = None
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
    memory: int = limits.DEFAULT_MEMORY_BYTES

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("level", self.level, 1, 9),
            ("chunk size", self.chunk_size, limits.MIN_CHUNK_SIZE, limits.MAX_CHUNK_SIZE),
            ("group chunks", self.group_chunks, 1, limits.MAX_GROUP_CHUNKS),
            ("threads", self.threads, 1, 4096),
        ):
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} = {value} is outside {low}..{high}")
        if self.method is not None:
            check_method(self.method)
        if self.weights not in ("coded", "coo"):
            raise UsageError(f"weights = {self.weights!r}: choose coded or coo")
        if self.budget_s is not None and not self.budget_s > 0:
            raise UsageError(f"the budget must be more than 0 seconds, not {self.budget_s}")

    def chunks_per_group(self) -> int:
        """`group_chunks`, or as many as make up about 64 KiB."""
        return self.group_chunks or max(1, DEFAULT_GROUP_BYTES // self.chunk_size)


@dataclass(frozen=True)
class CompressReport:
    """What compression came to.

    path: None for stdout; method: "stored", "zstd", "xz" or "learned"; ledger: line -> bytes, sums
    to archive_bytes; candidates: method -> size of the whole archive, for all that were tried;
    skipped_training: why no model was kept, None if one was tried; figures: what training found;
    encode_s, decode_s: seconds for the chosen method (decode_s None without verification).
    """

    source: str
    path: Path | None
    method: str
    original_bytes: int
    archive_bytes: int
    ledger: dict[str, int]
    candidates: dict[str, int]
    skipped_training: str | None = None
    config: ModelConfig | None = None
    chunk_size: int | None = None
    group_chunks: int | None = None
    nnz: int | None = None
    n_weights: int | None = None
    figures: dict[str, float] = field(default_factory=dict)
    encode_s: float | None = None
    decode_s: float | None = None

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
class ArchiveInfo:
    """What an archive says of itself, without decoding the data.

    mode, mtime_ns: None if the original was a pipe; sha256: of the original, hexadecimal;
    decode_memory_bytes: predicted peak for decoding, with decode_threads. decode_operations: what
    that costs in time, see `quantised.work`. The rest is None unless learned.
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
    config: ModelConfig | None = None
    chunk_size: int | None = None
    group_chunks: int | None = None
    n_groups: int | None = None
    nnz: int | None = None
    n_weights: int | None = None


def no_progress(phase: str, done: float, total: float, note: str) -> None:
    """Progress that nobody watches."""
