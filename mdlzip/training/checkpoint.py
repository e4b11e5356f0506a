"""Atomic, resumable checkpoints: safetensors for tensors, TOML for the rest. No pickle.

A checkpoint is a folder `step-NNNNNNNN` made under a temporary name and renamed when complete; the
newest complete one wins and the one before is kept in case that one is damaged.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PREFIX = "step-"
_KEEP = 2


@dataclass
class Progress:
    """Where a run stands: everything that is not a tensor."""

    fingerprint: str
    step: int = 0
    fraction: float = 0.0
    elapsed_s: float = 0.0
    pruned: bool = False
    quantising: bool = False


def save(
    folder: Path, progress: Progress, tensors: dict[str, Tensor], table: dict[str, int]
) -> None:
    """Write a checkpoint; `table` holds integers by name (steps, exponents)."""
    name = f"{PREFIX}{progress.step:08d}"
    part = folder / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part / "state.safetensors"
    )
    lines = [f"{k} = {_toml(v)}" for k, v in asdict(progress).items()]
    lines += ["[table]", *(f'"{k}" = {v}' for k, v in table.items())]
    (part / "progress.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for file in part.iterdir():
        with file.open("rb") as f:
            os.fsync(f.fileno())
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for old in _complete(folder)[:-_KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def load(
    folder: Path, fingerprint: str
) -> tuple[Progress, dict[str, Tensor], dict[str, int]] | None:
    """The newest checkpoint that is whole and belongs to this run, or None."""
    for path in reversed(_complete(folder)):
        try:
            meta = tomllib.loads((path / "progress.toml").read_text(encoding="utf-8"))
            table = {str(k): int(v) for k, v in meta.pop("table").items()}
            progress = Progress(**meta)
            tensors = load_file(path / "state.safetensors")
        except (OSError, ValueError, TypeError, KeyError, SafetensorError):
            continue  # damaged: the one before it serves
        if progress.fingerprint == fingerprint:
            return progress, tensors, table
    return None


def _complete(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob(PREFIX + "*") if p.is_dir()) if folder.is_dir() else []


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, (int, float)) else f'"{value}"'


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
