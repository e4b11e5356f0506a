"""Going on where an earlier call stopped: its settings rule, a wish against them is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mdlzip.codec.options import CompressOptions
from mdlzip.config import Preset, load_preset
from mdlzip.errors import UsageError

if TYPE_CHECKING:
    from mdlzip.training.checkpoint import Checkpoint


def take_up(
    options: CompressOptions, work: Path, shown: Path
) -> tuple[CompressOptions, Checkpoint]:
    """The checkpoint in folder `work`, and `options` with what it was begun with.

    What the caller left at its default follows the checkpoint; budget, device, threads and memory
    may differ. shown: the folder's name for messages. Raises UsageError if there is no checkpoint
    that is whole, or if an option asks for something else than the checkpoint has.
    """
    from mdlzip.training.checkpoint import load

    found = load(work)
    if found is None:
        raise UsageError(
            f"{shown}: its checkpoints are damaged or of another version of mdlzip; drop --resume"
            " and give --force to begin afresh"
        )
    settings, standard = found.settings, CompressOptions()
    taken: dict[str, object] = {}
    for name in ("chunk_size", "group_chunks", "context", "access_s", "seed", "steps"):
        asked, kept = getattr(options, name), getattr(settings, name)
        if asked != getattr(standard, name) and asked != kept:
            raise _refusal(shown, f"{name.replace('_', ' ')} {asked}", f"{kept}")
        taken[name] = kept
    if settings.steps is not None and (options.budget_s or options.level):
        raise _refusal(shown, "a budget", f"a fixed number of {settings.steps} steps")
    asked_preset = _asked_preset(options, settings.preset)
    if asked_preset is not None:
        difference = _difference(asked_preset, settings.preset)
        if difference:
            raise _refusal(shown, *difference)
    taken["preset"] = settings.preset.name
    if options.budget_s is None and options.level is None:
        taken["budget_s"] = settings.budget_s
    return replace(options, **taken), found  # type: ignore[arg-type]


def _asked_preset(options: CompressOptions, kept: Preset) -> Preset | None:
    """The settings that the options ask for; None if they ask for none."""
    if not (options.preset or options.config_file or options.overrides or options.method):
        return None
    preset = load_preset(options.preset or kept.name, options.config_file, options.overrides)
    if options.method is not None:
        preset = replace(preset, train=replace(preset.train, method=options.method))
    return preset


def _difference(asked: Preset, kept: Preset) -> tuple[str, str] | None:
    if asked.name != kept.name:
        return f"preset {asked.name}", kept.name
    for section in ("model", "train"):
        ours, theirs = getattr(asked, section), getattr(kept, section)
        for f in fields(ours):
            if f.name != "n_merges" and getattr(ours, f.name) != getattr(theirs, f.name):
                return f"{section}.{f.name} {getattr(ours, f.name)}", f"{getattr(theirs, f.name)}"
    return None


def _refusal(shown: Path, asked: str, kept: str) -> UsageError:
    return UsageError(
        f"{shown}: the checkpoint was not made with {asked} but with {kept}; leave that option"
        " out to go on, or drop --resume and give --force to begin afresh"
    )
