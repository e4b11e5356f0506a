"""Atomic, resumable checkpoints: one safetensors file each, numbers and settings in its header.

A checkpoint is written under a temporary name and renamed when complete; the newest complete one
wins and the one before is kept in case that one is damaged.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mdlzip.config import ModelConfig, Preset, TrainConfig, merge
from mdlzip.errors import UsageError

_KEEP = 2
_NAME = re.compile(r"step-[0-9]+\.safetensors")
_VERSION = 1
_META = "mdlzip"


@dataclass
class Progress:
    """Where a run stands: everything that is not a tensor."""

    step: int = 0
    fraction: float = 0.0
    elapsed_s: float = 0.0
    pruned: bool = False
    quantising: bool = False


@dataclass(frozen=True)
class Settings:
    """What a run was begun with, and goes on with: resolved, so that no default can shift it.

    budget_s: seconds, None if `steps` fixes the length; total_bytes: of the corpus.
    """

    preset: Preset
    chunk_size: int
    group_chunks: int
    seed: int
    steps: int | None
    budget_s: float | None
    total_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read back. table: integers by name (steps, exponents)."""

    settings: Settings
    progress: Progress
    tensors: dict[str, Tensor]
    table: dict[str, int]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; OSError or SafetensorError if that fails, and the earlier ones stay."""
    name = f"step-{checkpoint.progress.step:08d}"
    part = folder / f".{name}.part"
    about = {
        "version": _VERSION,
        "settings": asdict(checkpoint.settings),
        "progress": asdict(checkpoint.progress),
        "table": checkpoint.table,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.tensors.items()}
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
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            if about["version"] != _VERSION:
                continue
            return Checkpoint(
                _settings(about["settings"]),
                Progress(**about["progress"]),
                tensors,
                {str(k): int(v) for k, v in about["table"].items()},
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


def collect(model: nn.Module, optimisers: dict[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Parameters and optimiser state as one flat dictionary; numbers become float64 tensors."""
    names = {id(p): n for n, p in model.named_parameters()}
    out = {f"param/{n}": p.detach() for n, p in model.named_parameters()}
    for key, optimiser in optimisers.items():
        for p, state in optimiser.state.items():
            for field, value in state.items():
                tensor = value if isinstance(value, Tensor) else torch.tensor(float(value))
                out[f"{key}/{names[id(p)]}/{field}"] = tensor
    return out


@torch.no_grad()
def restore(
    model: nn.Module, optimisers: dict[str, torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """Put back what `collect` took."""
    params = dict(model.named_parameters())
    for key, value in tensors.items():
        kind, name, *field = key.split("/")
        if kind == "param":
            params[name].copy_(value)
        elif kind in optimisers:
            p = params[name]
            device = p.device if value.shape == p.shape else value.device
            optimisers[kind].state[p][field[0]] = value.to(device).clone()
