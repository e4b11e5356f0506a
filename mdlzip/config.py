"""Frozen settings with validation, and the TOML presets that fill them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from mdlzip import limits
from mdlzip.errors import UsageError

T = TypeVar("T")
METHOD_NAMES = ("none", "rl1", "drr", "drr-o", "pmmp", "fpp", "admm")
"""The l0 methods of `mdlzip.sparsity.methods`, by name."""
NORMS = ("rms", "layer")
ACTIVATIONS = ("relu2", "gelu")
POSITIONS = ("rotary", "sinusoidal")


def check_method(name: str) -> None:
    """Raise UsageError, listing the choices, unless `name` is an l0 method."""
    if name not in METHOD_NAMES:
        raise UsageError(f"unknown method {name!r}; choose one of {', '.join(METHOD_NAMES)}")


def _check(name: str, value: int | float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UsageError(f"{name} = {value!r} is outside {low}..{high}")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the transformer; everything here affects decoding and is stored in the archive.

    window: how many positions (itself included) attention sees; 0 means the whole chunk.
    conv_width: taps of the causal depthwise convolution before attention and MLP; 0 means none.
    shared_norm: one norm per block serves attention and MLP (the paper's code).
    match_min: bytes that must have stood in the chunk before for what followed them to be offered
    to the network as a guess (`mdlzip.matches`); 0 means no guesses.
    n_merges: strings that are one symbol each (`mdlzip.symbols`); the planner sets it.
    """

    d_model: int = 128
    n_layers: int = 3
    n_heads: int = 1
    d_ff: int = 512
    window: int = 32
    conv_width: int = 4
    norm: str = "rms"
    activation: str = "relu2"
    positions: str = "rotary"
    biases: bool = False
    shared_norm: bool = False
    match_min: int = 2
    n_merges: int = 0

    def __post_init__(self) -> None:
        _check("d_model", self.d_model, 8, limits.MAX_D_MODEL)
        _check("n_layers", self.n_layers, 1, limits.MAX_LAYERS)
        _check("n_heads", self.n_heads, 1, limits.MAX_HEADS)
        _check("d_ff", self.d_ff, 8, limits.MAX_D_FF)
        _check("window", self.window, 0, limits.MAX_CHUNK_SIZE)
        _check("conv_width", self.conv_width, 0, limits.MAX_CONV_WIDTH)
        _check("n_merges", self.n_merges, 0, limits.MAX_MERGES)
        if self.match_min:
            _check("match_min", self.match_min, limits.MIN_MATCH, limits.MAX_MATCH)
        if self.d_model % self.n_heads or (self.d_model // self.n_heads) % 2:
            raise UsageError(
                f"d_model {self.d_model} must be n_heads {self.n_heads} times an even number"
            )
        for name, allowed in (
            ("norm", NORMS),
            ("activation", ACTIVATIONS),
            ("positions", POSITIONS),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}")
        if self.shared_norm and self.norm != "layer":
            raise UsageError("shared_norm needs norm = 'layer'")

    @property
    def head_width(self) -> int:
        """K, the width of one attention head."""
        return self.d_model // self.n_heads


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; nothing here affects decoding.

    batch_chunks: chunks in a step. muon_lr, adam_lr: peak learning rates (Muon for matrices of the
    `mdl` family, Adam for all else; `optimiser = "adamw"` uses adam_lr for everything, as the
    paper). warmup_steps: linear warm-up. decay_start: fraction of the run after which the rate
    falls linearly to `final_lr` of its peak. method, alpha: l0 method and its strength, in units of
    the learning rate where the optimiser is Muon; alpha_stop: where the penalty ends;
    method_options: "key=value,..." for the method's class ("beta=25,relaxation=gaussian").
    prune_at: fraction of the run at which TAMADE fixes the mask; tolerance: relative loss it may
    cost. qat_at: fraction at which quantisation-aware training begins. step_rms: step of a matrix's
    codes in root mean squares of its surviving weights; 0: where rounding and weight bits balance,
    times coarseness (`training.qat.price_steps`). An alpha of 0 is chosen from the number of
    weights for each byte of the file (`training.penalty.price_weights`). deadzone: how much
    the rounding of weights leans towards zero, in steps; 0 = to nearest. vocabulary: symbols to
    predict, bytes and merges together; merge_count, merge_gain,
    merge_bytes (the longest string): see `learn.learn_merges`.
    """

    batch_chunks: int = 8
    optimiser: str = "muon"
    muon_lr: float = 0.006
    adam_lr: float = 0.03
    beta2: float = 0.95
    momentum: float = 0.95
    clip: float = 0.0
    warmup_steps: int = 30
    decay_start: float = 0.5
    final_lr: float = 0.02
    method: str = "rl1"
    method_options: str = ""
    alpha: float = 0.0
    alpha_stop: float = 0.8
    prune_at: float = 0.78
    tolerance: float = 0.004
    qat_at: float = 0.82
    step_rms: float = 0.0
    coarseness: float = 1.4
    deadzone: float = 0.1
    vocabulary: int = 512
    merge_count: float = 500.0
    merge_gain: float = 1.7
    merge_bytes: int = 16

    def __post_init__(self) -> None:
        _check("batch_chunks", self.batch_chunks, 1, 1 << 16)
        for name in ("muon_lr", "adam_lr"):
            _check(name, getattr(self, name), 0.0, 10.0)
        for name in ("beta2", "momentum", "decay_start", "final_lr", "alpha_stop"):
            _check(name, getattr(self, name), 0.0, 1.0)
        _check("alpha", self.alpha, 0.0, 1e6)
        _check("tolerance", self.tolerance, 0.0, 10.0)
        _check("clip", self.clip, 0.0, 1e6)
        _check("warmup_steps", self.warmup_steps, 0, 1 << 30)
        _check("vocabulary", self.vocabulary, 0, limits.MAX_MERGES)
        _check("merge_count", self.merge_count, 2.0, 1e12)
        _check("merge_bytes", self.merge_bytes, 2, limits.MAX_SYMBOL_BYTES)
        _check("merge_gain", self.merge_gain, 0.0, 1e6)
        _check("step_rms", self.step_rms, 0.0, 8.0)
        _check("coarseness", self.coarseness, 0.01, 100.0)
        _check("deadzone", self.deadzone, 0.0, 0.5)
        if not 0.0 <= self.prune_at <= self.qat_at <= 1.0:
            raise UsageError("0 <= prune_at <= qat_at <= 1 must hold")
        check_method(self.method)
        if self.optimiser not in ("muon", "adamw"):
            raise UsageError("optimiser must be muon or adamw")


@dataclass(frozen=True)
class Preset:
    """A named model and how to train it."""

    name: str
    model: ModelConfig
    train: TrainConfig


def presets_dir() -> Path:
    """Folder of the TOML presets: inside the installed package, or beside it in a source tree."""
    here = Path(__file__).resolve().parent
    for folder in (here / "models", here.parent / "models"):
        if folder.is_dir():
            return folder
    raise UsageError("the presets folder is missing from this installation")


def preset_names() -> list[str]:
    """Names of all presets."""
    return sorted(p.stem for p in presets_dir().glob("*.toml"))


def merge(base: T, table: dict[str, Any], where: str) -> T:
    """Return `base` with the table laid over it; an unknown or ill-typed key is an error."""
    known = {f.name: type(getattr(base, f.name)) for f in fields(base)}  # type: ignore[arg-type]
    unknown = sorted(table.keys() - known.keys())
    if unknown:
        raise UsageError(f"unknown key {where}.{unknown[0]}; known are {', '.join(sorted(known))}")
    clean = {}
    for key, value in table.items():
        kind = known[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise UsageError(f"{where}.{key} must be of type {kind.__name__}, not {value!r}")
        clean[key] = value
    return replace(base, **clean)  # type: ignore[type-var]


def _lay_over(preset: Preset, table: dict[str, Any], where: str) -> Preset:
    for section, content in table.items():
        if section not in ("model", "train") or not isinstance(content, dict):
            raise UsageError(f"{where}: unknown section {section!r}; use [model] and [train]")
    return Preset(
        preset.name,
        merge(preset.model, table.get("model", {}), "model"),
        merge(preset.train, table.get("train", {}), "train"),
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from None


def load_preset(
    name: str, config_file: Path | None = None, overrides: tuple[str, ...] = ()
) -> Preset:
    """Preset `name`, the TOML file laid over it, then every "section.key=value" of `overrides`."""
    path = presets_dir() / f"{name}.toml"
    if name not in preset_names():
        raise UsageError(f"unknown preset {name!r}; known are {', '.join(preset_names())}")
    preset = _lay_over(Preset(name, ModelConfig(), TrainConfig()), _read_toml(path), path.name)
    if config_file is not None:
        preset = _lay_over(preset, _read_toml(config_file), str(config_file))
    together: dict[str, Any] = {}  # applied at once: a rule may hold between two of them
    for text in overrides:
        key, equals, value = text.partition("=")
        section, dot, field_name = key.strip().partition(".")
        if not (equals and dot):
            raise UsageError(f"--set {text!r}: write section.key=value, e.g. train.alpha=0.1")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value.strip()
        together.setdefault(section.strip(), {})[field_name.strip()] = parsed
    return _lay_over(preset, together, "--set")
