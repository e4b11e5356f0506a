"""What a training run takes from its caller, by type: the codec's options are such an object."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class PresetOptions(Protocol):
    """Where the settings come from: a preset by name, a TOML file, "section.key=value"."""

    @property
    def preset(self) -> str | None:
        """Its name; None to choose one for the file."""

    @property
    def config_file(self) -> Path | None:
        """Laid over the preset."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Laid over both."""


class Options(PresetOptions, Protocol):
    """Everything that training reads."""

    @property
    def device(self) -> str:
        """A device of torch, or "auto"."""

    @property
    def threads(self) -> int | None:
        """None for as many as there are usable cores."""

    @property
    def memory(self) -> int:
        """Most bytes for coding: of the process, and of a device other than the CPU."""

    @property
    def seed(self) -> int:
        """Of the starting weights and of the order of the chunks."""

    @property
    def context(self) -> str:
        """What is known beside a chunk's own past, or "auto"; kept with checkpoints."""

    @property
    def access_s(self) -> float | None:
        """Seconds that a first read may take; kept with checkpoints."""

    @property
    def steps(self) -> int | None:
        """Training steps; None if `seconds` sets the length."""

    @property
    def method(self) -> str | None:
        """The l0 method; None for the preset's."""

    @property
    def verify(self) -> bool:
        """Whether the archive will be decoded once, which takes a part of the budget."""

    @property
    def metrics(self) -> Path | None:
        """The user's file for the log."""

    @property
    def append_metrics(self) -> bool:
        """Add to that file if it is there."""

    @property
    def force(self) -> bool:
        """Replace that file if it is there."""

    def seconds(self, total_bytes: int) -> float:
        """The budget for a file of `total_bytes`, seconds."""
