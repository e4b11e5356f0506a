"""Atomic, resumable checkpoints: one safetensors file each, numbers and settings in its header.

A checkpoint is written under a temporary name and renamed when complete; the newest complete one
wins and the one before is kept in case that one is damaged.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mdlzip.config import ModelConfig, Preset, TrainConfig, merge
from mdlzip.errors import MdlzipError, UsageError
from mdlzip.fileio import plain_errors

_KEEP = 2
_NAME = re.compile(r"step-[0-9]+\.safetensors")
_VERSION = 3
_META = "mdlzip"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, fraction of the run, seconds that it has taken."""

    step: int = 0
    fraction: float = 0.0
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class Settings:
    """What a run was begun with, and goes on with: resolved, so that no default can shift it.

    context, access_s: what the archive was asked for, since training counts on what experts know.
    budget_s: seconds, None if `steps` fixes the length; total_bytes: of the corpus.
    """

    preset: Preset
    chunk_size: int
    group_chunks: int
    context: str
    access_s: float | None
    seed: int
    steps: int | None
    budget_s: float | None
    total_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint. state: of the session, see `Session.state_dict`."""

    settings: Settings
    progress: Progress
    state: dict[str, Tensor]


class Checkpoints:
    """Those that one run writes into a folder. warn: takes why one could not be written."""

    def __init__(self, folder: Path, settings: Settings, warn: Callable[[str], None]) -> None:
        self._folder, self._settings, self._warn = folder, settings, warn

    def save(self, progress: Progress, state: dict[str, Tensor]) -> bool:
        """Write one; whether that went well."""
        try:
            with plain_errors("the checkpoint cannot be written, training goes on without"):
                save(self._folder, Checkpoint(self._settings, progress, state))
        except MdlzipError as problem:
            self._warn(str(problem))
            return False
        return True


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; OSError or SafetensorError if that fails, and the earlier ones stay."""
    name = f"step-{checkpoint.progress.step:08d}"
    part = folder / f".{name}.part"
    about = {
        "version": _VERSION,
        "settings": asdict(checkpoint.settings),
        "progress": asdict(checkpoint.progress),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.state.items()}
    try:
        save_file(tensors, part, metadata={_META: json.dumps(about)})
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(folder / f"{name}.safetensors")
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    for old in _complete(folder)[:-_KEEP]:
        with contextlib.suppress(OSError):
            old.unlink()


def load(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None."""
    for path in reversed(_complete(folder)):
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})[_META])
                state = {key: file.get_tensor(key) for key in file.keys()}
            if about["version"] != _VERSION:
                continue
            return Checkpoint(
                _settings(about["settings"]),
                Progress(**about["progress"]),
                state,
            )
        except (OSError, ValueError, TypeError, KeyError, SafetensorError, UsageError):
            continue  # damaged, or of another version of mdlzip: the one before it serves
    return None


def _settings(table: dict[str, object]) -> Settings:
    preset = table.pop("preset")
    if not isinstance(preset, dict) or set(table) != {f.name for f in fields(Settings)} - {
        "preset"
    }:
        raise ValueError("settings of a checkpoint")
    resolved = Preset(
        str(preset["name"]),
        merge(ModelConfig(), preset["model"], "model"),
        merge(TrainConfig(), preset["train"], "train"),
    )
    return Settings(preset=resolved, **table)  # type: ignore[arg-type]


def _complete(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name))
