"""One training run for one file: the plan, the machine's settings, then the `Trainer`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mdlzip.config import ModelConfig
from mdlzip.errors import NoGain
from mdlzip.symbols.tokens import Tokens
from mdlzip.training.checkpoint import Checkpoint
from mdlzip.training.cpu import settled_cpu
from mdlzip.training.planner import make_plan
from mdlzip.training.threads import choosing_threads
from mdlzip.training.trainer import Progress, Trainer, TrainResult


def train(
    tokens: Tokens,
    sample: np.ndarray,
    options: Any,
    *,
    work_dir: Path,
    on_progress: Progress,
    should_stop: Callable[[], bool],
    began: float | None = None,
    rival_bytes: int | None = None,
    resumed: Checkpoint | None = None,
    check_model: Callable[[ModelConfig], None] = lambda config: None,
    check_source: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = lambda text: None,
) -> TrainResult:
    """Train a network for a file of at least one byte, given by its symbols.

    sample: some of its bytes, as `learn.sample_of` takes them.
    options: the codec's CompressOptions. began: when the work that the budget is for began
    (time.monotonic()), now by default. rival_bytes: the size to beat, None for any. Checkpoints go
    to `work_dir`; resumed: the one to go on from. check_model: raises if the chosen model must not
    be trained; check_source: raises if the input has changed, asked with every checkpoint. warn:
    takes what went wrong without harm. Raises NoGain as soon as the rival is out of reach,
    Interrupted after a checkpoint if `should_stop()` becomes true, ExportRefused if the trained
    network breaks a bound of the predictor.
    """
    began = time.monotonic() if began is None else began
    with settled_cpu(options.threads):
        preset = resumed.settings.preset if resumed else None
        plan = make_plan(tokens, sample, options, began, preset)
        check_model(plan.preset.model)
        sentence = plan.sentence(tokens.total_bytes, rival_bytes)
        if resumed:
            at = resumed.progress
            sentence = f"going on at step {at.step} ({at.fraction:.0%} done): {sentence}"
        on_progress("plan", 0, plan.budget_s, sentence)
        doubt = None if resumed else plan.doubt(rival_bytes)
        if doubt and rival_bytes is not None:
            raise NoGain(doubt)
        if doubt:
            warn(doubt)
        trainer = Trainer(tokens, options, plan, work_dir, resumed=resumed, warn=warn)
        trainer.rival_bytes = rival_bytes
        try:
            trainer.metrics.write(
                "plan",
                preset=plan.preset.name,
                budget_s=plan.budget_s,
                step_s=plan.step_s,
                coding_s=plan.coding_s,
            )
            if plan.steps is None and plan.device == "cpu":
                on_progress = choosing_threads(on_progress)
            return trainer.run(on_progress, should_stop, began, check_source)
        finally:
            trainer.metrics.close()
