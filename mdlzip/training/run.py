"""One training run for one file: the plan, the machine's settings, then the `Trainer`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mdlzip.chunks import Layout
from mdlzip.training.cpu import settled_cpu
from mdlzip.training.planner import make_plan
from mdlzip.training.threads import choosing_threads
from mdlzip.training.trainer import Progress, Trainer, TrainResult


def train(
    data: np.ndarray,
    layout: Layout,
    options: Any,
    *,
    work_dir: Path,
    on_progress: Progress,
    should_stop: Callable[[], bool],
    began: float | None = None,
    rival_bytes: int | None = None,
) -> TrainResult:
    """Train a network for `data` (uint8, one-dimensional, at least one byte).

    options: the codec's CompressOptions. began: when the work that the budget is for began
    (time.monotonic()), now by default. rival_bytes: the size to beat, None for any. Checkpoints go
    to `work_dir`; with options.resume a run of the same settings found there goes on. Raises NoGain
    as soon as the rival is out of reach, Interrupted after a checkpoint if `should_stop()` becomes
    true, ExportRefused if the trained network breaks a bound of the predictor.
    """
    began = time.monotonic() if began is None else began
    with settled_cpu(options.threads):
        plan = make_plan(data, layout, options, began)
        on_progress("plan", 0, plan.budget_s, plan.sentence(len(data), rival_bytes))
        trainer = Trainer(data, layout, options, plan, work_dir)
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
            return trainer.run(on_progress, should_stop, began)
        finally:
            trainer.metrics.close()
